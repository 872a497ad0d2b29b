//! Dialling, for the directory and for the host, and saying why a dial failed.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, TransportError,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{
    LanEvent, OpenError, OpenRequest, address,
    discovery::{Dial, DialTo, TargetId},
    run::Runner,
};

impl Runner {
    pub(super) fn on_open(&mut self, request: OpenRequest) {
        if let Some(connection) = self.pairing.best_connection(&request.peer) {
            self.open_for_host(connection.id, request);
            return;
        }
        let mut addresses = request.addresses.clone();
        addresses.extend(self.directory.addresses_of(&request.peer));
        addresses.truncate(self.settings.limits.addresses_per_peer_max.max(1));
        if addresses.is_empty() {
            request.answer(Err(OpenError::NoAddress));
            return;
        }
        let options = dial_options(DialTo::Peer(request.peer, addresses));
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.waiting.push((connection, request)),
            Err(error) => request.answer(Err(OpenError::Unreachable(dial_reason(&error)))),
        }
    }

    pub(super) fn on_dial_failed(&mut self, connection: ConnectionId, error: &DialError, now: Instant) {
        let at = self.waiting.iter().position(|(dialled, _)| *dialled == connection);
        if let Some(at) = at {
            let (_, request) = self.waiting.swap_remove(at);
            request.answer(Err(OpenError::Unreachable(dial_reason(error))));
        }
        let Some(target) = self.dials.remove(&connection) else {
            return;
        };
        if matches!(error, DialError::LocalPeerId { .. }) {
            self.directory.forget(target);
            return;
        }
        self.dial_failed(target, error, now);
    }

    pub(super) fn dial(&mut self, dial: Dial, now: Instant) {
        let Dial { target, to } = dial;
        let options = dial_options(to);
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, target);
            }
            Err(error) => self.dial_failed(target, &error, now),
        }
    }

    fn dial_failed(&mut self, target: TargetId, error: &DialError, now: Instant) {
        let Some(address) = self.directory.failed(target, now) else {
            return;
        };
        let (address, reason) = (address.to_string(), dial_reason(error));
        tracing::debug!(%address, %reason, "could not be reached");
        self.tell(LanEvent::Unreachable { address, reason });
    }
}

/// How long a new address waits before it is dialled: those told together are dialled together,
/// and QUIC comes first.
pub(super) fn first_wait(address: &Multiaddr) -> Duration {
    match address::is_quic(address) {
        true => GATHERING,
        false => 2 * GATHERING,
    }
}

fn dial_options(to: DialTo) -> DialOpts {
    // A port of its own for each dial: two nodes dialling each other from their listening ports
    // at once would be one TCP connection to both kernels.
    match to {
        DialTo::Address(address) => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
        DialTo::Peer(peer, addresses) => {
            DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses).allocate_new_port().build()
        }
    }
}

fn dial_reason(error: &DialError) -> String {
    match error {
        DialError::Transport(attempts) => {
            let reasons = attempts.iter().map(|(address, error)| match error {
                TransportError::MultiaddrNotSupported(_) => format!("{address}: not supported"),
                TransportError::Other(error) => format!("{address}: {}", innermost(error)),
            });
            reasons.collect::<Vec<_>>().join("; ")
        }
        DialError::WrongPeerId { address, .. } => {
            format!("another device answers at {address}: correct the key or the address")
        }
        DialError::LocalPeerId { .. } => "the address is this device's own".to_owned(),
        DialError::Denied { cause } => innermost(cause),
        DialError::NoAddresses | DialError::DialPeerConditionFalse(_) | DialError::Aborted => error.to_string(),
    }
}

/// libp2p wraps an error in the name of every layer it passed; people need the last one.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Addresses of one peer are told one after another; a dial waits so long for a better one.
const GATHERING: Duration = Duration::from_millis(10);
