//! From a carrier to a link: opens an exchange, proves both keys with Noise as on the LAN, and
//! hands the stream over.

use std::{fmt, time::Duration};

use bytes::Bytes;
use libp2p::{
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    noise,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use super::{
    Carrier, Tag,
    carrier::CarrierError,
    drive::{drive, now},
    exchange::{Exchange, ExchangeError, ExchangeTimes},
    fragment::{FRAGMENT_BYTES_MIN, FRAGMENT_OVERHEAD_BYTES, Fragment, FragmentError, Opening, Refusal},
};
use crate::{
    Limits, Link, LinkId, LinkKind, PeerKey, PeerKeyError, Traffic,
    frame::{LinkControl, OnOver},
    link::LinkOrigin,
    peer,
};

/// Why no link came of a carrier.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecureError {
    #[error("the carrier takes fragments of {0} bytes: more than {FRAGMENT_OVERHEAD_BYTES} are needed")]
    FragmentSize(usize),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    #[error("the peer did not prove a key ({0}): it is no tillmesh device, or somebody interferes")]
    Noise(String),
    #[error("a device's key can't be used: {0}")]
    Key(#[from] PeerKeyError),
    #[error("the handshake took longer than {0:?}: the peer is out of range, or overloaded")]
    Timeout(Duration),
}

/// What both roles need to make a link.
#[derive(Clone)]
pub(crate) struct Greeting {
    pub(crate) secret_key: [u8; 32],
    pub(crate) tag: Tag,
    pub(crate) times: ExchangeTimes,
    pub(crate) limits: Limits,
    pub(crate) kind: LinkKind,
}

/// A peer that has proved its key; the link begins when it is taken.
pub(crate) struct Proved {
    pub(crate) peer: PeerKey,
    /// What the peer advertises, as it says or as it was found. Unproved.
    pub(crate) tag: Tag,
    pub(crate) dialled: bool,
    stream: Box<dyn SecureStream>,
    traffic: Traffic,
    limits: Limits,
    kind: LinkKind,
}

trait SecureStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> SecureStream for S {}

/// The side that connected, to a device that advertised `tag`.
pub(crate) async fn dial(carrier: Carrier, nonce: u32, tag: Tag, greeting: &Greeting) -> Result<Proved, SecureError> {
    let ours = greeting.opening(nonce, &carrier)?;
    let exchange = Exchange::open(ours, greeting.times.clone(), now());
    prove(exchange, carrier, true, tag, greeting).await
}

/// The other side: waits for the opening first.
pub(crate) async fn answer(mut carrier: Carrier, greeting: &Greeting) -> Result<Proved, SecureError> {
    let ours = greeting.opening(0, &carrier)?;
    let waited = tokio::time::timeout(greeting.times.open_max, opening(&mut carrier)).await;
    let theirs = waited.map_err(|_| ExchangeError::NotAccepted(greeting.times.open_max))??;
    let exchange = Exchange::accept(theirs, ours, greeting.times.clone(), now())?;
    prove(exchange, carrier, false, theirs.tag, greeting).await
}

/// Tells the side that connects that there are links enough.
pub(crate) async fn turn_away(mut carrier: Carrier, greeting: &Greeting) -> Result<(), SecureError> {
    let waited = tokio::time::timeout(greeting.times.open_max, opening(&mut carrier)).await;
    let theirs = waited.map_err(|_| ExchangeError::NotAccepted(greeting.times.open_max))??;
    refuse(&mut carrier, theirs.nonce, Refusal::Busy).await
}

async fn refuse(carrier: &mut Carrier, nonce: u32, reason: Refusal) -> Result<(), SecureError> {
    let refusal = Fragment::Refuse { nonce, reason }.to_bytes();
    Ok(carrier.outgoing.send(refusal.into()).await?)
}

/// Waits for an opening; whatever else comes is left over from an earlier exchange.
async fn opening(carrier: &mut Carrier) -> Result<Opening, SecureError> {
    loop {
        let fragment = carrier.incoming.recv().await;
        let fragment: Bytes = fragment.ok_or_else(|| ExchangeError::Carrier("it was closed".to_owned()))?;
        match Fragment::parse(&fragment) {
            Ok(Fragment::Open(opening)) => return Ok(opening),
            Err(FragmentError::Version(version)) => {
                let nonce = fragment.get(2..).and_then(|rest| rest.first_chunk());
                if let Some(nonce) = nonce {
                    refuse(carrier, u32::from_le_bytes(*nonce), Refusal::Version).await?;
                }
                return Err(ExchangeError::Fragment(FragmentError::Version(version)).into());
            }
            Ok(_) => {}
            Err(error) => return Err(ExchangeError::Fragment(error).into()),
        }
    }
}

async fn prove(
    exchange: Exchange,
    carrier: Carrier,
    dialled: bool,
    tag: Tag,
    greeting: &Greeting,
) -> Result<Proved, SecureError> {
    let keypair = peer::keypair(&greeting.secret_key)?;
    let config = noise::Config::new(&keypair).map_err(|error| SecureError::Noise(error.to_string()))?;
    let traffic = Traffic::default();
    let socket = drive(exchange, carrier, traffic.clone()).compat();
    let upgraded = async {
        if dialled { config.upgrade_outbound(socket, NOISE).await } else { config.upgrade_inbound(socket, NOISE).await }
    };
    let upgraded = tokio::time::timeout(HANDSHAKE_MAX, upgraded).await;
    let (peer_id, output) = upgraded
        .map_err(|_| SecureError::Timeout(HANDSHAKE_MAX))?
        .map_err(|error| SecureError::Noise(error.to_string()))?;
    Ok(Proved {
        peer: PeerKey::from_peer_id(&peer_id)?,
        tag,
        dialled,
        stream: Box::new(output.compat()),
        traffic,
        limits: greeting.limits.clone(),
        kind: greeting.kind,
    })
}

impl Greeting {
    fn opening(&self, nonce: u32, carrier: &Carrier) -> Result<Opening, SecureError> {
        let bytes = carrier.fragment_bytes_max.min(usize::from(u16::MAX));
        let fragment_bytes_max = u16::try_from(bytes).map_err(|_| SecureError::FragmentSize(bytes))?;
        if bytes <= FRAGMENT_OVERHEAD_BYTES || bytes < FRAGMENT_BYTES_MIN {
            return Err(SecureError::FragmentSize(bytes));
        }
        Ok(Opening { nonce, fragment_bytes_max, credit: WINDOW_FRAGMENTS, tag: self.tag })
    }
}

impl Proved {
    /// The link, with a handle on it and a call when it is over.
    pub(crate) fn link(self, id: LinkId, remote: String, on_over: OnOver) -> (Link, LinkControl) {
        let origin = LinkOrigin { id, peer: self.peer, kind: self.kind, remote, dialled: self.dialled };
        // The exchange below has its own signs of life, which cost a tenth.
        let limits = Limits { beat_interval: None, silence_max: None, ..self.limits };
        let (link, control) = Link::carried_by(origin, self.stream, &limits, on_over);
        (Link { traffic: self.traffic, ..link }, control)
    }
}

impl fmt::Debug for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proved").field("peer", &self.peer).field("dialled", &self.dialled).finish_non_exhaustive()
    }
}

/// Pieces that a peer may have under way: with fragments of 508 bytes 64 KB, which a link of
/// 200 KB/s with a round trip of 300 ms fills, and which 5 links can hold without being noticed.
const WINDOW_FRAGMENTS: u8 = 128;
/// Three messages each way, on a link of 4 KB/s.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);
/// The upgrade's name, which is not negotiated here.
const NOISE: &str = "/noise";
