//! The libp2p swarm: QUIC, and TCP with Noise and Yamux; connection limits; mDNS if wanted.

use std::{convert::Infallible, sync::Arc, time::Duration};

use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    identity::Keypair,
    mdns, noise,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};

use super::{StartError, streams::Streams};
use crate::Limits;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) streams: Streams,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// `mdns_query_interval` is `None` without mDNS.
pub(super) fn swarm(
    keypair: Keypair,
    protocols: Arc<[StreamProtocol]>,
    mdns_query_interval: Option<Duration>,
    limits: &Limits,
) -> Result<Swarm<Behaviour>, StartError> {
    let peer_id = keypair.public().to_peer_id();
    let mdns = mdns_query_interval
        .map(|interval| mdns::tokio::Behaviour::new(mdns_config(interval), peer_id))
        .transpose()
        .map_err(|error| StartError::Mdns(error.to_string()))?;
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits(limits)),
        streams: Streams::new(protocols, limits.pending_per_host_max),
        mdns: mdns.into(),
    };
    let streams_max = limits.streams_per_connection_max;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, || yamux_config(streams_max))
        .map_err(|error| StartError::Noise(error.to_string()))?
        .with_quic_config(|mut config| {
            config.max_concurrent_stream_limit = streams_max;
            config.max_stream_data = STREAM_WINDOW_BYTES;
            config.max_connection_data = CONNECTION_WINDOW_BYTES;
            config.keep_alive_interval = QUIC_KEEP_ALIVE;
            config
        })
        .with_behaviour(|_| behaviour)
        .map_err(|never: Infallible| -> StartError { match never {} })?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE_CONNECTION)
                .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX)
                .with_smart_dial()
        })
        .build();
    Ok(swarm)
}

fn mdns_config(query_interval: Duration) -> mdns::Config {
    mdns::Config {
        // Answers outlive three lost queries.
        ttl: query_interval * 4,
        query_interval,
        enable_ipv6: false,
    }
}

fn connection_limits(limits: &Limits) -> ConnectionLimits {
    let inbound_max = limits.connections_max - limits.connections_max / 4;
    ConnectionLimits::default()
        .with_max_established(Some(limits.connections_max))
        .with_max_established_incoming(Some(inbound_max))
        .with_max_established_per_peer(Some(limits.connections_per_peer_max))
        .with_max_pending_incoming(Some(limits.pending_incoming_max))
        // Dials for the host's own streams come on top of the directory's.
        .with_max_pending_outgoing(Some(limits.dials_max.saturating_mul(2)))
}

fn yamux_config(streams_max: u32) -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(usize::try_from(streams_max).unwrap_or(usize::MAX));
    config
}

/// What a peer may send on one QUIC stream before we read it: 2 MiB is 7 MB/s at 300 ms.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES;
/// With QUIC's own limit of 10 s of silence, two chances to hear from a peer.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(4);
/// A connection without any stream ends after this. Longer than the 2 s in which a link is made.
const IDLE_CONNECTION: Duration = Duration::from_secs(10);
const NEGOTIATING_STREAMS_MAX: usize = 8;
