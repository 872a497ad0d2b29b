//! Safe to wipe: what would be lost with this device, signed by it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use crdt_model::ids::DeviceId;
use crdt_model::shop::{Input, SignedVerdict, Verdict};
use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::caller::Caller;
use super::problem::Problem;
use super::state::ApiState;
use super::values::rfc3339;
use crate::shop_loop::now;

/// Others' words arrive without a hint, so they are looked for this often.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(20);

/// What would be lost with this device. Only what its holders have signed for counts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VerdictView {
    /// Nothing would be lost.
    safe: bool,
    /// What stands against it: only_here, not_at_relay, owner_key, relay, shift_open.
    reasons: Vec<&'static str>,
    business: String,
    device: String,
    at: String,
    /// How many entries nobody else has signed for.
    only_here: u64,
    /// How many entries no relay has signed for.
    not_at_relay: u64,
    /// The shift that this device has, if there is one.
    shift_id: Option<String>,
    journals: Vec<HeldView>,
    /// What is signed: the verdict as CBOR, in base64 (docs/protocol.md).
    verdict: String,
    /// The device's signature, in hexadecimal digits.
    signature: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct HeldView {
    journal: String,
    /// The device that wrote it.
    author: PartyView,
    /// The last entry held here.
    entries: u64,
    only_here: u64,
    not_at_relay: u64,
    /// Who else has signed for it.
    holders: Vec<HolderView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VerdictParty)]
struct PartyView {
    device: String,
    name: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct HolderView {
    #[serde(flatten)]
    party: PartyView,
    relay: bool,
    /// Up to which entry.
    entries: u64,
    /// When it signed.
    signed_at: String,
}

/// Says what would be lost with this device. Asks the others for their word first, and waits
/// for it up to `?wait=` milliseconds unless all is safe before.
#[utoipa::path(get, path = "/api/safe-to-wipe", tag = "mesh",
    params(("wait" = Option<u64>, Query, maximum = 30000, description = "Milliseconds, at most 30000")),
    responses((status = 200, body = VerdictView)))]
pub(super) async fn verdict(State(state): State<ApiState>, caller: Caller) -> Result<Json<VerdictView>, Problem> {
    let owner_key = state.node.has_owner_key();
    let deadline = Instant::now() + caller.wait;
    state.shop.input(Input::AskHoldings).await?;
    loop {
        let (signed, names) = state
            .shop
            .ask(move |shop| {
                let named = |member: &crdt_model::record::Certificate| {
                    let relay = member.role == crdt_model::record::Role::Relay;
                    (member.device, (member.name.clone(), relay))
                };
                (shop.safe_to_wipe(now(), owner_key), shop.members().map(named).collect())
            })
            .await?;
        let at_relay = signed.verdict.not_at_relay() == 0;
        if at_relay || Instant::now() >= deadline {
            return Ok(Json(view(signed, &names)));
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_AGAIN)).await;
    }
}

fn view(signed: SignedVerdict, names: &BTreeMap<DeviceId, (String, bool)>) -> VerdictView {
    let SignedVerdict { verdict, bytes, signature } = signed;
    let party = |device: DeviceId| {
        let name = names.get(&device).map(|(name, _)| name.clone());
        PartyView { device: device.to_string(), name }
    };
    let reasons = reasons(&verdict);
    let (only_here, not_at_relay) = (verdict.only_here(), verdict.not_at_relay());
    let journals = verdict.journals.into_iter().map(|held| HeldView {
        journal: held.journal.to_string(),
        author: party(held.author),
        entries: held.high,
        only_here: held.only_here,
        not_at_relay: held.not_at_relay,
        holders: held
            .holders
            .into_iter()
            .map(|holder| HolderView {
                party: party(holder.device),
                relay: names.get(&holder.device).is_some_and(|(_, relay)| *relay),
                entries: holder.high,
                signed_at: rfc3339(holder.at),
            })
            .collect(),
    });
    VerdictView {
        safe: verdict.safe,
        reasons,
        business: verdict.business.to_string(),
        device: verdict.device.to_string(),
        at: rfc3339(verdict.at),
        only_here,
        not_at_relay,
        shift_id: verdict.shift.map(|shift| shift.to_string()),
        journals: journals.collect(),
        verdict: BASE64.encode(&bytes),
        signature: HEXLOWER.encode(&signature),
    }
}

fn reasons(verdict: &Verdict) -> Vec<&'static str> {
    let found = [
        ("only_here", verdict.only_here() > 0),
        ("not_at_relay", verdict.not_at_relay() > 0),
        ("owner_key", verdict.owner_key),
        ("relay", verdict.relay),
        ("shift_open", verdict.shift.is_some()),
    ];
    found.into_iter().filter(|(_, stands)| *stands).map(|(reason, _)| reason).collect()
}
