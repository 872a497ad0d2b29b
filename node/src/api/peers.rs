//! The other devices of the business, and invitations for new ones.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use crdt_model::record::Role;
use crdt_model::shop::{LinkKind, Peer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::NodeControl;
use super::body::Body;
use super::problem::{Problem, ProblemDocument};
use super::state::ApiState;
use super::values::rfc3339;

/// Another device of the business.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PeerView {
    device: String,
    name: Option<String>,
    /// till or relay.
    role: Option<&'static str>,
    /// A session with it is up.
    connected: bool,
    links: Vec<LinkView>,
    /// When it was last heard.
    last_heard: Option<String>,
    /// How many of this device's entries it lacks, by its own word.
    lacks: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct LinkView {
    /// lan, bluetooth, host or memory.
    kind: &'static str,
    since: String,
    /// Where the other end is, for people.
    remote: Option<String>,
    /// Bytes of messages received.
    received_bytes: Option<u64>,
    /// Bytes that a Bluetooth or host-supplied link has put on the air, everything included.
    carried_sent_bytes: Option<u64>,
    /// Bytes that such a link has taken from the air, everything included.
    carried_received_bytes: Option<u64>,
}

/// All the other devices.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PeersView {
    items: Vec<PeerView>,
}

/// Whom to invite.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InvitationBody {
    /// till (if not given) or relay.
    #[serde(default)]
    role: RoleWord,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RoleWord {
    #[default]
    Till,
    Relay,
}

/// An invitation. Whoever has its text can join, once: show it, don't store it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InvitationView {
    /// What `tillmesh join` is given.
    invitation: String,
    role: &'static str,
}

/// The other devices of the business.
#[utoipa::path(get, path = "/api/peers", tag = "mesh", responses((status = 200, body = PeersView)))]
pub(super) async fn list(State(state): State<ApiState>) -> Result<Json<PeersView>, Problem> {
    let peers = state.shop.ask(|shop| shop.peers()).await?;
    Ok(Json(PeersView { items: peers.into_iter().map(|peer| view(peer, state.node.as_ref())).collect() }))
}

/// Invites one device.
#[utoipa::path(post, path = "/api/invitations", tag = "mesh", request_body = InvitationBody,
    responses((status = 201, body = InvitationView),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn invite(
    State(state): State<ApiState>,
    Body(body): Body<InvitationBody>,
) -> Result<Response, Problem> {
    let role = match body.role {
        RoleWord::Till => Role::Till,
        RoleWord::Relay => Role::Relay,
    };
    let invitation = state.node.invite(role).await?;
    let view = InvitationView { invitation, role: role_word(role) };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

pub(super) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Till => "till",
        Role::Relay => "relay",
    }
}

fn view(peer: Peer, node: &dyn NodeControl) -> PeerView {
    let links: Vec<LinkView> = peer
        .links
        .into_iter()
        .map(|(link, kind, since)| {
            let moved = node.moved(link);
            let counts = matches!(kind, LinkKind::Bluetooth | LinkKind::Host);
            let carried = moved.as_ref().filter(|_| counts);
            LinkView {
                kind: link_word(kind),
                since: rfc3339(since),
                received_bytes: moved.as_ref().map(|moved| moved.received_bytes),
                carried_sent_bytes: carried.map(|moved| moved.carried_sent_bytes),
                carried_received_bytes: carried.map(|moved| moved.carried_received_bytes),
                remote: moved.map(|moved| moved.remote),
            }
        })
        .collect();
    PeerView {
        device: peer.device.to_string(),
        name: peer.certificate.as_ref().map(|certificate| certificate.name.clone()),
        role: peer.certificate.map(|certificate| role_word(certificate.role)),
        connected: !links.is_empty(),
        links,
        last_heard: peer.heard.map(rfc3339),
        lacks: peer.lacks,
    }
}

const fn link_word(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Lan => "lan",
        LinkKind::Bluetooth => "bluetooth",
        LinkKind::Host => "host",
        LinkKind::Memory => "memory",
    }
}
