//! The writing side of a link: a task that empties the queue, gathers small frames, beats when it
//! has nothing to say, and gives up on a peer that takes nothing.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::frame::{BEAT, COPY_BELOW_BYTES, Life, LinkError, connection_error, put_length};

/// A frame and its share of the queue's bytes, given back once it is written.
pub(crate) struct Queued {
    pub(crate) frame: Bytes,
    pub(crate) room: OwnedSemaphorePermit,
}

pub(crate) struct Writer<S> {
    pub(crate) stream: S,
    pub(crate) queued: mpsc::Receiver<Queued>,
    pub(crate) buffer: BytesMut,
    pub(crate) beat_interval: Option<Duration>,
    pub(crate) stall_max: Duration,
    pub(crate) putting_down: CancellationToken,
}

pub(crate) async fn write_until_over<S>(mut writer: Writer<S>, life: Arc<Life>, drain_max: Duration)
where
    S: AsyncWrite + Unpin,
{
    let putting_down = life.putting_down.clone();
    let too_late = async {
        putting_down.cancelled().await;
        tokio::time::sleep(drain_max).await;
    };
    let outcome = tokio::select! {
        biased;
        () = life.cut.cancelled() => Ok(()),
        written = writer.write_all() => written,
        () = too_late => Err(LinkError::Stalled(drain_max)),
    };
    match outcome {
        // QUIC forgets what is under way when its connection is closed: only the peer's own
        // goodbye says that it has everything.
        Ok(()) if !life.cut.is_cancelled() => {
            if tokio::time::timeout(GOODBYE, life.answered()).await.is_err() {
                tracing::trace!("no goodbye from the peer");
            }
            return;
        }
        Ok(()) => {}
        Err(error) => {
            tracing::debug!(%error, "writing ended");
            life.cut(error, true);
        }
    }
    // The link was cut: says so on the stream, in case the connection lives on.
    if let Ok(Err(error)) = tokio::time::timeout(GOODBYE, writer.stream.shutdown()).await {
        tracing::trace!(%error, "no goodbye");
    }
}

impl<S: AsyncWrite + Unpin> Writer<S> {
    async fn write_all(&mut self) -> Result<(), LinkError> {
        loop {
            match self.queued.try_recv() {
                Ok(queued) => self.take(queued).await?,
                Err(mpsc::error::TryRecvError::Disconnected) => break,
                Err(mpsc::error::TryRecvError::Empty) => {
                    self.flush().await?;
                    self.wait().await?;
                }
            }
        }
        self.flush().await?;
        self.stream.shutdown().await.map_err(connection_error)
    }

    /// Waits for a frame or the end, with a beat now and then.
    async fn wait(&mut self) -> Result<(), LinkError> {
        let beat_due = async {
            match self.beat_interval {
                Some(interval) => tokio::time::sleep(interval).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            biased;
            queued = self.queued.recv() => Next::Frame(queued),
            () = self.putting_down.cancelled(), if !self.queued.is_closed() => Next::End,
            () = beat_due => Next::Beat,
        };
        match next {
            Next::Frame(Some(queued)) => self.take(queued).await,
            Next::Frame(None) => Ok(()),
            Next::End => {
                self.queued.close();
                Ok(())
            }
            Next::Beat => {
                put_length(BEAT, &mut self.buffer);
                Ok(())
            }
        }
    }

    async fn take(&mut self, queued: Queued) -> Result<(), LinkError> {
        let Queued { frame, room } = queued;
        if frame.len() > MAX_FRAME_BYTES {
            return Err(LinkError::FrameTooLarge { bytes: frame.len(), max: MAX_FRAME_BYTES });
        }
        put_length(frame.len(), &mut self.buffer);
        if frame.len() < COPY_BELOW_BYTES {
            self.buffer.extend_from_slice(&frame);
            if self.buffer.len() >= WRITE_BYTES {
                self.write_buffer().await?;
            }
        } else {
            self.write_buffer().await?;
            write_steadily(&mut self.stream, &frame, self.stall_max).await?;
        }
        drop(room);
        Ok(())
    }

    async fn write_buffer(&mut self) -> Result<(), LinkError> {
        write_steadily(&mut self.stream, &self.buffer, self.stall_max).await?;
        self.buffer.clear();
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.write_buffer().await?;
        match tokio::time::timeout(self.stall_max, self.stream.flush()).await {
            Ok(flushed) => flushed.map_err(connection_error),
            Err(_) => Err(LinkError::Stalled(self.stall_max)),
        }
    }
}

enum Next {
    Frame(Option<Queued>),
    End,
    Beat,
}

/// Writes everything, as long as every `stall_max` sees some of it go.
async fn write_steadily(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    stall_max: Duration,
) -> Result<(), LinkError> {
    while !bytes.is_empty() {
        let written = match tokio::time::timeout(stall_max, stream.write(bytes)).await {
            Ok(written) => written.map_err(connection_error)?,
            Err(_) => return Err(LinkError::Stalled(stall_max)),
        };
        bytes = match bytes.get(written..) {
            Some(rest) if written > 0 => rest,
            _ => return Err(LinkError::Closed),
        };
    }
    Ok(())
}

const MAX_FRAME_BYTES: usize = (1 << 28) - 1;
/// How long either side may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// A buffer this full is written although more is queued.
const WRITE_BYTES: usize = 64 * 1024;
