//! Runs an exchange over a carrier, and gives its two ends as a byte stream.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf},
    sync::mpsc,
    time::Instant,
};
use tracing::Instrument;

use crate::Traffic;

use super::{
    carrier::{Carrier, FragmentSink},
    exchange::{Exchange, ExchangeError},
};

/// The byte stream of an exchange. It fails, rather than ends, when the exchange does.
#[derive(Debug)]
pub(super) struct ExchangeStream {
    pipe: DuplexStream,
    failure: Arc<OnceLock<ExchangeError>>,
}

/// Starts a task for the exchange. Must be called within a tokio runtime.
pub(super) fn drive(exchange: Exchange, carrier: Carrier, traffic: Traffic) -> ExchangeStream {
    let (pipe, far) = tokio::io::duplex(PIPE_BYTES);
    let failure = Arc::new(OnceLock::new());
    let stream = ExchangeStream { pipe, failure: Arc::clone(&failure) };
    let work = async move {
        let Carrier { outgoing, incoming, .. } = carrier;
        let (queue, queued) = mpsc::channel(QUEUED_FRAGMENTS_MAX);
        let writing = tokio::spawn(send_all(outgoing, queued));
        let (reading, writing_half) = tokio::io::split(far);
        let mut driver =
            Driver { exchange, incoming, reading: Some(reading), writing: Some(writing_half), queue, traffic };
        let outcome = driver.run().await;
        if let Err(error) = outcome {
            tracing::debug!(%error, retransmitted = driver.exchange.retransmitted(), "the exchange ended");
            drop(driver.queue.try_send(driver.exchange.reset().into()));
            failure.get_or_init(|| error);
        }
        // Lets go of the pipe only now, so that its end finds the reason.
        drop(driver);
        drop(writing.await);
    };
    tokio::spawn(work.in_current_span());
    stream
}

/// A carrier that can't keep up holds up nobody but itself.
async fn send_all(mut outgoing: Box<dyn FragmentSink>, mut queued: mpsc::Receiver<Bytes>) {
    while let Some(fragment) = queued.recv().await {
        if let Err(error) = outgoing.send(fragment).await {
            tracing::debug!(%error, "the carrier takes no more");
            return;
        }
    }
}

struct Driver {
    exchange: Exchange,
    incoming: mpsc::Receiver<Bytes>,
    reading: Option<ReadHalf<DuplexStream>>,
    writing: Option<WriteHalf<DuplexStream>>,
    queue: mpsc::Sender<Bytes>,
    traffic: Traffic,
}

impl Driver {
    async fn run(&mut self) -> Result<(), ExchangeError> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            let at = now();
            self.exchange.check(at)?;
            self.end_what_is_over().await;
            if self.exchange.is_over() {
                return Ok(());
            }
            let talks = self.exchange.has_something_to_say(at);
            let room = self.exchange.room().min(READ_BYTES);
            let due = Instant::from_std(self.exchange.next_due());
            let step = tokio::select! {
                fragment = self.incoming.recv() => Step::Arrived(fragment),
                permit = self.queue.reserve(), if talks => match permit {
                    Ok(permit) => {
                        if let Some(fragment) = self.exchange.transmit(at) {
                            self.traffic.sent(fragment.len());
                            permit.send(fragment.into());
                        }
                        Step::Nothing
                    }
                    Err(_) => Step::Arrived(None),
                },
                read = read_some(&mut self.reading, &mut buffer, room) => Step::Read(read),
                written = write_some(&mut self.writing, self.exchange.ready()) => Step::Written(written),
                () = tokio::time::sleep_until(due) => Step::Nothing,
            };
            match step {
                Step::Nothing => {}
                Step::Arrived(Some(fragment)) => {
                    self.traffic.received(fragment.len());
                    self.exchange.receive(&fragment, now())?;
                }
                Step::Arrived(None) if self.exchange.is_read_to_the_end() => return Ok(()),
                Step::Arrived(None) => return Err(ExchangeError::Carrier("it was closed".to_owned())),
                Step::Read(Ok(bytes)) if bytes > 0 => {
                    self.exchange.write(&buffer);
                    buffer.clear();
                }
                Step::Read(_) => {
                    self.reading = None;
                    self.exchange.finish();
                }
                Step::Written(Ok(bytes)) => self.exchange.consume(bytes, now()),
                // Nobody reads any more; what still comes is thrown away, so that the end arrives.
                Step::Written(Err(_)) => {
                    let bytes = self.exchange.ready().map_or(0, <[u8]>::len);
                    self.exchange.consume(bytes, now());
                }
            }
        }
    }

    async fn end_what_is_over(&mut self) {
        if self.exchange.is_read_to_the_end()
            && let Some(mut writing) = self.writing.take()
            && let Err(error) = writing.shutdown().await
        {
            tracing::trace!(%error, "nobody waits for the end");
        }
    }
}

/// The runtime's clock, which tests can stop.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

enum Step {
    Nothing,
    Arrived(Option<Bytes>),
    Read(io::Result<usize>),
    Written(io::Result<usize>),
}

async fn read_some(from: &mut Option<ReadHalf<DuplexStream>>, into: &mut BytesMut, room: usize) -> io::Result<usize> {
    match from {
        Some(from) if room > 0 => {
            into.reserve(room);
            (&mut *from).take(room as u64).read_buf(into).await
        }
        Some(_) | None => std::future::pending().await,
    }
}

async fn write_some(to: &mut Option<WriteHalf<DuplexStream>>, ready: Option<&[u8]>) -> io::Result<usize> {
    match (to, ready) {
        (Some(to), Some(ready)) => to.write(ready).await,
        (None, Some(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        (_, None) => std::future::pending().await,
    }
}

impl AsyncRead for ExchangeStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(cx, buf);
        match (&read, self.failure.get()) {
            (Poll::Ready(Ok(())), Some(error)) if buf.filled().len() == before && buf.remaining() > 0 => {
                Poll::Ready(Err(io::Error::other(error.clone())))
            }
            _ => read,
        }
    }
}

impl AsyncWrite for ExchangeStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Bytes between the exchange and its stream, each way. 8 KiB: what waits here can't be put into
/// fragments yet, so it only has to bridge a moment.
const PIPE_BYTES: usize = 8 * 1024;
const READ_BYTES: usize = 8 * 1024;
/// Fragments between the exchange and its carrier. 2: what waits here can't be overtaken by an
/// acknowledgement.
const QUEUED_FRAGMENTS_MAX: usize = 2;
