//! Streams on chosen connections, as a libp2p behaviour: the host side of every link begins here.
//! Also turns away an address that starts too many handshakes at once.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, InboundUpgrade, OutboundUpgrade, UpgradeInfo, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};

use super::address;

/// Names one request to open a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

#[derive(Debug)]
pub(super) enum StreamEvent {
    Inbound { peer: PeerId, connection: ConnectionId, protocol: StreamProtocol, stream: Stream },
    Opened { ticket: Ticket, stream: Stream },
    NotOpened { ticket: Ticket, reason: NotOpened },
}

#[derive(Debug, Clone)]
pub(super) enum NotOpened {
    /// The peer does not speak the protocol.
    Unsupported,
    Failed(String),
}

/// Accepts streams of the given protocols and opens streams on request.
#[derive(Debug)]
pub(super) struct Streams {
    protocols: Arc<[StreamProtocol]>,
    pending_per_host_max: usize,
    pending_hosts: HashMap<ConnectionId, IpAddr>,
    events: VecDeque<ToSwarm<StreamEvent, OpenStream>>,
}

impl Streams {
    pub(super) fn new(protocols: Arc<[StreamProtocol]>, pending_per_host_max: u32) -> Self {
        Self {
            protocols,
            pending_per_host_max: usize::try_from(pending_per_host_max).unwrap_or(usize::MAX),
            pending_hosts: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Opens a stream; answered by `Opened` or `NotOpened`, or by the connection's end.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId, protocol: StreamProtocol, ticket: Ticket) {
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: OpenStream { ticket, protocol },
        });
    }

    fn handler(&self) -> Handler {
        Handler { protocols: Arc::clone(&self.protocols), to_open: VecDeque::new(), events: VecDeque::new() }
    }
}

/// Too many handshakes at once from one address.
#[derive(Debug, thiserror::Error)]
#[error("{0} has too many handshakes under way")]
struct CrowdedHost(IpAddr);

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = StreamEvent;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(host) = address::host(remote) else {
            return Ok(());
        };
        let under_way = self.pending_hosts.values().filter(|&&other| other == host).count();
        if under_way >= self.pending_per_host_max {
            return Err(ConnectionDenied::new(CrowdedHost(host)));
        }
        self.pending_hosts.insert(connection, host);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending_hosts.remove(&connection);
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(failure) = event {
            self.pending_hosts.remove(&failure.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        let event = match event {
            FromHandler::Inbound { protocol, stream } => StreamEvent::Inbound { peer, connection, protocol, stream },
            FromHandler::Opened { ticket, stream } => StreamEvent::Opened { ticket, stream },
            FromHandler::NotOpened { ticket, reason } => StreamEvent::NotOpened { ticket, reason },
        };
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[derive(Debug)]
pub(super) struct OpenStream {
    ticket: Ticket,
    protocol: StreamProtocol,
}

#[derive(Debug)]
pub(super) enum FromHandler {
    Inbound { protocol: StreamProtocol, stream: Stream },
    Opened { ticket: Ticket, stream: Stream },
    NotOpened { ticket: Ticket, reason: NotOpened },
}

/// One connection's side of [`Streams`]. An open stream keeps its connection; a connection
/// without any ends after the swarm's idle time.
#[derive(Debug)]
pub(super) struct Handler {
    protocols: Arc<[StreamProtocol]>,
    to_open: VecDeque<OpenStream>,
    events: VecDeque<FromHandler>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenStream;
    type ToBehaviour = FromHandler;
    type InboundProtocol = AnyOf;
    type OutboundProtocol = AnyOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Ticket;

    fn listen_protocol(&self) -> SubstreamProtocol<AnyOf> {
        SubstreamProtocol::new(AnyOf(self.protocols.to_vec()), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<AnyOf, Ticket, FromHandler>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        let Some(OpenStream { ticket, protocol }) = self.to_open.pop_front() else {
            return Poll::Pending;
        };
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
            protocol: SubstreamProtocol::new(AnyOf(vec![protocol]), ticket),
        })
    }

    fn on_behaviour_event(&mut self, event: OpenStream) {
        self.to_open.push_back(event);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, AnyOf, AnyOf, (), Ticket>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: (stream, protocol),
            info: (),
        }) = event
        {
            self.events.push_back(FromHandler::Inbound { protocol, stream });
        } else if let ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
            protocol: (stream, _),
            info: ticket,
        }) = event
        {
            self.events.push_back(FromHandler::Opened { ticket, stream });
        } else if let ConnectionEvent::DialUpgradeError(DialUpgradeError { info: ticket, error }) = event {
            let reason = match error {
                StreamUpgradeError::NegotiationFailed => NotOpened::Unsupported,
                StreamUpgradeError::Timeout => NotOpened::Failed("it did not answer".to_owned()),
                StreamUpgradeError::Io(error) => NotOpened::Failed(error.to_string()),
                StreamUpgradeError::Apply(never) => match never {},
            };
            self.events.push_back(FromHandler::NotOpened { ticket, reason });
        }
    }
}

/// Negotiates one of several protocols and hands over the bare stream.
#[derive(Debug, Clone)]
pub(super) struct AnyOf(Vec<StreamProtocol>);

impl UpgradeInfo for AnyOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for AnyOf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
