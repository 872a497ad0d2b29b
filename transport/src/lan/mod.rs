//! Links on the LAN: finds peers by mDNS and static addresses, and keeps one link to each.

mod address;
mod behaviour;
mod carry;
mod config;
mod dial;
mod discovery;
mod listen;
mod pairing;
mod refusals;
mod run;
mod streams;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};

pub use self::{address::AddressError, config::LanConfig};
use self::{config::Settings, run::Runner};
use crate::{Link, PeerKey, PeerKeyError};

/// What the LAN tells its host. A host too slow to take these loses hints first; a link it does
/// not take is put down and made again later.
#[derive(Debug)]
pub enum LanEvent {
    /// The one link to a peer. It replaces an earlier one to the same peer.
    Link(Link),
    /// A peer opened a stream of one of `other_protocols`.
    Stream { protocol: String, link: Link },
    /// Someone on the LAN says that this peer is at this address. Unproved.
    Discovered { peer: PeerKey, address: String },
    /// A static address could not be reached; it is tried again.
    Unreachable { address: String, reason: String },
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("the device's secret key can't be used: {0}")]
    Key(#[from] PeerKeyError),
    #[error("the listen address {address:?} can't be used: {reason}")]
    ListenAddress { address: String, reason: AddressError },
    #[error("the static peer {address:?} can't be used: {reason}")]
    StaticPeer { address: String, reason: AddressError },
    #[error("{address} is in use: stop the program that has it, or listen on another port")]
    InUse { address: String },
    #[error("listening on {address} failed ({reason}): choose an address of this device")]
    Listen { address: String, reason: String },
    #[error("the protocol name {0:?} must begin with a slash")]
    Protocol(String),
    #[error("mdns_query_interval is {0:?}: choose one from 1 s to 30 s")]
    MdnsInterval(Duration),
    #[error("watching the network interfaces for mDNS failed ({0}): switch mDNS off, or allow it")]
    Mdns(String),
    #[error("the Noise handshake could not be set up: {0}")]
    Noise(String),
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("the peer's key can't be used: {0}")]
    Key(#[from] PeerKeyError),
    #[error("the address {address:?} can't be used: {reason}")]
    Address { address: String, reason: AddressError },
    #[error("{0} is the link protocol: add the peer's address, and its link comes as an event")]
    LinkProtocol(&'static str),
    #[error("no address is known for this peer: give one, or wait until it is discovered")]
    NoAddress,
    #[error("the peer could not be reached ({0}): check that it is on and on this network")]
    Unreachable(String),
    #[error("the peer does not speak {0}: update the older of the two devices")]
    Unsupported(&'static str),
    #[error("the peer did not answer within {0:?}: check that it is on and on this network")]
    Timeout(Duration),
    #[error("the LAN transport has been shut down: start it again")]
    ShutDown,
}

/// A handle on the LAN transport. Clones are the same transport. It ends with
/// [`Self::shutdown`], or when its event receiver is dropped.
#[derive(Clone)]
pub struct Lan {
    ours: PeerKey,
    link_protocol: &'static str,
    /// Unbounded, because only the host's own calls and the ends of its links feed it.
    commands: mpsc::UnboundedSender<Command>,
    addresses: Addresses,
}

impl Lan {
    /// Starts the transport; ready once every listen address is bound.
    ///
    /// # Errors
    /// Names the setting that can't be used, and what to do about it.
    pub async fn start(config: LanConfig) -> Result<(Self, mpsc::Receiver<LanEvent>), StartError> {
        let (commands, commanded) = mpsc::unbounded_channel();
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let addresses = Addresses::default();
        let lan = Self {
            ours: PeerKey::from_secret(&config.secret_key)?,
            link_protocol: config.link_protocol,
            commands: commands.clone(),
            addresses: addresses.clone(),
        };
        let settings = Settings::checked(config, lan.ours)?;
        let mut runner = Runner::new(settings, (commands, commanded), events, addresses)?;
        runner.listen().await?;
        tokio::spawn(runner.run());
        Ok((lan, receiver))
    }

    pub fn key(&self) -> PeerKey {
        self.ours
    }

    /// The multiaddrs listened on, with the ports and interface addresses they turned out to be,
    /// each ending in `/p2p/` and our peer id. Changes as interfaces come and go.
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.listed()
    }

    /// Opens a stream of one of the other protocols, dialling the peer if there is no connection:
    /// at `addresses`, and wherever else it is known to be.
    ///
    /// # Errors
    /// Says whether the peer, its address or its version is the trouble. Waits at most 15 s.
    pub async fn open(&self, peer: PeerKey, addresses: &[String], protocol: &'static str) -> Result<Link, OpenError> {
        if protocol == self.link_protocol {
            return Err(OpenError::LinkProtocol(protocol));
        }
        let peer_id = peer.to_peer_id()?;
        let addresses = addresses
            .iter()
            .map(|address| match address::parse(address) {
                Ok((address, _)) => Ok(address),
                Err(reason) => Err(OpenError::Address { address: address.clone(), reason }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (reply, answer) = oneshot::channel();
        let request = OpenRequest { peer: peer_id, addresses, protocol, reply, retried: false };
        self.commands.send(Command::Open(request)).map_err(|_| OpenError::ShutDown)?;
        match tokio::time::timeout(OPEN_TIMEOUT, answer).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) => Err(OpenError::ShutDown),
            Err(_) => Err(OpenError::Timeout(OPEN_TIMEOUT)),
        }
    }

    /// The peer is none of ours: its link is cut, it is not dialled, and links it opens are
    /// dropped quietly, until the pause ends. Streams of the other protocols stay open to it.
    pub fn refuse(&self, peer: PeerKey, pause: Duration) {
        self.command(Command::Refuse { peer, pause });
    }

    /// Ends a refusal before its time: the peer has been enrolled.
    pub fn readmit(&self, peer: PeerKey) {
        self.command(Command::Readmit { peer });
    }

    /// Keeps dialling `address`, as if it had been a static peer. `peer` is the key that must
    /// answer there, if it is known.
    ///
    /// # Errors
    /// If the key or the address can't be used, or names another peer.
    pub fn add_peer_address(&self, peer: Option<PeerKey>, address: &str) -> Result<(), OpenError> {
        let (multiaddr, named) =
            address::parse(address).map_err(|reason| OpenError::Address { address: address.to_owned(), reason })?;
        let peer = match peer {
            Some(peer) => Some(peer.to_peer_id()?),
            None => named,
        };
        self.command(Command::AddAddress { peer, address: multiaddr });
        Ok(())
    }

    /// Writes what is queued on the links still open (at most `drain_max`), closes everything and
    /// frees the ports.
    pub async fn shutdown(&self) {
        let (done, finished) = oneshot::channel();
        self.command(Command::Shutdown { done });
        // An error means that the transport has ended before: just as well.
        finished.await.unwrap_or_default();
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::debug!("the LAN transport has been shut down");
        }
    }
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lan").field("ours", &self.ours).finish_non_exhaustive()
    }
}

/// What the host asks of the running transport, and what its links report.
enum Command {
    Open(OpenRequest),
    Refuse { peer: PeerKey, pause: Duration },
    Readmit { peer: PeerKey },
    AddAddress { peer: Option<PeerId>, address: Multiaddr },
    LinkOver { id: crate::LinkId, failed: bool },
    Shutdown { done: oneshot::Sender<()> },
}

struct OpenRequest {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    protocol: &'static str,
    reply: oneshot::Sender<Result<Link, OpenError>>,
    retried: bool,
}

impl OpenRequest {
    fn answer(self, opened: Result<Link, OpenError>) {
        if self.reply.send(opened).is_err() {
            tracing::debug!(protocol = self.protocol, "nobody waits for this stream any more");
        }
    }
}

/// The addresses listened on, shared with the handles.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<BTreeSet<String>>>);

impl Addresses {
    fn listed(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, address: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
    }

    fn remove(&self, address: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Events waiting for the host. 64: a shop's devices all appearing at once.
const EVENTS_MAX: usize = 64;
/// As long as a handshake over the worst mobile network plus one retry.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
