//! Binding the ports at the start, and freeing them at the end.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{Swarm, TransportError, core::transport::ListenerId, swarm::SwarmEvent};
use tokio::{net::UdpSocket, sync::oneshot};

use super::{StartError, address, behaviour::Behaviour, dial::innermost, run::Runner};

impl Runner {
    /// Binds every listen address, and waits until each is known under its real name.
    pub(super) async fn listen(&mut self) -> Result<(), StartError> {
        let mut unnamed: Vec<(ListenerId, String)> = Vec::new();
        for (text, address) in self.settings.listen.clone() {
            // libp2p listens on TCP with SO_REUSEPORT: a second node would take the same port
            // unnoticed, and each would get half of the other's calls.
            if let Some(socket) = address::tcp_socket(&address)
                && let Err(error) = std::net::TcpListener::bind(socket)
            {
                return Err(listen_error(text, &TransportError::Other(error)));
            }
            match self.swarm.listen_on(address) {
                Ok(listener) => unnamed.push((listener, text)),
                Err(error) => return Err(listen_error(text, &error)),
            }
        }
        let deadline = tokio::time::Instant::now() + LISTEN_PATIENCE;
        while !unnamed.is_empty() {
            // A device without any network yet is bound all the same, and is named later.
            let Ok(event) = tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await else {
                break;
            };
            if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                unnamed.retain(|(listener, _)| listener != listener_id);
            }
            if let SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } = &event
                && let Some((_, address)) = unnamed.iter().find(|(id, _)| id == listener_id)
            {
                let (address, reason) = (address.clone(), error.to_string());
                return Err(StartError::Listen { address, reason });
            }
            self.on_swarm_event(event, Instant::now());
        }
        Ok(())
    }

    /// Writes what is queued, says goodbye, and waits until the ports are free.
    pub(super) async fn finish(mut self, done: Option<oneshot::Sender<()>>) {
        self.put_down_all();
        self.addresses.clear();
        let deadline = tokio::time::Instant::now() + self.settings.limits.drain_max;
        let written = futures::future::join_all(std::mem::take(&mut self.draining));
        let drained = async {
            tokio::select! {
                _ = written => {}
                () = poll_for_ever(&mut self.swarm) => {}
            }
        };
        if tokio::time::timeout_at(deadline, drained).await.is_err() {
            tracing::warn!("some peers did not take what was queued for them: they get it later");
        }
        for peer in self.pairing.connected_peers() {
            if self.swarm.disconnect_peer_id(peer).is_err() {
                tracing::debug!(%peer, "was not connected");
            }
        }
        // The goodbyes are on their way when every connection has ended.
        let goodbyes = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(GOODBYE_PATIENCE, goodbyes).await.is_err() {
            tracing::debug!("some connections did not end in time");
        }
        let listened = self.swarm.listeners().filter_map(address::udp_socket).collect::<Vec<_>>();
        drop(self.swarm);
        // QUIC keeps its socket a moment longer, for peers that missed the goodbye.
        if tokio::time::timeout(PORT_PATIENCE, all_free(&listened)).await.is_err() {
            tracing::warn!("some UDP ports are still in use: wait a moment before listening again");
        }
        if let Some(done) = done
            && done.send(()).is_err()
        {
            tracing::debug!("nobody waits for the shutdown any more");
        }
    }
}

async fn all_free(sockets: &[SocketAddr]) {
    for socket in sockets {
        while UdpSocket::bind(socket).await.is_err() {
            tokio::time::sleep(PORT_PROBE).await;
        }
    }
}

async fn poll_for_ever(swarm: &mut Swarm<Behaviour>) {
    loop {
        swarm.select_next_some().await;
    }
}

fn listen_error(address: String, error: &TransportError<io::Error>) -> StartError {
    let TransportError::Other(error) = error else {
        let reason = address::AddressError::Unsupported;
        return StartError::ListenAddress { address, reason };
    };
    let reason = innermost(error);
    if error.kind() == io::ErrorKind::AddrInUse || reason.contains("in use") {
        return StartError::InUse { address };
    }
    StartError::Listen { address, reason }
}

/// How long binding may take to come with a name.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);
/// How long connections may take to say goodbye.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);
const PORT_PATIENCE: Duration = Duration::from_secs(2);
const PORT_PROBE: Duration = Duration::from_millis(20);
