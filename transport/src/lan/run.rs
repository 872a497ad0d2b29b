//! The task that owns the swarm: what the network, the host and the clock bring, one at a time.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::ConnectedPoint,
    mdns,
    multiaddr::Protocol,
    swarm::{ConnectionId, SwarmEvent},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Addresses, Command, LanEvent, OpenRequest, StartError, address,
    behaviour::{self, Behaviour, BehaviourEvent},
    carry::{Carried, Opening},
    config::Settings,
    dial::first_wait,
    discovery::{Directory, Jitter, TargetId},
    pairing::{Connection, Pairing},
    refusals::Refusals,
    streams::Ticket,
};
use crate::{LinkId, PeerKey};

pub(super) struct Runner {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) settings: Settings,
    pub(super) directory: Directory,
    pub(super) pairing: Pairing,
    pub(super) refusals: Refusals,
    pub(super) carried: HashMap<LinkId, Carried>,
    /// Writers of links that are over, still writing what was queued.
    pub(super) draining: Vec<JoinHandle<()>>,
    pub(super) openings: HashMap<Ticket, Opening>,
    pub(super) next_ticket: u64,
    pub(super) events: mpsc::Sender<LanEvent>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    commanded: mpsc::UnboundedReceiver<Command>,
    pub(super) addresses: Addresses,
    pub(super) dials: HashMap<ConnectionId, TargetId>,
    /// The host's requests that wait for a dial, by the dial that was made for them.
    pub(super) waiting: Vec<(ConnectionId, OpenRequest)>,
}

impl Runner {
    pub(super) fn new(
        settings: Settings,
        (commands, commanded): (mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
        events: mpsc::Sender<LanEvent>,
        addresses: Addresses,
    ) -> Result<Self, StartError> {
        let mut protocols = vec![settings.link_protocol.clone()];
        protocols.extend(settings.other_protocols.iter().cloned());
        let limits = &settings.limits;
        let interval = settings.mdns_query_interval;
        let swarm = behaviour::swarm(settings.keypair.clone(), protocols.into(), interval, limits)?;
        let jitter = Jitter::seeded(RandomState::new().build_hasher().finish());
        let (peers_max, addresses_max) = (limits.peers_known_max, limits.addresses_per_peer_max);
        let mut directory = Directory::new(jitter.clone(), peers_max, addresses_max);
        let now = Instant::now();
        for (peer, address) in &settings.static_peers {
            directory.add_static(*peer, address.clone(), now + first_wait(address));
        }
        Ok(Self {
            swarm,
            pairing: Pairing::new(settings.ours, jitter),
            directory,
            refusals: Refusals::default(),
            carried: HashMap::new(),
            draining: Vec::new(),
            openings: HashMap::new(),
            next_ticket: 0,
            events,
            commands,
            commanded,
            addresses,
            dials: HashMap::new(),
            waiting: Vec::new(),
            settings,
        })
    }

    pub(super) async fn run(mut self) {
        let done = loop {
            let wake = self.act(Instant::now());
            tokio::select! {
                event = self.swarm.select_next_some() => {
                    self.on_swarm_event(event, Instant::now());
                }
                command = self.commanded.recv() => match command {
                    Some(Command::Shutdown { done }) => break Some(done),
                    Some(command) => self.on_command(command, Instant::now()),
                    None => break None,
                },
                () = self.events.closed() => break None,
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        };
        self.finish(done).await;
    }

    /// Does everything that is due; when to look again, if nothing happens.
    fn act(&mut self, now: Instant) -> Instant {
        self.refusals.end(now);
        self.waiting.retain(|(_, request)| !request.reply.is_closed());
        let dials_max = usize::try_from(self.settings.limits.dials_max).unwrap_or(usize::MAX);
        let room = dials_max.saturating_sub(self.dials.len());
        let (pairing, refusals) = (&self.pairing, &self.refusals);
        let busy = |peer: &PeerId| pairing.is_connected(peer) || refusals.is_refused(peer);
        let dials = self.directory.take_due(now, room, busy);
        // With no room, the end of a dial wakes us.
        let next_dial = match dials.len() < room {
            true => self.directory.next_due(busy),
            false => None,
        };
        for dial in dials {
            self.dial(dial, now);
        }
        self.open_due_links(now);
        let others = [next_dial, self.pairing.next_due(), self.refusals.next_end()];
        let wake = others.into_iter().flatten().min();
        wake.unwrap_or(now + LOOK_AROUND).min(now + LOOK_AROUND)
    }

    fn on_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open(request) => self.on_open(request),
            Command::Refuse { peer, pause } => self.refuse(peer, pause, now),
            Command::Readmit { peer } => self.readmit(peer, now),
            Command::AddAddress { peer, address } => {
                let first_dial = now + first_wait(&address);
                self.directory.add_static(peer, address, first_dial);
            }
            Command::LinkOver { id, failed } => self.on_link_over(id, failed, now),
            Command::Shutdown { done } => drop(done),
        }
    }

    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>, now: Instant) {
        if let SwarmEvent::Behaviour(event) = event {
            self.on_behaviour_event(event, now);
        } else if let SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } = event {
            self.on_connected(peer_id, connection_id, &endpoint, now);
        } else if let SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } = event {
            tracing::debug!(peer = %peer_id, ?cause, "connection ended");
            self.pairing.disconnected(&peer_id, connection_id, now);
            self.fail_openings(connection_id, now);
            if !self.pairing.is_connected(&peer_id) {
                self.directory.lost(&peer_id, now);
            }
        } else if let SwarmEvent::OutgoingConnectionError { connection_id, error, .. } = event {
            self.on_dial_failed(connection_id, &error, now);
        } else if let SwarmEvent::NewListenAddr { address, .. } = event {
            let address = self.with_our_id(address);
            tracing::info!(%address, "listening");
            self.addresses.add(address);
        } else if let SwarmEvent::ExpiredListenAddr { address, .. } = event {
            self.addresses.remove(&self.with_our_id(address));
        } else if let SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } = event {
            tracing::error!(%error, "stopped listening: restart the node to be found again");
            for address in addresses {
                self.addresses.remove(&self.with_our_id(address));
            }
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Limits(never) => match never {},
            BehaviourEvent::Streams(event) => self.on_stream_event(event, now),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    self.on_discovered(peer, &address, now);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(gone)) => {
                for (peer, address) in gone {
                    if let Some((address, _)) = address::split(&address) {
                        self.directory.expired(peer, &address);
                    }
                }
            }
        }
    }

    fn on_discovered(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) {
        let (Ok(key), Some((address, _))) = (PeerKey::from_peer_id(&peer), address::split(address)) else {
            return;
        };
        if !address::is_neighbour(&address) {
            return;
        }
        // Both find each other: the one that opens the link dials, the other only if that fails.
        let wait = match self.settings.ours < key {
            true => first_wait(&address),
            false => DISCOVERED_HEAD_START,
        };
        if self.directory.discovered(peer, address.clone(), now + wait) {
            let address = address.to_string();
            self.tell(LanEvent::Discovered { peer: key, address });
        }
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint, now: Instant) {
        if let Some(target) = self.dials.remove(&id) {
            self.directory.reached(target, peer);
        }
        let Ok(key) = PeerKey::from_peer_id(&peer) else {
            self.swarm.close_connection(id);
            return;
        };
        let remote = endpoint.get_remote_address();
        let remote = address::split(remote).map_or_else(|| remote.clone(), |(address, _)| address);
        let connection = Connection { id, is_quic: address::is_quic(&remote), remote };
        self.pairing.connected(peer, key, connection, now);
        if self.refusals.is_refused(&peer) {
            // Held until the refusal ends; an idle connection ends long before.
            self.pairing.hold(&peer, self.refusals.end_of(&peer).unwrap_or(now));
            if self.settings.other_protocols.is_empty() {
                self.swarm.close_connection(id);
            }
        }
        let reached = |request: &OpenRequest| request.peer == peer;
        let (ready, waiting): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|(_, request)| reached(request));
        self.waiting = waiting;
        for (_, request) in ready {
            self.open_for_host(id, request);
        }
    }

    /// A hint that finds no room is dropped: a slow host must not hold up the network.
    pub(super) fn tell(&self, event: LanEvent) {
        if self.events.try_send(event).is_err() {
            tracing::debug!("the host is too slow to take a hint");
        }
    }

    fn with_our_id(&self, address: Multiaddr) -> String {
        address.with(Protocol::P2p(*self.swarm.local_peer_id())).to_string()
    }
}

/// The longest time between two looks at what is due.
const LOOK_AROUND: Duration = Duration::from_secs(30);
/// How long the peer with the higher key waits before following a hint from the LAN.
const DISCOVERED_HEAD_START: Duration = Duration::from_secs(1);
