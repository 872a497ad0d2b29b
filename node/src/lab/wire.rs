//! A wire between two processes on loopback, that can be cut and mended, and counts its bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where a wire leads, or nowhere while it is cut.
type Target = Option<SocketAddr>;

/// A wire to a process's TCP port.
#[derive(Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    target: watch::Sender<Target>,
    bytes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// A wire that leads nowhere yet.
    pub(crate) async fn new() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = watch::Sender::new(None);
        let bytes = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, target.subscribe(), Arc::clone(&bytes)));
        Ok(Self { address, target, bytes, task })
    }

    /// Where to dial to pass through it. It names no device, since another may come to listen
    /// at its end.
    pub(crate) fn dial_address(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.address.port())
    }

    /// Lets the wire lead to a node's address, as `/ip4/127.0.0.1/tcp/PORT/...`.
    pub(crate) fn mend(&self, address: &str) -> anyhow::Result<()> {
        let port = address.split('/').nth(4).context("no port in a node's address")?.parse()?;
        self.target.send_replace(Some(SocketAddr::from(([127, 0, 0, 1], port))));
        Ok(())
    }

    /// Cuts it: what is on its way is lost, and nothing passes until it is mended.
    pub(crate) fn cut(&self) {
        self.target.send_replace(None);
    }

    /// Bytes that passed, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: watch::Receiver<Target>, bytes: Arc<AtomicU64>) {
    while let Ok((near, _)) = listener.accept().await {
        let Some(address) = *target.borrow() else { continue };
        let Ok(far) = TcpStream::connect(address).await else { continue };
        // A relay of bytes must not add waits of its own.
        if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
            continue;
        }
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        let (mut target, bytes) = (target.clone(), Arc::clone(&bytes));
        tokio::spawn(async move {
            tokio::select! {
                () = carry(near_in, far_out, &bytes) => {}
                () = carry(far_in, near_out, &bytes) => {}
                // Cut, or led elsewhere: both ends see the connection break.
                _ = target.wait_for(|now| *now != Some(address)) => {}
            }
        });
    }
}

async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, bytes: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { return };
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(read).await.is_err() {
            return;
        }
    }
}
