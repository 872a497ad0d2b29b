//! The settings of the LAN transport, and what makes them unusable.

use std::{fmt, time::Duration};

use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::{StartError, address};
use crate::{Limits, LinkIds, PeerKey, peer};

/// How a device takes part in its LAN.
#[derive(Clone)]
pub struct LanConfig {
    /// The device's Ed25519 secret key.
    pub secret_key: [u8; 32],
    /// Multiaddrs to listen on, like `/ip4/0.0.0.0/udp/7471/quic-v1`; port 0 takes a free one.
    pub listen: Vec<String>,
    /// Multiaddrs to keep dialling, with or without `/p2p/PEER`.
    pub static_peers: Vec<String>,
    /// Whether to ask and answer on the LAN by multicast.
    pub mdns: bool,
    /// 20 s: a till that missed every answer is found within half a minute. At most 30 s.
    pub mdns_query_interval: Duration,
    pub limits: Limits,
    /// The protocol of which one link per peer is kept.
    pub link_protocol: &'static str,
    /// Protocols of which any peer may open streams to us, refused ones too: they may be joining.
    pub other_protocols: Vec<&'static str>,
    /// Where link numbers come from; share it with the process's other transports.
    pub link_ids: LinkIds,
}

impl LanConfig {
    /// Nothing is listened on, dialled or asked until the caller says so.
    pub fn new(secret_key: [u8; 32]) -> Self {
        Self {
            secret_key,
            listen: Vec::new(),
            static_peers: Vec::new(),
            mdns: false,
            mdns_query_interval: Duration::from_secs(20),
            limits: Limits::default(),
            link_protocol: "/tillmesh/sync/1",
            other_protocols: Vec::new(),
            link_ids: LinkIds::default(),
        }
    }
}

impl fmt::Debug for LanConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LanConfig")
            .field("listen", &self.listen)
            .field("static_peers", &self.static_peers)
            .field("mdns", &self.mdns)
            .finish_non_exhaustive()
    }
}

/// The configuration, parsed.
pub(super) struct Settings {
    pub(super) keypair: libp2p::identity::Keypair,
    pub(super) ours: PeerKey,
    pub(super) listen: Vec<(String, Multiaddr)>,
    pub(super) static_peers: Vec<(Option<PeerId>, Multiaddr)>,
    pub(super) mdns_query_interval: Option<Duration>,
    pub(super) limits: Limits,
    pub(super) link_protocol: StreamProtocol,
    pub(super) other_protocols: Vec<StreamProtocol>,
    pub(super) link_ids: LinkIds,
}

impl Settings {
    pub(super) fn checked(config: LanConfig, ours: PeerKey) -> Result<Self, StartError> {
        let interval = config.mdns_query_interval;
        if interval < Duration::from_secs(1) || interval > Duration::from_secs(30) {
            return Err(StartError::MdnsInterval(interval));
        }
        let listen = config.listen.into_iter().map(|address| match address::parse(&address) {
            Ok((multiaddr, _)) => Ok((address, multiaddr)),
            Err(reason) => Err(StartError::ListenAddress { address, reason }),
        });
        let static_peers = config.static_peers.into_iter().map(|address| match address::parse(&address) {
            Ok((multiaddr, peer)) => Ok((peer, multiaddr)),
            Err(reason) => Err(StartError::StaticPeer { address, reason }),
        });
        let other_protocols = config.other_protocols.into_iter().map(protocol);
        Ok(Self {
            keypair: peer::keypair(&config.secret_key)?,
            ours,
            listen: listen.collect::<Result<_, _>>()?,
            static_peers: static_peers.collect::<Result<_, _>>()?,
            mdns_query_interval: config.mdns.then_some(interval),
            limits: config.limits,
            link_protocol: protocol(config.link_protocol)?,
            other_protocols: other_protocols.collect::<Result<_, _>>()?,
            link_ids: config.link_ids,
        })
    }
}

fn protocol(name: &'static str) -> Result<StreamProtocol, StartError> {
    StreamProtocol::try_from_owned(name.to_owned()).map_err(|_| StartError::Protocol(name.to_owned()))
}
