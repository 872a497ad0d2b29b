//! The queue of a running node, for the app around it: record, list, send, try again, decide,
//! configure. The HTTP handlers ask nothing else. docs/queue.md has what an older design called
//! these.

use std::sync::Arc;
use std::time::Duration;

use crdt_model::entry::Place;
use crdt_model::ids::RecordId;
use crdt_model::record::{Custom, Fact, FactError, SOURCE_BYTES_MAX, Source};
use crdt_model::shop::{Acted, Operation, QueueConfig, Shop};
use crdt_model::time::Timestamp;
use serde_json::Value;

use super::attempts::{self, Attempt, AttemptResult};
use super::by_relay;
use super::conflict::{ChoiceRefused, Decision, Opposed};
use super::relay_sync::SyncTurn;
use super::rules::{self, OfflineRefused, relay_is_connected};
use super::settings::{self, ConfigRefused};
use super::{Desk, DeskError, Filter, Listing, QueueStatus, Schedule, Shown, SyncSummary};
use crate::shop_handle::{ReadError, RecordError, ShopHandle, Stopped};
use crate::upstream::refers_to_queued;

/// The queue of a running node. Clones are the same queue.
#[derive(Debug, Clone)]
pub struct Queue {
    shop: ShopHandle,
    desk: Arc<Desk>,
    turn: SyncTurn,
}

/// Why the queue does not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue can't be asked.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The business lets nobody record this now.
    #[error(transparent)]
    Offline(#[from] OfflineRefused),
    /// The operation itself can't be used.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// Nobody has heard of it on this device.
    #[error("there is no operation {0}: it may not have reached this device yet")]
    NotFound(String),
    /// The decision can't be used.
    #[error(transparent)]
    Choice(#[from] ChoiceRefused),
    /// The config can't be used.
    #[error(transparent)]
    Config(#[from] ConfigRefused),
    /// Nothing is sent any more.
    #[error("the carrier has stopped: see the node's log, and start it again")]
    CarrierGone,
    /// The system gives no randomness.
    #[error("the system gives no randomness ({0}): try again")]
    Randomness(#[from] getrandom::Error),
    /// A sync broke off.
    #[error("the sync broke off: {0}")]
    BrokeOff(String),
}

/// Where operations go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To a relay: the shop has no server of its own.
    Relay,
    /// To the shop's own server.
    Upstream,
}

/// How far operations have come: this device's, or on a relay everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// By [`QueueStatus`].
    pub by_status: [u64; 5],
    /// When one was last synced.
    pub last_sync: Option<Timestamp>,
    /// This device's entries of every kind that no relay has yet.
    pub relay_pending: u64,
    /// Where they go.
    pub destination: Destination,
    /// What is waited for.
    pub schedule: Schedule,
}

/// What became of an operation so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryResult {
    /// Nothing was tried.
    Nothing,
    /// All that was tried did what it should.
    Success,
    /// Some of its calls did what they should, not all.
    Partial,
    /// None did.
    Failed,
}

/// An operation, and the calls for it.
#[derive(Debug, Clone)]
pub struct History {
    /// The operation.
    pub operation: Shown,
    /// What became of it.
    pub result: HistoryResult,
    /// The calls that this node made for it, the first one first; other devices' are with them.
    pub attempts: Vec<Attempt>,
}

/// The most calls of one operation that are shown.
const ATTEMPTS_MAX: usize = 1_000;

impl Queue {
    /// The queue of a running shop.
    #[must_use]
    pub fn new(shop: ShopHandle, desk: Arc<Desk>) -> Self {
        Self { shop, desk, turn: SyncTurn::default() }
    }

    /// Where its rows are kept.
    #[must_use]
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// Queues an operation of the app's own; it is durable when this answers. The same source
    /// again adds nothing. What the shop itself records (sales, expenses, …) is queued by being
    /// recorded.
    ///
    /// # Errors
    /// [`QueueError`]; nothing is recorded then.
    pub async fn add(&self, operation: Custom, user: Option<String>) -> Result<Acted, QueueError> {
        let fact = Fact::Custom(operation);
        fact.check()?;
        let operation = Operation { facts: vec![fact], user, ..Operation::default() };
        let plan = move |shop: &Shop| {
            // What is over the limit and taken all the same is a sale.
            rules::check_operation(shop, &operation)?;
            Ok::<_, QueueError>((operation, ()))
        };
        Ok(self.shop.record_planned(plan).await?.0)
    }

    /// The id that an operation of this source has: its idempotency key at the server.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn operation_id(&self, source: &Source) -> Result<RecordId, QueueError> {
        let business = self.shop.ask(Shop::business).await?;
        Ok(RecordId::from_client(business, &source.instance, &source.key))
    }

    /// Whether a request of this client names a record by an id that the client made up for
    /// something queued: only the queue knows what the server calls it.
    ///
    /// # Errors
    /// [`QueueError`].
    pub fn refers_to_queued(&self, source: &Source, path: &str, body: &Value) -> Result<bool, QueueError> {
        Ok(refers_to_queued(&self.desk, source, path, body)?)
    }

    /// Lists operations: with a server of the shop's own by status, and in each the oldest first;
    /// else the newest first.
    ///
    /// # Errors
    /// [`QueueError`]; `Ok(None)` for a cursor that is none of ours.
    pub async fn operations(
        &self,
        filter: &Filter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Option<Listing>, QueueError> {
        if self.desk.is_engaged().await? {
            return Ok(self.desk.list(filter, limit, cursor).await?);
        }
        Ok(by_relay::list(&self.shop, filter, limit, cursor).await?)
    }

    /// The operation that a name stands for: its record's id, its number in this device's journal,
    /// or the own id of the client `instance`.
    ///
    /// # Errors
    /// [`QueueError`]; [`QueueError::NotFound`] if there is none.
    pub async fn find(&self, instance: &str, name: &str) -> Result<Shown, QueueError> {
        let missing = || QueueError::NotFound(name.chars().take(NAME_SHOWN_MAX).collect());
        let engaged = self.desk.is_engaged().await?;
        if engaged {
            self.desk.catch_up().await?;
        }
        let (own, business) = self.shop.ask(|shop| (shop.own_journal(), shop.business())).await?;
        let record = match (name.parse::<RecordId>(), name.parse::<u64>()) {
            (Ok(record), _) => record,
            (_, Ok(seq)) => {
                let place = Place { journal: own, seq };
                let entry = self.shop.entry(place)?.ok_or_else(missing)?;
                let body = entry.body().map_err(ReadError::from)?;
                body.record_id(business, place, 0).unwrap_or_else(|| RecordId::from_place(own, seq, 0))
            }
            _ => {
                let source =
                    Source { instance: instance.to_owned(), key: name.chars().take(SOURCE_BYTES_MAX).collect() };
                let named = self.desk.named(&source)?;
                named.unwrap_or_else(|| RecordId::from_client(business, &source.instance, &source.key))
            }
        };
        if engaged && let Some(shown) = self.desk.one(record).await?.filter(|shown| shown.status.is_some()) {
            return Ok(shown);
        }
        by_relay::one(&self.shop, record).await?.ok_or_else(missing)
    }

    /// An operation, and every call that was made for it.
    ///
    /// # Errors
    /// [`QueueError`]; [`QueueError::NotFound`] if there is no such operation.
    pub async fn history(&self, instance: &str, name: &str) -> Result<History, QueueError> {
        let operation = self.find(instance, name).await?;
        let attempts = attempts::of_operation(self.shop.reader().as_ref(), operation.id, ATTEMPTS_MAX);
        let attempts = attempts.map_err(ReadError::from)?;
        let good = attempts.iter().filter(|call| call.result == AttemptResult::Success).count();
        let synced = operation.status == Some(QueueStatus::Synced);
        let waits = matches!(operation.status, Some(QueueStatus::Pending | QueueStatus::Syncing) | None);
        let result = match (attempts.len(), good) {
            (0, _) if synced => HistoryResult::Success,
            (0, _) if waits => HistoryResult::Nothing,
            (_, 0) => HistoryResult::Failed,
            (all, good) if synced && all == good => HistoryResult::Success,
            (_, _) => HistoryResult::Partial,
        };
        Ok(History { operation, result, attempts })
    }

    /// How far operations have come, in constant time.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn status(&self) -> Result<QueueState, QueueError> {
        let asked = self.shop.ask(|shop| (shop.status(), relay_is_connected(shop), shop.upstream_relay().is_some()));
        let (status, connected, carried) = asked.await?;
        let carrier = self.desk.carrier();
        if carrier.is_none() && !carried {
            return Ok(by_relay::state(&status, connected));
        }
        let counters = self.desk.counters().await?;
        let explained = match carrier {
            Some(carrier) => carrier.explain().await,
            None => None,
        };
        let schedule = match explained {
            Some(schedule) => schedule,
            None if counters.of(QueueStatus::Pending) == 0 => Schedule::plain("idle", "nothing is due"),
            None if status.pending > 0 && !connected => Schedule::plain("relay", "there is no link to the relay"),
            None => Schedule::plain("carrier", "the relay has it, and sends it to the shop's server"),
        };
        Ok(QueueState {
            by_status: counters.by_status,
            last_sync: counters.last_sync_ms.map(Timestamp),
            relay_pending: status.pending,
            destination: Destination::Upstream,
            schedule,
        })
    }

    /// Sends everything that waits, now, and says what came of it. Whoever asks during a sync joins
    /// it. A till waits for its relay up to `wait`; a carrier until all was tried.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn sync(&self, wait: Duration) -> Result<SyncSummary, QueueError> {
        match self.desk.carrier() {
            Some(carrier) => {
                self.meet().await?;
                carrier.sync(None).await.ok_or(QueueError::CarrierGone)
            }
            None => self.turn.join(self, wait).await,
        }
    }

    /// Sends one operation now.
    ///
    /// # Errors
    /// [`QueueError`]; [`QueueError::NotFound`] if there is no such operation.
    pub async fn sync_one(&self, instance: &str, name: &str, wait: Duration) -> Result<SyncSummary, QueueError> {
        let found = self.find(instance, name).await?;
        match self.desk.carrier() {
            Some(carrier) => carrier.sync(Some(found.id)).await.ok_or(QueueError::CarrierGone),
            None => super::relay_sync::one(self, &found, wait).await,
        }
    }

    /// Tries failed operations again: one, or all. Gives how many.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn retry(&self, only: Option<RecordId>) -> Result<u64, QueueError> {
        if !self.desk.is_engaged().await? {
            return Ok(0);
        }
        Ok(self.desk.retry(only).await?)
    }

    /// Takes away the rows of operations that were synced and recorded so long ago. The journals
    /// keep everything, and what is not synced stays. Gives how many went.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn clear_synced(&self, older_than: Duration) -> Result<u64, QueueError> {
        if !self.desk.is_engaged().await? {
            return Ok(0);
        }
        let age = u64::try_from(older_than.as_millis()).unwrap_or(u64::MAX);
        Ok(self.desk.clean_up(Timestamp(crate::clock::now().0.saturating_sub(age))).await?)
    }

    /// What an operation and the server hold against each other, if a person has to decide.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn conflict(&self, operation: RecordId) -> Result<Option<Opposed>, QueueError> {
        self.desk.catch_up().await?;
        Ok(self.desk.row(operation)?.and_then(|row| Opposed::of(operation, &row)))
    }

    /// Decides a conflict with the server. Every device learns of it, and of two decisions the
    /// later one counts everywhere, the server included.
    ///
    /// # Errors
    /// [`QueueError`]; nothing is recorded then.
    pub async fn resolve_conflict(&self, conflict: RecordId, decision: Decision) -> Result<Acted, QueueError> {
        let known = self.shop.ask(move |shop| shop.books().conflict(conflict).is_some()).await;
        if !known? {
            return Err(QueueError::NotFound(conflict.to_string()));
        }
        let facts = vec![decision.about(conflict)?];
        let acted = self.shop.record(Operation { facts, ..Operation::default() }).await?;
        Ok(acted)
    }

    /// How the business wants its queue.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn config(&self) -> Result<QueueConfig, QueueError> {
        Ok(self.shop.ask(Shop::queue_config).await?)
    }

    /// Changes fields of that on all devices of the business; `None` gives a field its default
    /// again.
    ///
    /// # Errors
    /// [`QueueError::Config`] with every field that can't be used; nothing is changed then.
    pub async fn update_config(&self, changes: settings::Changes) -> Result<Acted, QueueError> {
        let edits = settings::edits(changes)?;
        let acted = self.shop.record(Operation { edits, ..Operation::default() }).await?;
        self.desk.learn_rules().await?;
        if let Some(carrier) = self.desk.carrier() {
            carrier.look();
        }
        Ok(acted)
    }

    /// Whether operations can be delivered now, as far as this node knows: the carrier has not
    /// found the server away; without a carrier there is a link to the relay, or the shop has none.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn is_online(&self) -> Result<bool, QueueError> {
        if let Some(carrier) = self.desk.carrier() {
            let explained = carrier.explain().await.ok_or(QueueError::CarrierGone)?;
            return Ok(!matches!(explained.waits_for, "server_away" | "not_let_in"));
        }
        let asked = self.shop.ask(|shop| !rules::has_relay(shop) || relay_is_connected(shop));
        Ok(asked.await?)
    }

    /// Whether an operation of a type may be recorded by somebody who is offline.
    ///
    /// # Errors
    /// [`QueueError::Offline`] says why not.
    pub async fn may_record_offline(&self, operation_type: &str) -> Result<(), QueueError> {
        let waiting = match self.desk.is_engaged().await? {
            true => {
                let counters = self.desk.counters().await?;
                counters.of(QueueStatus::Pending) + counters.of(QueueStatus::Syncing)
            }
            false => self.shop.ask(|shop| shop.status().pending).await?,
        };
        let config = self.config().await?;
        Ok(rules::judge(&config, operation_type, operation_type == "sale", false, waiting).map(drop)?)
    }

    /// Looks for peers and syncs with them now, rather than when it is due.
    pub(super) async fn meet(&self) -> Result<(), DeskError> {
        for input in [crdt_model::shop::Input::Tick, crdt_model::shop::Input::AskHoldings] {
            self.shop.input(input).await?;
        }
        Ok(())
    }

    pub(super) fn shop(&self) -> &ShopHandle {
        &self.shop
    }
}

impl From<RecordError> for QueueError {
    fn from(error: RecordError) -> Self {
        Self::Desk(error.into())
    }
}

impl From<Stopped> for QueueError {
    fn from(stopped: Stopped) -> Self {
        Self::Desk(stopped.into())
    }
}

impl From<ReadError> for QueueError {
    fn from(error: ReadError) -> Self {
        Self::Desk(error.into())
    }
}

impl QueueState {
    /// How many are in a status.
    #[must_use]
    pub fn of(&self, status: QueueStatus) -> u64 {
        self.by_status.get(status as usize).copied().unwrap_or_default()
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_status.iter().sum()
    }
}

impl HistoryResult {
    /// In the API's words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

/// A name that a caller made up may be of any length.
const NAME_SHOWN_MAX: usize = 128;
