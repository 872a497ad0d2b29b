//! Frames on a byte stream: a length (seven bits a byte, the lowest first; the highest bit says that
//! another follows), then that many bytes. The length 0 is a beat: the sender is alive and has
//! nothing to say.

use std::{
    fmt, io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::{Notify, Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::{
    Limits,
    writer::{Queued, Writer, write_until_over},
};

/// Why a frame was not taken, or why the link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    #[error("a frame of {bytes} bytes is over the limit of {max}: send it in parts")]
    FrameTooLarge { bytes: usize, max: usize },
    #[error("a frame must hold at least one byte: leave it out instead")]
    EmptyFrame,
    #[error("the peer ended the link in the middle of a frame: wait for the next link")]
    Truncated,
    #[error("the link is closed: wait for the next link")]
    Closed,
    #[error("a newer link to the same peer replaced this one: use that")]
    Replaced,
    #[error("the peer was refused: readmit it before expecting a link")]
    Refused,
    #[error("the peer has been silent for {0:?}: wait for the next link")]
    Silent(Duration),
    #[error("the peer has taken nothing for {0:?}: wait for the next link")]
    Stalled(Duration),
    #[error("the connection failed ({0}): wait for the next link")]
    Connection(String),
}

/// The writing half of a link. Frames are written in the background: those that queue up while
/// one is on its way leave together, and whatever is buffered leaves as soon as the queue is empty.
pub struct FrameSender {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    frame_bytes_max: usize,
    life: Arc<Life>,
}

/// The reading half of a link.
pub struct FrameReceiver {
    stream: Reading,
    buffer: BytesMut,
    limit_bytes: usize,
    frame_bytes_max: usize,
    silence_max: Option<Duration>,
    life: Arc<Life>,
    done: bool,
    span: Span,
}

impl FrameSender {
    /// Queues a frame of 1 to `frame_bytes_max` bytes; waits while the queue is full. If the
    /// future is dropped before it is ready, the frame is not sent.
    ///
    /// # Errors
    /// An empty or oversized frame is refused and the link goes on; every other error is the
    /// link's end.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        if frame.is_empty() {
            return Err(LinkError::EmptyFrame);
        }
        if frame.len() > self.frame_bytes_max {
            return Err(LinkError::FrameTooLarge { bytes: frame.len(), max: self.frame_bytes_max });
        }
        let share = u32::try_from(frame.len().min(self.room_bytes)).unwrap_or(u32::MAX);
        let queued = async {
            let room = Arc::clone(&self.room).acquire_many_owned(share).await.ok()?;
            self.queue.send(Queued { frame, room }).await.ok()
        };
        tokio::select! {
            biased;
            () = self.life.cut.cancelled() => Err(self.life.reason()),
            sent = queued => sent.ok_or_else(|| self.life.reason()),
        }
    }
}

impl FrameReceiver {
    /// The next frame; `None` once the peer has put the link down, or after an error. May be
    /// dropped and called again without losing anything.
    pub async fn next(&mut self) -> Option<Result<Bytes, LinkError>> {
        if self.done {
            return None;
        }
        let read = self.read_frame().await;
        self.done = !matches!(read, Ok(Some(_)));
        if self.done {
            // The stream goes now, so that the peer sees the end although the host holds us.
            self.stream = Box::new(tokio::io::empty());
            self.buffer = BytesMut::new();
        }
        match read {
            Ok(Some(frame)) => Some(Ok(frame)),
            Ok(None) => {
                self.span.in_scope(|| tracing::debug!("put down by the peer"));
                self.life.cut(LinkError::Closed, false);
                None
            }
            Err(error) => {
                self.span.in_scope(|| tracing::debug!(%error, "reading ended"));
                self.life.cut(error.clone(), true);
                Some(Err(error))
            }
        }
    }

    /// Lets the peer send frames of up to `frame_bytes_max`, once the host knows it is one of ours.
    pub fn raise_limit(&mut self) {
        self.limit_bytes = self.frame_bytes_max;
    }

    async fn read_frame(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            // Room for what may arrive next, never for what the length claims.
            self.buffer.reserve(READ_BYTES);
            let arriving = read_some(&mut self.stream, &mut self.buffer, self.silence_max);
            let read_bytes = tokio::select! {
                biased;
                () = self.life.cut.cancelled() => return Err(self.life.reason()),
                read = arriving => read?,
            };
            if read_bytes == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(LinkError::Truncated),
                };
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, LinkError> {
        while let Some((bytes, prefix_bytes)) = length(&self.buffer) {
            if bytes > self.limit_bytes {
                let max = self.limit_bytes;
                return Err(LinkError::FrameTooLarge { bytes, max });
            }
            if self.buffer.len() - prefix_bytes < bytes {
                return Ok(None);
            }
            self.buffer.advance(prefix_bytes);
            if bytes == 0 {
                continue;
            }
            let frame = self.buffer.split_to(bytes);
            // A small frame the host keeps must not pin the large buffer it arrived in.
            if bytes < COPY_BELOW_BYTES {
                return Ok(Some(Bytes::copy_from_slice(&frame)));
            }
            return Ok(Some(frame.freeze()));
        }
        Ok(None)
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        self.life.put_down();
    }
}

impl Drop for FrameReceiver {
    fn drop(&mut self) {
        let stream = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        self.life.leave_to_writer(stream);
        self.life.put_down();
    }
}

impl fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSender").finish_non_exhaustive()
    }
}

impl fmt::Debug for FrameReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReceiver").finish_non_exhaustive()
    }
}

/// The transport's hold on a link it has handed out.
#[derive(Debug)]
pub(crate) struct LinkControl {
    life: Arc<Life>,
    /// Done when everything queued has been written or given up.
    pub(crate) writer: JoinHandle<()>,
}

impl LinkControl {
    /// Ends the link now; both halves report `reason`.
    pub(crate) fn cut(&self, reason: LinkError) {
        self.life.cut(reason, false);
    }

    /// Ends the link once what is queued has been written.
    pub(crate) fn put_down(&self) {
        self.life.put_down();
    }
}

/// Splits a stream into a link's halves and starts its writer.
pub(crate) fn carry(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    limits: &Limits,
    span: Span,
    on_over: OnOver,
) -> (FrameSender, FrameReceiver, LinkControl) {
    let (reading, writing) = tokio::io::split(stream);
    let life = Arc::new(Life {
        putting_down: CancellationToken::new(),
        cut: CancellationToken::new(),
        reason: OnceLock::new(),
        on_over: Mutex::new(Some(on_over)),
        left: Mutex::new(None),
        leaving: Notify::new(),
    });
    let (queue, queued) = mpsc::channel(limits.queue_frames_max.max(1));
    let writer = Writer {
        stream: writing,
        queued,
        buffer: BytesMut::new(),
        beat_interval: limits.beat_interval,
        stall_max: limits.stall_max,
        putting_down: life.putting_down.clone(),
    };
    let writing = write_until_over(writer, Arc::clone(&life), limits.drain_max);
    let control = LinkControl { life: Arc::clone(&life), writer: tokio::spawn(writing.instrument(span.clone())) };
    let room_bytes = limits.queue_bytes_max.clamp(1, Semaphore::MAX_PERMITS);
    let sender = FrameSender {
        queue,
        room: Arc::new(Semaphore::new(room_bytes)),
        room_bytes,
        frame_bytes_max: limits.frame_bytes_max,
        life: Arc::clone(&life),
    };
    let receiver = FrameReceiver {
        stream: Box::new(reading),
        buffer: BytesMut::new(),
        limit_bytes: limits.first_frame_bytes_max.min(limits.frame_bytes_max),
        frame_bytes_max: limits.frame_bytes_max,
        silence_max: limits.silence_max,
        life,
        done: false,
        span,
    };
    (sender, receiver, control)
}

type Reading = Box<dyn AsyncRead + Send + Unpin>;

/// Called once when the link is over, with whether it failed.
pub(crate) type OnOver = Box<dyn FnOnce(bool) + Send>;

/// What both halves, the writer and the transport know of one link's end.
pub(crate) struct Life {
    /// Cancelled when the link is to end once its queue is written.
    pub(crate) putting_down: CancellationToken,
    /// Cancelled when the link has ended.
    pub(crate) cut: CancellationToken,
    reason: OnceLock<LinkError>,
    on_over: Mutex<Option<OnOver>>,
    /// What a dropped receiver left for the writer to see the peer's goodbye on.
    left: Mutex<Option<Reading>>,
    leaving: Notify,
}

impl Life {
    fn put_down(&self) {
        self.putting_down.cancel();
        self.over(false);
    }

    pub(crate) fn cut(&self, reason: LinkError, failed: bool) {
        self.reason.get_or_init(|| reason);
        self.cut.cancel();
        self.over(failed);
    }

    /// Waits until the peer has answered our goodbye with its own. Frames that were on their way
    /// when nobody wanted them any more are discarded.
    pub(crate) async fn answered(&self) {
        let left = async {
            loop {
                let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
                match left {
                    Some(stream) => break stream,
                    None => self.leaving.notified().await,
                }
            }
        };
        let stream = tokio::select! {
            () = self.cut.cancelled() => return,
            stream = left => stream,
        };
        let mut discarded = tokio::io::sink();
        let mut stream = tokio::io::BufReader::new(stream);
        if let Err(error) = tokio::io::copy_buf(&mut stream, &mut discarded).await {
            tracing::trace!(%error, "no goodbye from the peer");
        }
    }

    fn leave_to_writer(&self, stream: Reading) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        self.leaving.notify_one();
    }

    fn reason(&self) -> LinkError {
        self.reason.get().cloned().unwrap_or(LinkError::Closed)
    }

    fn over(&self, failed: bool) {
        let on_over = self.on_over.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_over) = on_over {
            on_over(failed);
        }
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Life").field("reason", &self.reason.get()).finish_non_exhaustive()
    }
}

async fn read_some(
    stream: &mut (dyn AsyncRead + Send + Unpin),
    buffer: &mut BytesMut,
    silence_max: Option<Duration>,
) -> Result<usize, LinkError> {
    let read = stream.read_buf(buffer);
    let Some(silence_max) = silence_max else {
        return read.await.map_err(connection_error);
    };
    match tokio::time::timeout(silence_max, read).await {
        Ok(read) => read.map_err(connection_error),
        Err(_) => Err(LinkError::Silent(silence_max)),
    }
}

pub(crate) fn connection_error(error: io::Error) -> LinkError {
    LinkError::Connection(error.to_string())
}

/// A frame's length and the bytes that tell it, if enough of them are here. What goes on for longer
/// than any length does is one that is too large.
fn length(buffer: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (n, byte) in buffer.iter().enumerate() {
        if n == PREFIX_BYTES_MAX {
            return Some((usize::MAX, n));
        }
        length |= usize::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((length, n + 1));
        }
    }
    None
}

/// The bytes that tell a length below 2^28.
pub(crate) fn put_length(mut length: usize, into: &mut BytesMut) {
    loop {
        let [low, ..] = length.to_le_bytes();
        length >>= 7;
        if length == 0 {
            into.put_u8(low & 0x7F);
            return;
        }
        into.put_u8(low | 0x80);
    }
}

/// Four bytes tell 268 MB.
const PREFIX_BYTES_MAX: usize = 4;
pub(crate) const BEAT: usize = 0;
/// How much is asked of the stream at once.
const READ_BYTES: usize = 16 * 1024;
/// Smaller frames are copied, so that many leave in one write and none pins a shared buffer.
pub(crate) const COPY_BELOW_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::{Link, LinkId, LinkIds, LinkKind};
    use crate::{PeerKey, memory_pair, memory_pair_with};

    fn keys() -> (PeerKey, PeerKey) {
        (PeerKey::from_secret(&[1; 32]).unwrap(), PeerKey::from_secret(&[2; 32]).unwrap())
    }

    fn link_to(stream: tokio::io::DuplexStream, limits: &Limits) -> Link {
        let (peer, _) = keys();
        let remote = "test".to_owned();
        Link::over_stream(LinkId(9), peer, LinkKind::Host, remote, false, stream, limits)
    }

    fn told(length: usize) -> BytesMut {
        let mut bytes = BytesMut::new();
        put_length(length, &mut bytes);
        bytes
    }

    #[test]
    fn lengths_are_told_in_as_few_bytes_as_they_need() {
        for (of, bytes) in
            [(0, 1), (1, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (1_052_672, 3), ((1 << 28) - 1, 4)]
        {
            let told = told(of);
            assert_eq!(told.len(), bytes, "{of}");
            assert_eq!(length(&told), Some((of, bytes)), "{of}");
            assert_eq!(length(&told[..bytes - 1]), None, "{of}, cut short");
        }
        assert_eq!(length(&[0xFF; 9]), Some((usize::MAX, 4)), "endless");
    }

    #[tokio::test(start_paused = true)]
    async fn an_oversized_claim_ends_the_link_before_anything_is_allocated() {
        let (mut raw, stream) = tokio::io::duplex(1024);
        let mut link = link_to(stream, &Limits::default());
        raw.write_all(&told(16 * 1024 + 1)).await.unwrap();
        let error = link.frames_in.next().await.unwrap().unwrap_err();
        assert_eq!(error, LinkError::FrameTooLarge { bytes: 16 * 1024 + 1, max: 16 * 1024 });
        assert!(link.frames_in.buffer.capacity() <= 2 * READ_BYTES);
        assert_eq!(link.frames_in.next().await, None);
        assert_eq!(link.frames_out.send(Bytes::from_static(b"x")).await, Err(error));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_grows_with_what_arrives_not_with_what_is_claimed() {
        let (mut raw, stream) = tokio::io::duplex(1024);
        let mut link = link_to(stream, &Limits::default());
        link.frames_in.raise_limit();
        raw.write_all(&told(1024 * 1024)).await.unwrap();
        raw.write_all(b"a little").await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_secs(1), link.frames_in.next()).await;
        assert!(waiting.is_err());
        assert!(link.frames_in.buffer.capacity() <= 4 * READ_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn beats_are_no_frames_and_half_a_frame_ends_the_link() {
        let (mut raw, stream) = tokio::io::duplex(1024);
        let mut link = link_to(stream, &Limits::default());
        raw.write_all(&[0, 0, 1, 7, 0, 2, 8]).await.unwrap();
        assert_eq!(link.frames_in.next().await.unwrap().unwrap(), [7][..]);
        raw.write_all(&[9]).await.unwrap();
        assert_eq!(link.frames_in.next().await.unwrap().unwrap(), [8, 9][..]);
        raw.write_all(&[9, 1, 2]).await.unwrap();
        drop(raw);
        assert_eq!(link.frames_in.next().await, Some(Err(LinkError::Truncated)));
        assert_eq!(link.frames_in.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_noticed_and_a_quiet_one_is_not() {
        let (a, b) = keys();
        let limits = Limits::default();
        let (_quiet, mut link) = memory_pair_with(&LinkIds::default(), a, b, &limits);
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, link.frames_in.next()).await.is_err());

        let (_silent, stream) = tokio::io::duplex(1024);
        let mut link = link_to(stream, &limits);
        let before = tokio::time::Instant::now();
        let ended = link.frames_in.next().await;
        assert_eq!(ended, Some(Err(LinkError::Silent(Duration::from_secs(13)))));
        assert!(before.elapsed() <= Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_off() {
        let (_stuck, stream) = tokio::io::duplex(1024);
        let limits = Limits { beat_interval: None, silence_max: None, ..Limits::default() };
        let mut link = link_to(stream, &limits);
        let frame = Bytes::from(vec![5; 1024 * 1024]);
        let error = loop {
            if let Err(error) = link.frames_out.send(frame.clone()).await {
                break error;
            }
        };
        assert_eq!(error, LinkError::Stalled(limits.stall_max));
        assert_eq!(link.frames_in.next().await, Some(Err(error)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_receive_loses_no_frame() {
        let (a, b) = keys();
        let (mut near, mut far) = memory_pair(a, b);
        far.frames_in.raise_limit();
        near.frames_out.send(Bytes::from(vec![1; 300_000])).await.unwrap();
        near.frames_out.send(Bytes::from_static(b"second")).await.unwrap();
        let frame = loop {
            tokio::select! {
                biased;
                frame = far.frames_in.next() => break frame.unwrap().unwrap(),
                () = tokio::task::yield_now() => {}
            }
        };
        assert_eq!(frame.len(), 300_000);
        assert_eq!(far.frames_in.next().await.unwrap().unwrap(), "second");
    }
}
