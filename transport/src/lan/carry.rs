//! From streams to links: opening them, taking the peer's, and what happens when they end.

use std::time::{Duration, Instant};

use libp2p::{PeerId, Stream, StreamProtocol, swarm::ConnectionId};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::{
    Command, LanEvent, OpenError, OpenRequest,
    run::Runner,
    streams::{NotOpened, StreamEvent, Ticket},
};
use crate::{Link, LinkError, LinkId, LinkKind, PeerKey, frame::LinkControl, link::LinkOrigin};

/// A stream that has been asked for.
pub(super) struct Opening {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    purpose: Purpose,
}

enum Purpose {
    Link,
    Host(OpenRequest),
}

impl Opening {
    fn is_for_host(&self) -> bool {
        matches!(self.purpose, Purpose::Host(_))
    }
}

/// A link or other stream that the host holds.
pub(super) struct Carried {
    peer: PeerId,
    connection: ConnectionId,
    is_link: bool,
    control: LinkControl,
}

impl Runner {
    pub(super) fn open_due_links(&mut self, now: Instant) {
        for (peer, connection) in self.pairing.due(now) {
            let protocol = self.settings.link_protocol.clone();
            let ticket = self.ask(peer, connection.id, protocol, Purpose::Link);
            self.pairing.opening(&peer, ticket);
        }
    }

    /// Opens a stream for the host on a connection that is there.
    pub(super) fn open_for_host(&mut self, connection: ConnectionId, request: OpenRequest) {
        let (peer, protocol) = (request.peer, StreamProtocol::new(request.protocol));
        self.ask(peer, connection, protocol, Purpose::Host(request));
    }

    pub(super) fn on_stream_event(&mut self, event: StreamEvent, now: Instant) {
        match event {
            StreamEvent::Inbound { peer, connection, protocol, stream } => {
                self.on_inbound(peer, connection, protocol, stream, now)
            }
            StreamEvent::Opened { ticket, stream } => self.on_opened(ticket, stream, now),
            StreamEvent::NotOpened { ticket, reason } => self.on_not_opened(ticket, &reason, now),
        }
    }

    /// Requests that were under way on a connection that is gone.
    pub(super) fn fail_openings(&mut self, connection: ConnectionId, now: Instant) {
        let lost = self.openings.iter().filter(|(_, opening)| opening.connection == connection);
        let lost: Vec<Ticket> = lost.map(|(ticket, _)| *ticket).collect();
        for ticket in lost {
            let reason = NotOpened::Failed("the connection ended".to_owned());
            self.on_not_opened(ticket, &reason, now);
        }
    }

    pub(super) fn on_link_over(&mut self, id: LinkId, failed: bool, now: Instant) {
        let Some(carried) = self.carried.remove(&id) else {
            return;
        };
        self.draining.retain(|writer| !writer.is_finished());
        self.draining.push(carried.control.writer);
        if self.pairing.over(&carried.peer, id, now) == Some(true) {
            self.directory.proved(&carried.peer);
        }
        // A stream that failed says that its connection is no good, and others must not use it.
        if failed {
            self.swarm.close_connection(carried.connection);
        }
        if self.refusals.is_refused(&carried.peer) {
            self.disconnect_unless_in_use(carried.peer);
        }
    }

    pub(super) fn refuse(&mut self, peer: PeerKey, pause: Duration, now: Instant) {
        let Ok(peer) = peer.to_peer_id() else {
            return;
        };
        let until = now + pause.min(REFUSAL_MAX);
        self.refusals.refuse(peer, until);
        self.pairing.hold(&peer, until);
        if let Some(link) = self.pairing.current_link(&peer) {
            self.cut(link, LinkError::Refused);
        }
        self.disconnect_unless_in_use(peer);
    }

    pub(super) fn readmit(&mut self, peer: PeerKey, now: Instant) {
        let Ok(peer) = peer.to_peer_id() else {
            return;
        };
        if self.refusals.readmit(&peer) {
            self.pairing.hold(&peer, now);
        }
    }

    pub(super) fn put_down_all(&mut self) {
        for (_, carried) in self.carried.drain() {
            carried.control.put_down();
            self.draining.push(carried.control.writer);
        }
    }

    fn on_inbound(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
        stream: Stream,
        now: Instant,
    ) {
        if protocol != self.settings.link_protocol {
            if let Some(link) = self.carry(peer, connection, stream, false, false) {
                let protocol = protocol.to_string();
                self.tell_link(LanEvent::Stream { protocol, link });
            }
            return;
        }
        if self.refusals.is_refused(&peer) {
            tracing::debug!(%peer, "dropped a link from a refused peer");
            return;
        }
        if self.pairing.takes_inbound(&peer, now) {
            self.link_up(peer, connection, stream, false, now);
        }
    }

    fn on_opened(&mut self, ticket: Ticket, stream: Stream, now: Instant) {
        let Some(opening) = self.openings.remove(&ticket) else {
            return;
        };
        match opening.purpose {
            Purpose::Link => {
                let wanted = self.pairing.opened(&opening.peer, ticket);
                if wanted && !self.refusals.is_refused(&opening.peer) {
                    self.link_up(opening.peer, opening.connection, stream, true, now);
                }
            }
            Purpose::Host(request) => {
                let link = self.carry(opening.peer, opening.connection, stream, true, false);
                let gone = || OpenError::Unreachable("the connection ended".to_owned());
                request.answer(link.ok_or_else(gone));
            }
        }
    }

    fn on_not_opened(&mut self, ticket: Ticket, reason: &NotOpened, now: Instant) {
        let Some(opening) = self.openings.remove(&ticket) else {
            return;
        };
        match opening.purpose {
            Purpose::Link => {
                let pause = match reason {
                    NotOpened::Unsupported => Some(OTHER_VERSION_PAUSE),
                    NotOpened::Failed(_) => None,
                };
                self.pairing.not_opened(&opening.peer, ticket, pause, now);
                self.tell_no_link(&opening, reason);
            }
            Purpose::Host(request) => match reason {
                NotOpened::Unsupported => {
                    let protocol = request.protocol;
                    request.answer(Err(OpenError::Unsupported(protocol)));
                }
                // The connection we found may have been on its way out: a new one is tried once.
                NotOpened::Failed(_) if !request.retried => self.on_open(OpenRequest { retried: true, ..request }),
                NotOpened::Failed(reason) => {
                    request.answer(Err(OpenError::Unreachable(reason.clone())));
                }
            },
        }
    }

    fn tell_no_link(&mut self, opening: &Opening, reason: &NotOpened) {
        let reason = match reason {
            NotOpened::Unsupported => {
                format!("it does not speak {}: update the older of the two devices", self.settings.link_protocol)
            }
            NotOpened::Failed(reason) => format!("no link could be made: {reason}"),
        };
        let connection = self.pairing.connection(&opening.peer, opening.connection);
        if let Some(connection) = connection {
            let address = connection.remote.to_string();
            self.tell(LanEvent::Unreachable { address, reason });
        }
    }

    fn link_up(&mut self, peer: PeerId, connection: ConnectionId, stream: Stream, dialled: bool, now: Instant) {
        let Some(link) = self.carry(peer, connection, stream, dialled, true) else {
            return;
        };
        let replaced = self.pairing.linked(&peer, link.id, connection, dialled, now);
        if let Some(replaced) = replaced {
            self.cut(replaced, LinkError::Replaced);
        }
        self.tell_link(LanEvent::Link(link));
    }

    /// Makes a link of a stream; `None` if its connection is gone by now.
    fn carry(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        stream: Stream,
        dialled: bool,
        is_link: bool,
    ) -> Option<Link> {
        let key = PeerKey::from_peer_id(&peer).ok()?;
        let remote = self.pairing.connection(&peer, connection)?.remote.to_string();
        let id = self.settings.link_ids.next();
        let origin = LinkOrigin { id, peer: key, kind: LinkKind::Lan, remote, dialled };
        let commands = self.commands.clone();
        let on_over = Box::new(move |failed| {
            if commands.send(Command::LinkOver { id, failed }).is_err() {
                tracing::debug!(%id, "the link outlived its transport");
            }
        });
        let limits = &self.settings.limits;
        let (link, control) = Link::carried_by(origin, stream.compat(), limits, on_over);
        let carried = Carried { peer, connection, is_link, control };
        self.carried.insert(id, carried);
        Some(link)
    }

    /// A link that the host has no room for is dropped here, which puts it down.
    fn tell_link(&mut self, event: LanEvent) {
        if self.events.try_send(event).is_err() {
            tracing::warn!("the host is too slow to take a new link: it is put down for now");
        }
    }

    fn cut(&mut self, id: LinkId, reason: LinkError) {
        if let Some(carried) = self.carried.get(&id) {
            carried.control.cut(reason);
        }
    }

    /// A refused peer may be joining: only a connection without such a stream is closed.
    fn disconnect_unless_in_use(&mut self, peer: PeerId) {
        let in_use = self.carried.values().any(|carried| carried.peer == peer && !carried.is_link)
            || self.openings.values().any(|opening| opening.peer == peer && opening.is_for_host());
        if !in_use && self.swarm.disconnect_peer_id(peer).is_err() {
            tracing::debug!(%peer, "was not connected");
        }
    }

    fn ask(&mut self, peer: PeerId, connection: ConnectionId, protocol: StreamProtocol, purpose: Purpose) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.swarm.behaviour_mut().streams.open(peer, connection, protocol, ticket);
        let opening = Opening { peer, connection, purpose };
        self.openings.insert(ticket, opening);
        ticket
    }
}

/// How long a peer that speaks another protocol is left alone, unless it opens a link itself.
const OTHER_VERSION_PAUSE: Duration = Duration::from_secs(300);
/// A longer refusal is no different to a peer, and can't overflow the clock.
const REFUSAL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
