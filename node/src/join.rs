//! Joining a business: invitations, which only the device that made one redeems, once.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crdt_model::ids::{BusinessId, DeviceId};
use crdt_model::record::{Certificate, Fact, Genesis, Role};
use crdt_model::shop::Operation;
use crdt_model::time::Timestamp;
use data_encoding::BASE32_NOPAD;
use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use transport::{Lan, LanConfig, PeerKey};

use crate::folder::{self, Admission, FolderError};
use crate::shop_handle::{RecordError, ShopHandle};
use crate::shop_loop::now;
use crate::storage::{RowWrite, Rows, StorageError};

/// The stream protocol of joining.
pub(crate) const JOIN_PROTOCOL: &str = "/tillmesh/join/1";
/// An invitation that nobody used is worthless after a day.
const INVITATION_LIFE_MS: u64 = 24 * 60 * 60 * 1000;
/// How long one side waits for the other's message.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
const PREFIX: &str = "TILLMESH1";
const INVITATION_TEXT_BYTES_MAX: usize = 2_048;
/// The most addresses in an invitation; more would make its QR code hard to scan.
const ADDRESSES_MAX: usize = 4;

/// What the inviting device prints and the new one is given: a text that also fits a QR code.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Invitation {
    /// The business.
    #[n(0)]
    pub business: BusinessId,
    /// The device that made it and alone redeems it.
    #[n(1)]
    pub inviter: DeviceId,
    /// What proves that the new device was given it.
    #[cbor(n(2), with = "minicbor::bytes")]
    secret: [u8; 16],
    /// Where the inviter listens.
    #[n(3)]
    pub addresses: Vec<String>,
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = minicbor::to_vec(self).unwrap_or_default();
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes))
    }
}

/// A text that is no invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an invitation: copy the whole text that `tillmesh invite` printed, from {PREFIX} on")]
pub struct NotAnInvitation;

impl FromStr for Invitation {
    type Err = NotAnInvitation;

    fn from_str(text: &str) -> Result<Self, NotAnInvitation> {
        let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        if text.len() > INVITATION_TEXT_BYTES_MAX {
            return Err(NotAnInvitation);
        }
        let code = text.to_ascii_uppercase();
        let code = code.strip_prefix(PREFIX).ok_or(NotAnInvitation)?;
        let bytes = BASE32_NOPAD.decode(code.as_bytes()).map_err(|_| NotAnInvitation)?;
        minicbor::decode(&bytes).map_err(|_| NotAnInvitation)
    }
}

/// Why no invitation can be made or redeemed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// This device has no owner key.
    #[error("this device can't invite: run invite on the device where the business was made")]
    NotAnOwner,
    /// The node stopped.
    #[error(transparent)]
    Stopped(#[from] crate::shop_handle::Stopped),
    /// The enrolment could not be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Why a device could not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The transport could not start.
    #[error(transparent)]
    Start(#[from] transport::StartError),
    /// The inviting device can't be reached.
    #[error(
        "the inviting device can't be reached ({0}): start `tillmesh run` on it, in the same network, or give its address with --peer"
    )]
    Unreachable(String),
    /// The inviting device said no.
    #[error("the inviting device refused: {0}")]
    Refused(String),
    /// It answered something else.
    #[error("the inviting device answered something that can't be read: update the older of the two")]
    Garbled,
    /// It answered for another business.
    #[error("the answer does not fit the invitation: ask for a new one")]
    Forged,
}

#[derive(Encode, Decode)]
struct Request {
    #[cbor(n(0), with = "minicbor::bytes")]
    secret: [u8; 16],
    #[n(1)]
    name: String,
}

#[derive(Encode, Decode)]
enum Response {
    #[n(0)]
    Admitted(#[n(0)] Box<Admitted>),
    #[n(1)]
    Refused(#[n(0)] String),
}

#[derive(Encode, Decode)]
struct Admitted {
    #[n(0)]
    genesis: Genesis,
    #[n(1)]
    certificate: Certificate,
    #[cbor(n(2), with = "minicbor::bytes")]
    discovery_secret: [u8; 32],
}

/// An invitation as its maker keeps it, under the hash of its secret.
#[derive(Encode, Decode)]
struct InvitationRow {
    #[n(0)]
    role: Role,
    #[n(1)]
    made: Timestamp,
    #[n(2)]
    redeemed: Option<Certificate>,
}

/// Lets devices in: the inviting side.
#[derive(Debug)]
pub(crate) struct Admissions {
    pub(crate) shop: ShopHandle,
    pub(crate) genesis: Genesis,
    pub(crate) owner: Option<SigningKey>,
    pub(crate) discovery_secret: [u8; 32],
    /// One redemption at a time, so that an invitation is redeemed once.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

fn row_key(secret: &[u8; 16]) -> Vec<u8> {
    blake3::derive_key("tillmesh 2026 invitation", secret).to_vec()
}

impl Admissions {
    /// Makes an invitation for one device.
    pub(crate) async fn invite(&self, role: Role, addresses: Vec<String>) -> Result<Invitation, InviteError> {
        if self.owner.is_none() {
            return Err(InviteError::NotAnOwner);
        }
        let secret = folder::random().map_err(FolderError::from)?;
        let row = InvitationRow { role, made: now(), redeemed: None };
        self.shop.write_rows(vec![self.row(&secret, &row)]).await?;
        let inviter = self.shop.ask(|shop| shop.device()).await?;
        let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        Ok(Invitation { business: self.genesis.business(), inviter, secret, addresses })
    }

    fn row(&self, secret: &[u8; 16], row: &InvitationRow) -> RowWrite {
        let value = minicbor::to_vec(row).unwrap_or_default();
        RowWrite { rows: Rows::Invitations, key: row_key(secret), value: Some(value) }
    }

    /// Serves one device that wants to join.
    pub(crate) async fn serve(self: Arc<Self>, mut link: transport::Link) {
        let device = DeviceId(link.peer.0);
        let Ok(Some(Ok(frame))) = tokio::time::timeout(ANSWER_PATIENCE, link.frames_in.next()).await else { return };
        let response = match minicbor::decode::<Request>(&frame) {
            Err(_) => Response::Refused("the request can't be read: update the older of the two devices".to_owned()),
            Ok(request) => match self.redeem(device, request).await {
                Ok(admitted) => Response::Admitted(Box::new(admitted)),
                Err(reason) => {
                    tracing::warn!(%device, reason, "a device was not let in");
                    Response::Refused(reason)
                }
            },
        };
        let frame = minicbor::to_vec(response).unwrap_or_default();
        if link.frames_out.send(Bytes::from(frame)).await.is_ok() {
            // The other side ends the stream once it has read the answer.
            drop(tokio::time::timeout(ANSWER_PATIENCE, link.frames_in.next()).await);
        }
    }

    async fn redeem(&self, device: DeviceId, request: Request) -> Result<Admitted, String> {
        let _turn = self.turn.lock().await;
        let owner = self.owner.as_ref().ok_or("this device makes no invitations")?;
        folder::check_device_name(&request.name).map_err(|error| error.to_string())?;
        let stored = self.shop.reader().row(Rows::Invitations, &row_key(&request.secret));
        let row: InvitationRow = stored
            .map_err(|error| error.to_string())?
            .and_then(|bytes| minicbor::decode(&bytes).ok())
            .ok_or("this device made no such invitation")?;
        let certificate = match row.redeemed {
            // The answer was lost on its way; the same device gets it again.
            Some(certificate) if certificate.device == device => certificate,
            Some(_) => return Err("the invitation was used already: make a new one".to_owned()),
            None if now().0.saturating_sub(row.made.0) > INVITATION_LIFE_MS => {
                return Err("the invitation is older than a day: make a new one".to_owned());
            }
            None => {
                let business = self.genesis.business();
                let certificate = Certificate::sign(business, device, request.name, row.role, now(), owner);
                let operation = Operation { facts: vec![Fact::Enrolment(certificate.clone())], ..Operation::default() };
                let redeemed = InvitationRow { redeemed: Some(certificate.clone()), ..row };
                let rows = vec![self.row(&request.secret, &redeemed)];
                self.shop.record_with(operation, rows).await.map_err(|error| error.to_string())?;
                tracing::info!(%device, name = certificate.name, "a device joined the business");
                certificate
            }
        };
        Ok(Admitted { genesis: self.genesis.clone(), certificate, discovery_secret: self.discovery_secret })
    }
}

/// How a device joins.
#[derive(Debug, Clone)]
pub struct JoinConfig {
    /// The new device's name among people.
    pub name: String,
    /// More addresses of the inviting device.
    pub peers: Vec<String>,
    /// Whether to look for it by multicast.
    pub mdns: bool,
}

/// Joins the business of an invitation and makes the data folder.
///
/// # Errors
/// [`JoinError`]; the folder holds no business then, and the same command can be run again.
pub async fn join(folder: &Path, invitation: &Invitation, config: JoinConfig) -> Result<Certificate, JoinError> {
    if folder::is_taken(folder) {
        return Err(FolderError::Taken { path: folder.to_owned() }.into());
    }
    folder::check_device_name(&config.name)?;
    // An answer that is lost can be asked for again only with the same key.
    let key = folder::joining_key(folder)?;
    let mut lan_config = LanConfig::new(key);
    lan_config.mdns = config.mdns;
    let (lan, mut events) = Lan::start(lan_config).await?;
    let drain = tokio::spawn(async move { while events.recv().await.is_some() {} });
    let answer = ask(&lan, invitation, &config).await;
    lan.shutdown().await;
    drain.abort();
    let admitted = answer?;
    let device = DeviceId(SigningKey::from_bytes(&key).verifying_key().to_bytes());
    if admitted.genesis.business() != invitation.business
        || admitted.certificate.device != device
        || admitted.certificate.verify(&admitted.genesis).is_err()
    {
        return Err(JoinError::Forged);
    }
    let mut introducers = config.peers.clone();
    introducers.extend(invitation.addresses.iter().cloned());
    let admission = Admission {
        genesis: admitted.genesis,
        certificate: admitted.certificate.clone(),
        discovery_secret: admitted.discovery_secret,
        introducers,
    };
    folder::create(folder, &admission, &key, None)?;
    folder::forget_joining_key(folder)?;
    Ok(admitted.certificate)
}

async fn ask(lan: &Lan, invitation: &Invitation, config: &JoinConfig) -> Result<Admitted, JoinError> {
    let unreachable = |error: &dyn fmt::Display| JoinError::Unreachable(error.to_string());
    let mut addresses = config.peers.clone();
    addresses.extend(invitation.addresses.iter().cloned());
    let inviter = PeerKey(invitation.inviter.0);
    let mut link = reach(lan, inviter, &addresses, config.mdns).await?;
    let request = Request { secret: invitation.secret, name: config.name.clone() };
    let frame = minicbor::to_vec(request).unwrap_or_default();
    link.frames_out.send(Bytes::from(frame)).await.map_err(|error| unreachable(&error))?;
    let answer = tokio::time::timeout(ANSWER_PATIENCE, link.frames_in.next())
        .await
        .map_err(|error| unreachable(&error))?
        .ok_or_else(|| unreachable(&"it hung up"))?
        .map_err(|error| unreachable(&error))?;
    match minicbor::decode(&answer) {
        Ok(Response::Admitted(admitted)) => Ok(*admitted),
        Ok(Response::Refused(reason)) => Err(JoinError::Refused(reason)),
        Err(_) => Err(JoinError::Garbled),
    }
}

/// Opens the stream; with multicast, the inviter's address may take a while to be heard.
async fn reach(lan: &Lan, inviter: PeerKey, addresses: &[String], mdns: bool) -> Result<transport::Link, JoinError> {
    const DISCOVERY_PATIENCE: Duration = Duration::from_secs(30);
    const DISCOVERY_STEP: Duration = Duration::from_millis(500);
    let started = std::time::Instant::now();
    loop {
        match lan.open(inviter, addresses, JOIN_PROTOCOL).await {
            Ok(link) => return Ok(link),
            Err(error) if !mdns || started.elapsed() > DISCOVERY_PATIENCE => {
                return Err(JoinError::Unreachable(error.to_string()));
            }
            Err(error) => tracing::debug!(%error, "looking for the inviting device"),
        }
        tokio::time::sleep(DISCOVERY_STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_survives_being_read_out_in_pieces() {
        let invitation = Invitation {
            business: BusinessId(uuid::Uuid::new_v8([5; 16])),
            inviter: DeviceId([6; 32]),
            secret: [7; 16],
            addresses: vec!["/ip4/127.0.0.1/tcp/7471".to_owned()],
        };
        let text = invitation.to_string();
        assert_eq!(text.parse(), Ok(invitation.clone()));
        let spread: String = text.to_lowercase().chars().flat_map(|letter| [letter, '\n']).collect();
        assert_eq!(spread.parse(), Ok(invitation));
        for wrong in ["", "TILLMESH1", "hello", &text[..text.len() - 9], &"A".repeat(5_000)] {
            assert_eq!(wrong.parse::<Invitation>(), Err(NotAnInvitation), "{wrong}");
        }
    }
}
