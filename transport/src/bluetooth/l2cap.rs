//! L2CAP channels on Linux: a fragment is one packet. They are ordered and have credits of their
//! own, and still the exchange runs on them as on GATT: one protocol, one set of tests.

use std::{io, sync::Arc, time::Duration};

use bluer::{
    Address, AddressType,
    l2cap::{SeqPacket, SeqPacketListener, Socket, SocketAddr},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::{Carrier, CarrierError, FragmentSink, INCOMING_FRAGMENTS_MAX};

/// Listens on a free channel number of an adapter.
pub(super) async fn listen(local: Address, kind: AddressType) -> io::Result<(SeqPacketListener, u16)> {
    let listener = SeqPacketListener::bind(SocketAddr::new(local, kind, 0)).await?;
    let psm = listener.as_ref().local_addr()?.psm;
    Ok((listener, psm))
}

/// Opens a channel to a device that GATT is connected to.
pub(super) async fn connect(
    (local, local_kind): (Address, AddressType),
    (remote, remote_kind): (Address, AddressType),
    psm: u16,
) -> io::Result<SeqPacket> {
    let connecting = async {
        let socket = Socket::new_seq_packet()?;
        socket.bind(SocketAddr::new(local, local_kind, 0))?;
        let channel = socket.connect(SocketAddr::new(remote, remote_kind, psm)).await?;
        // It may say that it is connected before it is.
        while channel.send_mtu().is_err() {
            tokio::time::sleep(POLL).await;
        }
        Ok(channel)
    };
    tokio::time::timeout(CONNECT_MAX, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A carrier of a channel. `held` is dropped when the carrier is no longer used.
pub(super) fn carrier(channel: SeqPacket, held: impl Send + 'static) -> io::Result<Carrier> {
    let fragment_bytes_max = channel.send_mtu()?.min(channel.recv_mtu()?);
    let channel = Arc::new(channel);
    let (arrived, incoming) = mpsc::channel(INCOMING_FRAGMENTS_MAX);
    let receiving = Arc::clone(&channel);
    tokio::spawn(async move {
        let mut packet = vec![0; fragment_bytes_max.saturating_add(1)];
        loop {
            let received = tokio::select! {
                received = receiving.recv(&mut packet) => received,
                () = arrived.closed() => break,
            };
            match received.map(|bytes| packet.get(..bytes).unwrap_or_default()) {
                Ok([]) => break,
                // Waits while the exchange is behind: the channel's own credits hold the peer up.
                Ok(fragment) => {
                    if arrived.send(Bytes::copy_from_slice(fragment)).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the channel ended");
                    break;
                }
            }
        }
        if let Err(error) = receiving.shutdown(std::net::Shutdown::Both) {
            tracing::trace!(%error, "the channel was closed before");
        }
        drop(held);
    });
    Ok(Carrier { fragment_bytes_max, outgoing: Box::new(Channel(channel)), incoming })
}

struct Channel(Arc<SeqPacket>);

impl FragmentSink for Channel {
    fn send(&mut self, fragment: Bytes) -> BoxFuture<'_, Result<(), CarrierError>> {
        Box::pin(async move {
            match self.0.send(&fragment).await {
                Ok(_) => Ok(()),
                Err(error) => Err(CarrierError(error.to_string())),
            }
        })
    }
}

const POLL: Duration = Duration::from_millis(20);
const CONNECT_MAX: Duration = Duration::from_secs(5);
