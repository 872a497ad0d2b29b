//! The way to a running shop: record, ask, listen. Clones are the same shop.

use std::sync::Arc;

use crdt_model::entry::{Entry, Place};
use crdt_model::shop::{ActError, Acted, Arrival, Change, Input, LinkId, Operation, Shop};
use tokio::sync::{broadcast, oneshot};

use crate::shop_loop::{Request, ShopLoop};
use crate::storage::{Reader, RowWrite, StorageError};
use crate::turn::{Attendant, Turn};

/// The way to a running shop.
#[derive(Debug, Clone)]
pub struct ShopHandle {
    turn: Arc<Turn>,
    reader: Arc<dyn Reader>,
    changes: broadcast::Sender<Change>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The operation itself is refused.
    #[error(transparent)]
    Refused(#[from] ActError),
    /// The node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The node has stopped, or is stopping: its disk failed, or it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped: see its log, and start it again")]
pub struct Stopped;

/// Why something stored can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An entry is damaged.
    #[error(transparent)]
    Entry(#[from] crdt_model::entry::EntryError),
}

impl ShopHandle {
    /// Opens the way to a shop; the attendant has to run for it to be served.
    pub(crate) fn open(shop_loop: ShopLoop) -> (Self, Attendant) {
        let (reader, changes) = (shop_loop.reader(), shop_loop.changes());
        let (turn, attendant) = Turn::open(shop_loop);
        (Self { turn, reader, changes }, attendant)
    }

    /// Ends the shop; what waits before this is still served.
    pub(crate) async fn close(&self) -> Result<(), Stopped> {
        self.turn.bring(Request::Close).await
    }

    /// Records an operation; it is durable when this answers.
    ///
    /// # Errors
    /// [`RecordError`]; nothing of the operation is recorded then.
    pub async fn record(&self, operation: Operation) -> Result<Acted, RecordError> {
        self.record_with(operation, Vec::new()).await
    }

    /// Records an operation, and rows of the node's own in the same commit.
    ///
    /// # Errors
    /// [`RecordError`]; neither is written then.
    pub(crate) async fn record_with(&self, operation: Operation, rows: Vec<RowWrite>) -> Result<Acted, RecordError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Act { plan: Box::new(move |_| Some(operation)), rows, reply };
        self.turn.bring(request).await?;
        Ok(answer.await.map_err(|_| Stopped)??)
    }

    /// Records what `plan` makes of the shop's state; no other operation comes in between. Keep
    /// the plan short. Gives what the plan said besides.
    ///
    /// # Errors
    /// What the plan refused, or a [`RecordError`]; nothing is recorded then.
    pub async fn record_planned<T, E>(
        &self,
        plan: impl FnOnce(&Shop) -> Result<(Operation, T), E> + Send + 'static,
    ) -> Result<(Acted, T), E>
    where
        T: Send + 'static,
        E: From<RecordError> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let plan = move |shop: &Shop| {
            let (operation, said) = match plan(shop) {
                Ok((operation, said)) => (Some(operation), Ok(said)),
                Err(error) => (None, Err(error)),
            };
            // Whoever asked may have gone; then nothing is recorded either.
            tell.send(said).ok().and(operation)
        };
        let (reply, answer) = oneshot::channel();
        let request = Request::Act { plan: Box::new(plan), rows: Vec::new(), reply };
        self.turn.bring(request).await.map_err(|stopped| E::from(stopped.into()))?;
        let said = told.await.map_err(|_| E::from(Stopped.into()))??;
        let acted = answer.await.map_err(|_| E::from(Stopped.into()))?;
        Ok((acted.map_err(|refused| E::from(refused.into()))?, said))
    }

    /// Asks the shop something, between two groups of operations. Keep it short: nothing is
    /// recorded in the meantime.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Shop) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        let question = Box::new(move |shop: &Shop| drop(reply.send(question(shop))));
        self.turn.bring(Request::Ask(question)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Makes rows of the node's own durable.
    pub(crate) async fn write_rows(&self, rows: Vec<RowWrite>) -> Result<(), Stopped> {
        self.bring_rows(rows, true).await
    }

    /// Writes rows that can be made again: they are seen at once, and durable with whatever is
    /// made durable next.
    pub(crate) async fn write_derived_rows(&self, rows: Vec<RowWrite>) -> Result<(), Stopped> {
        self.bring_rows(rows, false).await
    }

    async fn bring_rows(&self, rows: Vec<RowWrite>, durable: bool) -> Result<(), Stopped> {
        let (reply, answer) = oneshot::channel();
        self.turn.bring(Request::Rows { rows, durable, reply }).await?;
        answer.await.map_err(|_| Stopped)
    }

    pub(crate) async fn input(&self, input: Input) -> Result<(), Stopped> {
        self.turn.bring(Request::Input(input)).await
    }

    /// Hands over a frame that was read, and goes on with the next.
    pub(crate) async fn arrived(&self, link: LinkId, arrival: Arrival) -> Result<(), Stopped> {
        self.turn.leave(Request::Input(Input::Arrived(link, Box::new(arrival)))).await
    }

    /// Hints of what changes from now on. A slow listener misses some and is told how many.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// What is committed.
    #[must_use]
    pub fn reader(&self) -> &Arc<dyn Reader> {
        &self.reader
    }

    /// One committed entry.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn entry(&self, place: Place) -> Result<Option<Entry>, ReadError> {
        let Some(bytes) = self.reader.entry(place)? else { return Ok(None) };
        Ok(Some(Entry::from_bytes(&bytes)?))
    }
}
