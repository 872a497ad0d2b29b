//! Where the queue is asked and changed: it catches up with the journals first, so that an answer
//! costs what is new. The only writer of the queue's rows.

mod catching_up;
mod numbers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crdt_model::ids::{BusinessId, DeviceId, JournalId, RecordId};
use crdt_model::record::{DeliveryState, DeliveryWish, Fact, Source, UpstreamFact};
use crdt_model::shop::{Operation, Shop};
use crdt_model::time::{Hlc, Timestamp};
use tokio::sync::Mutex as Turn;

use super::alerts::{AlertCounts, Bell};
use super::projection::{Batch, Counters, ENTRIES_MAX, Finished, Mapping, Scope, put, read_row, remove};
use super::row::{OpRow, QueueStatus};
use super::rules::Offline;
use super::stretches::StretchLog;
use super::sync::Carrying;
use super::{keys, mappings, operation};
use crate::shop_handle::{ReadError, RecordError, ShopHandle, Stopped};
use crate::storage::{Keys, ReadLimits, RowWrite, Rows, StorageError};

/// Where the queue is asked and changed.
#[derive(Debug)]
pub struct Desk {
    shop: ShopHandle,
    turn: Turn<Option<Known>>,
    offline: Offline,
    carrier: Mutex<Option<Carrying>>,
    network: Mutex<Option<String>>,
    /// The app said that this device is offline.
    offline_said: AtomicBool,
    /// What changed since the carrier last looked; kept only while one does.
    changed: Mutex<Option<BTreeSet<RecordId>>>,
    bell: Bell,
    /// Alerts that were raised and are not in the stored counters yet.
    raised: Mutex<AlertCounts>,
    stretches: Mutex<StretchLog>,
    /// The carrier leaves the shop's own server alone for a while.
    server_away: AtomicBool,
}

/// What is kept at hand of the stored rows.
#[derive(Debug, Clone, Default)]
struct Known {
    counters: Counters,
    /// How far each journal was read.
    read: BTreeMap<JournalId, u64>,
    /// What never changes while the node runs.
    whose: Option<(BusinessId, Scope)>,
}

/// Why the queue can't be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeskError {
    /// The node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Something stored can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something can't be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<StorageError> for DeskError {
    fn from(error: StorageError) -> Self {
        Self::Read(error.into())
    }
}

/// A change of a row.
pub(crate) type RowChange = Box<dyn FnOnce(&mut OpRow) + Send>;

/// Which operations are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these statuses, in this order; all if empty.
    pub statuses: Vec<QueueStatus>,
    /// Of this type.
    pub operation_type: Option<String>,
    /// Recorded on this device.
    pub device: Option<DeviceId>,
}

/// A page of operations.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The operations: by status, and in each the oldest first.
    pub items: Vec<Shown>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// An operation with its row.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The operation.
    pub id: RecordId,
    /// Where it stands; `None` while only others speak of it.
    pub status: Option<QueueStatus>,
    /// Its row; where only a relay is to have it, just what was recorded.
    pub row: OpRow,
    /// Its fact, where there is one.
    pub fact: Option<Fact>,
}

/// The most rows that one page looks at.
const LOOKS_MAX: usize = 5_000;

impl Desk {
    /// The queue of a running shop.
    #[must_use]
    pub fn new(shop: ShopHandle) -> Self {
        Self {
            shop,
            turn: Turn::new(None),
            offline: Offline::default(),
            carrier: Mutex::new(None),
            network: Mutex::new(None),
            offline_said: AtomicBool::new(false),
            changed: Mutex::new(None),
            bell: Bell::default(),
            raised: Mutex::new(AlertCounts::default()),
            stretches: Mutex::new(StretchLog::default()),
            server_away: AtomicBool::new(false),
        }
    }

    /// What may be recorded offline.
    #[must_use]
    pub fn offline(&self) -> &Offline {
        &self.offline
    }

    /// Learns the business's rules again.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn learn_rules(&self) -> Result<(), Stopped> {
        self.offline.learn(self.shop.ask(Shop::queue_config).await?);
        Ok(())
    }

    /// The carrier that runs on this node, if one does.
    #[must_use]
    pub fn carrier(&self) -> Option<Carrying> {
        self.carrier.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a carrier known, or takes it away.
    pub fn set_carrier(&self, carrier: Option<Carrying>) {
        if carrier.is_none() {
            self.server_away.store(false, Ordering::Relaxed);
            *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        *self.carrier.lock().unwrap_or_else(PoisonError::into_inner) = carrier;
    }

    /// The network that this device is on, as its app last said.
    #[must_use]
    pub fn network_type(&self) -> Option<String> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The app says which network this device is on. Another one than before may lead to the
    /// server, so what only the network kept back is tried.
    pub fn hear_network(&self, network_type: &str) {
        let named: String = network_type.chars().take(NETWORK_CHARS_MAX).collect();
        let mut heard = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.as_ref() != Some(&named) {
            *heard = Some(named);
            drop(heard);
            self.network_is_back();
        }
    }

    /// The app says whether this device is online. Once it is again, what only the network kept
    /// back is tried.
    pub fn hear_online(&self, online: bool) {
        let was_offline = self.offline_said.swap(!online, Ordering::Relaxed);
        if online && was_offline {
            self.network_is_back();
        }
    }

    /// Somebody has noticed that there is a network again.
    pub fn network_is_back(&self) {
        if let Some(carrier) = self.carrier() {
            carrier.network_is_back();
        }
    }

    /// Whether operations of this node go to the shop's own server.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn is_engaged(&self) -> Result<bool, Stopped> {
        if self.carrier().is_some() {
            return Ok(true);
        }
        self.shop.ask(|shop| shop.upstream_relay().is_some()).await
    }

    /// Reads what is new in the journals.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn catch_up(&self) -> Result<(), DeskError> {
        let mut turn = self.turn.lock().await;
        self.caught_up(&mut turn).await.map(drop)
    }

    /// From now on keeps which operations change, whoever it was that caught up.
    pub(crate) fn watch(&self) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }

    /// Reads what is new in the journals; gives the operations that changed since this was last
    /// asked.
    pub(crate) async fn changed(&self) -> Result<BTreeSet<RecordId>, DeskError> {
        self.catch_up().await?;
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(changed.as_mut().map(std::mem::take).unwrap_or_default())
    }

    /// How many operations there are in each status.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn counters(&self) -> Result<Counters, DeskError> {
        let mut turn = self.turn.lock().await;
        Ok(self.caught_up(&mut turn).await?.counters)
    }

    /// Changes rows as the carrier knows them, and writes others in the same commit.
    ///
    /// # Errors
    /// [`DeskError`].
    pub(crate) async fn change(
        &self,
        changes: Vec<(RecordId, RowChange)>,
        more: Vec<RowWrite>,
    ) -> Result<(), DeskError> {
        self.change_as(changes, more, true).await
    }

    /// Changes rows in ways that others rows tell too: durable with whatever is made durable next.
    ///
    /// # Errors
    /// [`DeskError`].
    pub(crate) async fn change_derived(&self, changes: Vec<(RecordId, RowChange)>) -> Result<(), DeskError> {
        self.change_as(changes, Vec::new(), false).await
    }

    async fn change_as(
        &self,
        changes: Vec<(RecordId, RowChange)>,
        more: Vec<RowWrite>,
        durable: bool,
    ) -> Result<(), DeskError> {
        let mut turn = self.turn.lock().await;
        if turn.as_ref().is_none_or(|known| known.whose.is_none()) {
            self.caught_up(&mut turn).await?;
        }
        let Some(known) = turn.as_mut() else { return Ok(()) };
        let Some((business, scope)) = known.whose else { return Ok(()) };
        let mut batch = Batch::new(Arc::clone(self.shop.reader()), business, scope);
        for (id, change) in changes {
            batch.change(id, change)?;
        }
        let mut counters = known.counters.clone();
        let Finished { mut writes, alerts, .. } = batch.finish(&mut counters);
        alerts.iter().for_each(|alert| alert.kind.count(&mut counters.alerts));
        writes.extend(more);
        writes.push(counters_row(&counters));
        match durable {
            true => self.shop.write_rows(writes).await?,
            false => self.shop.write_derived_rows(writes).await?,
        }
        known.counters = counters;
        alerts.into_iter().for_each(|alert| self.bell.ring(alert));
        Ok(())
    }

    /// One operation's row.
    ///
    /// # Errors
    /// [`DeskError`].
    pub(crate) fn row(&self, id: RecordId) -> Result<Option<OpRow>, DeskError> {
        Ok(read_row(self.shop.reader().as_ref(), id)?)
    }

    /// One operation.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn one(&self, id: RecordId) -> Result<Option<Shown>, DeskError> {
        self.look_up(id)
    }

    pub(crate) fn look_up(&self, id: RecordId) -> Result<Option<Shown>, DeskError> {
        let Some(row) = read_row(self.shop.reader().as_ref(), id)? else { return Ok(None) };
        Ok(Some(self.shown(id, row)?))
    }

    /// The operation of a client's own id.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn named(&self, source: &Source) -> Result<Option<RecordId>, DeskError> {
        let row = self.shop.reader().row(Rows::Queue, &keys::temporary_of(source))?;
        Ok(row.and_then(|value| keys::id_of(&value)))
    }

    /// What the server calls a record.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn mapping(&self, id: RecordId) -> Result<Option<Mapping>, DeskError> {
        Ok(mappings::mapping(self.shop.reader().as_ref(), id)?)
    }

    /// A page of operations.
    ///
    /// # Errors
    /// [`DeskError`]; `Ok(None)` for a cursor that is none of ours.
    pub async fn list(
        &self,
        filter: &Filter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Option<Listing>, DeskError> {
        self.catch_up().await?;
        let statuses = if filter.statuses.is_empty() { QueueStatus::ALL.to_vec() } else { filter.statuses.clone() };
        let after = match cursor.map(parse_cursor) {
            Some(None) => return Ok(None),
            Some(Some(after)) => Some(after),
            None => None,
        };
        let begun = after.and_then(|(status, ..)| statuses.iter().position(|other| *other == status));
        let mut listing = Listing::default();
        let mut looks = 0;
        for status in statuses.into_iter().skip(begun.unwrap_or_default()) {
            let mut behind = after.filter(|(at, ..)| *at == status).map(|(_, time, id)| keys::listed(status, time, id));
            loop {
                let prefix = keys::listed_prefix(status);
                let limits = ReadLimits { entries_max: 256, bytes_max: usize::MAX };
                let selected = Keys { prefix: &prefix, after: behind.as_deref() };
                let page = self.shop.reader().rows(Rows::Queue, selected, limits)?;
                for row in &page.rows {
                    let Some((time, id)) = keys::listed_at(&row.key) else { continue };
                    if listing.items.len() == limit || looks == LOOKS_MAX {
                        listing.next = Some(written_before(&listing, behind.as_deref(), status));
                        return Ok(Some(listing));
                    }
                    looks += 1;
                    behind = Some(keys::listed(status, time, id));
                    let Some(stored) = read_row(self.shop.reader().as_ref(), id)? else { continue };
                    if filter.admits(&stored) {
                        listing.items.push(self.shown(id, stored)?);
                    }
                }
                if !page.more {
                    break;
                }
            }
        }
        Ok(Some(listing))
    }

    /// Operations of a status, the oldest first, without their facts.
    pub(crate) fn in_status(&self, status: QueueStatus, count_max: usize) -> Result<Vec<(RecordId, OpRow)>, DeskError> {
        let limits = ReadLimits { entries_max: count_max, bytes_max: usize::MAX };
        let prefix = keys::listed_prefix(status);
        let page = self.shop.reader().rows(Rows::Queue, Keys { prefix: &prefix, after: None }, limits)?;
        let mut found = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            let Some((_, id)) = keys::listed_at(&row.key) else { continue };
            found.extend(read_row(self.shop.reader().as_ref(), id)?.map(|row| (id, row)));
        }
        Ok(found)
    }

    /// Asks for failed operations to be tried again: some, or all. Gives how many there were.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn retry(&self, only: Option<RecordId>) -> Result<u64, DeskError> {
        self.catch_up().await?;
        let failed = match only {
            Some(id) => read_row(self.shop.reader().as_ref(), id)?.map(|row| (id, row)).into_iter().collect(),
            None => self.in_status(QueueStatus::Failed, RETRIES_MAX)?,
        };
        let failed = failed.iter().filter(|(_, row)| row.status() == Some(QueueStatus::Failed));
        let wishes: Vec<Fact> = failed
            .filter_map(|(id, row)| {
                let (ordinal, _, outcome) = row.outcome.as_ref()?;
                let wish = DeliveryWish { operation: *id, after: *ordinal };
                (outcome.state == DeliveryState::Failed).then_some(Fact::Upstream(UpstreamFact::Wish(wish)))
            })
            .collect();
        let count = wishes.len() as u64;
        for some in wishes.chunks(WISHES_AN_ENTRY) {
            self.shop.record(Operation { facts: some.to_vec(), ..Operation::default() }).await?;
        }
        self.catch_up().await?;
        if let Some(carrier) = self.carrier() {
            carrier.look();
        }
        Ok(count)
    }

    /// Forgets what the server calls records that it last spoke of before a time, and whose rows
    /// are gone. Gives how many rows went.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn forget_mappings(&self, before: Timestamp) -> Result<u64, DeskError> {
        let _turn = self.turn.lock().await;
        let (mut at, mut gone) = (mappings::Sweep::default(), 0);
        while !at.done {
            let deletes = mappings::sweep(self.shop.reader().as_ref(), Hlc::from_wall(before), &mut at)?;
            gone += deletes.len() as u64;
            if !deletes.is_empty() {
                self.shop.write_derived_rows(deletes).await?;
            }
        }
        Ok(gone)
    }

    /// Takes away the rows of operations that were synced, and recorded before a time. What is not
    /// synced stays, and so does what the server calls the records, for later operations that use
    /// the client's own ids. Gives how many went.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn clean_up(&self, before: Timestamp) -> Result<u64, DeskError> {
        let mut turn = self.turn.lock().await;
        self.caught_up(&mut turn).await?;
        let Some(known) = turn.as_mut() else { return Ok(0) };
        let horizon = Hlc::from_wall(before);
        let mut gone = 0;
        loop {
            let synced = self.in_status(QueueStatus::Synced, ENTRIES_MAX)?;
            let old = |row: &OpRow| row.recorded.as_ref().is_some_and(|recorded| recorded.time < horizon);
            let some: Vec<_> = synced.iter().filter(|(_, row)| old(row)).collect();
            if some.is_empty() {
                break;
            }
            gone += some.len() as u64;
            let mut counters = known.counters.clone();
            counters.cleared_before = counters.cleared_before.max(horizon);
            let mut writes: Vec<RowWrite> = some.iter().flat_map(|(id, row)| remove(*id, row, &mut counters)).collect();
            writes.push(counters_row(&counters));
            self.shop.write_rows(writes).await?;
            known.counters = counters;
        }
        Ok(gone)
    }

    fn shown(&self, id: RecordId, row: OpRow) -> Result<Shown, DeskError> {
        let Some(recorded) = row.recorded.as_ref() else {
            return Ok(Shown { id, status: None, row, fact: None });
        };
        let index = usize::try_from(recorded.index).unwrap_or(usize::MAX);
        let entry = self.shop.entry(recorded.place)?;
        let body = entry.map(|entry| entry.body()).transpose().map_err(ReadError::from)?;
        let fact = body.and_then(|body| body.facts.into_iter().nth(index));
        Ok(Shown { id, status: row.status(), row, fact })
    }
}

impl Filter {
    fn admits(&self, row: &OpRow) -> bool {
        let Some(recorded) = &row.recorded else { return false };
        self.operation_type.as_ref().is_none_or(|kind| *kind == recorded.operation_type)
            && self.device.is_none_or(|device| device == recorded.device)
    }
}

impl Shown {
    /// The operation as a server hears of it.
    #[must_use]
    pub fn described(&self) -> Option<operation::Described> {
        operation::describe(self.fact.as_ref()?, self.id)
    }
}

/// The cursor behind what was looked at last.
fn written_before(listing: &Listing, behind: Option<&[u8]>, status: QueueStatus) -> String {
    let at = behind.and_then(keys::listed_at);
    let last =
        listing.items.last().and_then(|shown| Some((shown.row.status()?, shown.row.recorded.as_ref()?.time, shown.id)));
    let (status, time, id) = match (at, last) {
        (Some((time, id)), _) => (status, time, id),
        (None, Some(last)) => last,
        (None, None) => (status, Hlc(0), RecordId(uuid::Uuid::nil())),
    };
    format!("{}_{:x}_{id}", status.word(), time.0)
}

fn parse_cursor(cursor: &str) -> Option<(QueueStatus, Hlc, RecordId)> {
    let (status, rest) = cursor.split_once('_')?;
    let (time, id) = rest.split_once('_')?;
    Some((QueueStatus::parse(status)?, Hlc(u64::from_str_radix(time, 16).ok()?), id.parse().ok()?))
}

fn counters_row(counters: &Counters) -> RowWrite {
    put(keys::COUNTERS.to_vec(), minicbor::to_vec(counters).unwrap_or_default())
}

fn delete(key: Vec<u8>) -> RowWrite {
    RowWrite { rows: Rows::Queue, key, value: None }
}

const NETWORK_CHARS_MAX: usize = 32;
/// The most failed operations that one call tries again.
const RETRIES_MAX: usize = 10_000;
/// An entry holds 64 facts.
const WISHES_AN_ENTRY: usize = 48;
