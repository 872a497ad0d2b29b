//! From journals to rows: what is new behind the watermark becomes rows, lists and counters, a
//! batch at a time. Pure but for reading; whoever calls writes what comes out in one commit.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use crdt_model::books::Key;
use crdt_model::entry::{Body, Entry, Place};
use crdt_model::ids::{BusinessId, DeviceId, JournalId, RecordId};
use crdt_model::record::{DeliveryOutcome, DeliveryState, Fact, UpstreamFact};
use crdt_model::time::Hlc;
use minicbor::{Decode, Encode};

use super::alerts::{Alert, AlertCounts};
use super::fold::{Event, fold};
use super::row::{Decided, OpRow, QueueStatus, Recorded};
use super::{keys, operation};
use crate::shop_handle::ReadError;
use crate::storage::{ReadLimits, Reader, RowWrite, Rows};

/// How many entries go into one commit: it holds up the shop for about a millisecond.
pub(super) const ENTRIES_MAX: usize = 64;

/// How many operations there are, and what the rows were made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counters {
    /// By [`QueueStatus`].
    #[n(0)]
    pub by_status: [u64; 5],
    /// When an operation was last synced, in milliseconds since 1970 UTC.
    #[n(1)]
    pub last_sync_ms: Option<u64>,
    /// Synced operations from before were cleaned up, and don't come back.
    #[n(2)]
    pub cleared_before: Hlc,
    /// What the rows were made for; if it changes, they are made again.
    #[n(3)]
    pub made_for: String,
    /// How often each alert was raised, by [`AlertKind`](super::alerts::AlertKind).
    #[n(4)]
    pub alerts: AlertCounts,
}

impl Counters {
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

    fn moved(&mut self, from: Option<QueueStatus>, to: Option<QueueStatus>) {
        if let Some(count) = from.and_then(|status| self.by_status.get_mut(status as usize)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = to.and_then(|status| self.by_status.get_mut(status as usize)) {
            *count += 1;
        }
    }
}

/// What the server calls a record, and which version of it we saw last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Mapping {
    /// The server's own id.
    #[n(0)]
    pub server_id: Option<String>,
    /// The tag of its version.
    #[n(1)]
    pub tag: Option<String>,
    /// The server has it.
    #[n(2)]
    pub synced: bool,
    /// When that was said.
    #[n(3)]
    pub time: Hlc,
}

/// Entries of a journal as they are stored: many at once, because those that came as one run are
/// unpacked together.
pub(super) fn stored(
    reader: &dyn Reader,
    journal: JournalId,
    seqs: RangeInclusive<u64>,
) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let limits = ReadLimits { entries_max: READ_MAX, bytes_max: READ_BYTES_MAX };
    let mut entries = Vec::new();
    let end = reader.entries(journal, seqs, limits, &mut |seq, bytes| {
        entries.push((seq, bytes.to_vec()));
        ControlFlow::Continue(())
    })?;
    tracing::trace!(%journal, ?end, count = entries.len(), "read for the queue");
    Ok(entries)
}

const READ_MAX: usize = 1_024;
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Whose operations are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// This device's own.
    Own(DeviceId),
    /// Everybody's.
    Everybody,
}

/// Rows being changed, on top of what is stored.
pub(super) struct Batch {
    reader: Arc<dyn Reader>,
    business: BusinessId,
    scope: Scope,
    rows: BTreeMap<RecordId, (Option<OpRow>, OpRow)>,
    named: BTreeMap<Vec<u8>, RecordId>,
    writes: Vec<RowWrite>,
}

impl Batch {
    pub(super) fn new(reader: Arc<dyn Reader>, business: BusinessId, scope: Scope) -> Self {
        Self { reader, business, scope, rows: BTreeMap::new(), named: BTreeMap::new(), writes: Vec::new() }
    }

    /// Takes in entries of a journal, as they are stored.
    pub(super) fn read(
        &mut self,
        journal: JournalId,
        device: DeviceId,
        entries: &[(u64, Vec<u8>)],
        skip: &dyn Fn(u64) -> bool,
    ) -> Result<(), ReadError> {
        for (seq, bytes) in entries.iter().filter(|(seq, _)| !skip(*seq)) {
            let entry = Entry::from_bytes(bytes)?;
            let body = entry.body()?;
            self.take(Place { journal, seq: *seq }, device, &entry, &body)?;
        }
        Ok(())
    }

    fn take(&mut self, place: Place, device: DeviceId, entry: &Entry, body: &Body) -> Result<(), ReadError> {
        let carried_by_own = body.facts.iter().any(|fact| matches!(fact, Fact::Upstream(UpstreamFact::Carried)));
        for (index, fact) in (0..).zip(&body.facts) {
            let key = Key { time: entry.time, journal: place.journal, seq: place.seq, index };
            if let Fact::Upstream(fact) = fact {
                self.heard(key, fact)?;
            } else if let Fact::Resolution(resolution) = fact {
                let (choice, fields) = (resolution.choice.clone(), resolution.fields.clone());
                self.decided(resolution.conflict, Decided { ordinal: 0, key, choice, fields })?;
            } else if fact.is_for_upstream() {
                let id = fact.record_id(self.business, place.journal, place.seq, index);
                self.recorded(id, key, device, entry, fact, carried_by_own)?;
            }
        }
        Ok(())
    }

    fn recorded(
        &mut self,
        id: RecordId,
        key: Key,
        device: DeviceId,
        entry: &Entry,
        fact: &Fact,
        carried_by_own: bool,
    ) -> Result<(), ReadError> {
        if matches!(self.scope, Scope::Own(own) if own != device) {
            return Ok(());
        }
        let source = fact.source().cloned();
        let described = operation::describe(fact, id);
        let mut failed = None;
        let lane = operation::lane(fact, id, self.business, |word| {
            let named = self.named(&source.as_ref()?.instance, word).unwrap_or_else(|error| {
                failed = Some(error);
                None
            });
            // Or it is a record's own id.
            named.or_else(|| word.parse().ok())
        });
        failed.map_or(Ok(()), Err)?;
        let priority = if let Fact::Custom(custom) = fact { custom.priority } else { None };
        let recorded = Recorded {
            place: key.place(),
            index: key.index,
            time: key.time,
            device,
            user: entry.user.clone(),
            operation_type: described.map(|described| described.operation_type).unwrap_or_default(),
            source: source.clone(),
            carried_by_own,
            priority,
            lane,
        };
        if let Some(source) = &source {
            let key = keys::temporary_of(source);
            self.writes.push(put(key.clone(), id.0.as_bytes().to_vec()));
            self.named.insert(key, id);
        }
        self.fold(id, Event::Recorded(Box::new(recorded)))?;
        Ok(())
    }

    fn heard(&mut self, key: Key, fact: &UpstreamFact) -> Result<(), ReadError> {
        match fact {
            UpstreamFact::Outcome(outcome) => {
                self.fold(outcome.operation, Event::Outcome(key, Box::new(outcome.clone())))?;
                if outcome.state == DeliveryState::Conflict {
                    let conflict = DeliveryOutcome::conflict_id(outcome.operation, outcome.ordinal);
                    let mut value = outcome.operation.0.as_bytes().to_vec();
                    value.extend(outcome.ordinal.to_be_bytes());
                    self.writes.push(put(keys::conflict(conflict), value));
                    let waiting = self.fresh_or_stored(&keys::decision(conflict))?;
                    if let Some(decided) = waiting.and_then(|value| minicbor::decode::<Decided>(&value).ok()) {
                        let decided = Decided { ordinal: outcome.ordinal, ..decided };
                        self.fold(outcome.operation, Event::Decided(decided))?;
                    }
                }
                self.map(key, outcome)
            }
            UpstreamFact::Wish(wish) => self.fold(wish.operation, Event::Wish(wish.after)),
            UpstreamFact::Carried | UpstreamFact::Anchor(_) => Ok(()),
        }
    }

    /// What the server calls it, and which version it is in now.
    fn map(&mut self, key: Key, outcome: &DeliveryOutcome) -> Result<(), ReadError> {
        if outcome.state != DeliveryState::Synced {
            return Ok(());
        }
        let row = self.row(outcome.operation)?;
        let lane = row.recorded.as_ref().map_or(outcome.operation, |recorded| recorded.lane);
        for id in [outcome.operation, lane] {
            let stored = self.reader.row(Rows::Queue, &keys::mapping(id))?;
            let mut mapping: Mapping = stored.and_then(|bytes| minicbor::decode(&bytes).ok()).unwrap_or_default();
            if mapping.time > key.time {
                continue;
            }
            mapping.synced = true;
            mapping.time = key.time;
            if id == outcome.operation && outcome.server_id.is_some() {
                mapping.server_id.clone_from(&outcome.server_id);
            }
            mapping.tag.clone_from(&outcome.server_tag);
            self.writes.push(put(keys::mapping(id), minicbor::to_vec(&mapping).unwrap_or_default()));
        }
        Ok(())
    }

    /// Changes a row as the carrier knows it.
    pub(super) fn change(&mut self, id: RecordId, change: impl FnOnce(&mut OpRow)) -> Result<(), ReadError> {
        self.row(id)?;
        if let Some((_, row)) = self.rows.get_mut(&id) {
            change(row);
        }
        Ok(())
    }

    fn fold(&mut self, id: RecordId, event: Event) -> Result<(), ReadError> {
        self.change(id, |row| fold(row, event))
    }

    pub(super) fn row(&mut self, id: RecordId) -> Result<OpRow, ReadError> {
        if let Some((_, row)) = self.rows.get(&id) {
            return Ok(row.clone());
        }
        let stored = read_row(self.reader.as_ref(), id)?;
        let row = stored.clone().unwrap_or_default();
        self.rows.insert(id, (stored, row.clone()));
        Ok(row)
    }

    fn named(&self, instance: &str, word: &str) -> Result<Option<RecordId>, ReadError> {
        let key = keys::temporary(instance, word);
        if let Some(id) = self.named.get(&key) {
            return Ok(Some(*id));
        }
        Ok(self.reader.row(Rows::Queue, &key)?.and_then(|value| keys::id_of(&value)))
    }

    /// A decision may arrive before the conflict that it is about, and then waits for it.
    fn decided(&mut self, conflict: RecordId, decided: Decided) -> Result<(), ReadError> {
        let known = self.fresh_or_stored(&keys::conflict(conflict))?.and_then(|value| conflict_row(&value));
        if let Some((operation, ordinal)) = known {
            return self.fold(operation, Event::Decided(Decided { ordinal, ..decided }));
        }
        let key = keys::decision(conflict);
        let before: Option<Decided> = self.fresh_or_stored(&key)?.and_then(|value| minicbor::decode(&value).ok());
        if before.is_none_or(|before| before.key < decided.key) {
            self.writes.push(put(key, minicbor::to_vec(&decided).unwrap_or_default()));
        }
        Ok(())
    }

    fn fresh_or_stored(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(write) = self.writes.iter().rev().find(|write| write.key == key) {
            return Ok(write.value.clone());
        }
        Ok(self.reader.row(Rows::Queue, key)?)
    }

    /// Operations that only others speak of so far, and that nothing is stored of.
    pub(super) fn strangers(&self) -> Vec<RecordId> {
        let unknown = self.rows.iter().filter(|(_, (before, row))| before.is_none() && row.recorded.is_none());
        unknown.map(|(id, _)| *id).collect()
    }

    /// Drops operations that are none of this queue's.
    pub(super) fn forget(&mut self, ids: &[RecordId]) {
        ids.iter().for_each(|id| drop(self.rows.remove(id)));
    }

    /// What follows from the batch. The counters follow.
    pub(super) fn finish(self, counters: &mut Counters) -> Finished {
        let mut finished = Finished { writes: self.writes, ..Finished::default() };
        for (id, (before, after)) in self.rows {
            if before.as_ref() == Some(&after) || after == OpRow::default() {
                continue;
            }
            if is_cleared(&after, counters.cleared_before) && before.is_none() {
                continue;
            }
            finished.touched.push(id);
            let from = before.as_ref().and_then(OpRow::status);
            finished.alerts.extend(Alert::of_status(id, from, after.status()));
            list(id, before.as_ref(), &after, counters, &mut finished.writes);
            finished.writes.push(put(keys::operation(id), minicbor::to_vec(&after).unwrap_or_default()));
        }
        finished
    }
}

/// What follows from a batch.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// What is to be written.
    pub(super) writes: Vec<RowWrite>,
    /// Operations that changed.
    pub(super) touched: Vec<RecordId>,
    /// What people should know.
    pub(super) alerts: Vec<Alert>,
}

/// The operation that a conflict is about, and which of its outcomes.
pub(super) fn conflict_row(value: &[u8]) -> Option<(RecordId, u32)> {
    let (id, ordinal) = value.split_at_checked(16)?;
    Some((keys::id_of(id)?, u32::from_be_bytes(ordinal.try_into().ok()?)))
}

fn is_cleared(row: &OpRow, cleared_before: Hlc) -> bool {
    row.status() == Some(QueueStatus::Synced)
        && row.recorded.as_ref().is_some_and(|recorded| recorded.time < cleared_before)
}

/// Moves an operation between the lists of statuses.
fn list(id: RecordId, before: Option<&OpRow>, after: &OpRow, counters: &mut Counters, writes: &mut Vec<RowWrite>) {
    let place = |row: &OpRow| Some((row.status()?, row.recorded.as_ref()?.time));
    let (from, to) = (before.and_then(place), place(after));
    if let Some((_, _, outcome)) = after.outcome.as_ref().filter(|(.., outcome)| outcome.state == DeliveryState::Synced)
        && let Some((_, key, _)) = &after.outcome
    {
        tracing::trace!(operation = %outcome.operation, "synced");
        counters.last_sync_ms = counters.last_sync_ms.max(Some(key.time.wall().0));
    }
    if from == to {
        return;
    }
    if let Some((status, time)) = from {
        writes.push(RowWrite { rows: Rows::Queue, key: keys::listed(status, time, id), value: None });
    }
    if let Some((status, time)) = to {
        writes.push(put(keys::listed(status, time, id), Vec::new()));
    }
    counters.moved(from.map(|(status, _)| status), to.map(|(status, _)| status));
}

/// Takes a synced operation's row away.
pub(super) fn remove(id: RecordId, row: &OpRow, counters: &mut Counters) -> Vec<RowWrite> {
    let Some((recorded, status)) = row.recorded.as_ref().zip(row.status()) else { return Vec::new() };
    counters.moved(Some(status), None);
    let delete = |key| RowWrite { rows: Rows::Queue, key, value: None };
    vec![delete(keys::operation(id)), delete(keys::listed(status, recorded.time, id))]
}

pub(super) fn read_row(reader: &dyn Reader, id: RecordId) -> Result<Option<OpRow>, ReadError> {
    let stored = reader.row(Rows::Queue, &keys::operation(id))?;
    Ok(stored.and_then(|bytes| minicbor::decode(&bytes).ok()))
}

pub(super) fn put(key: Vec<u8>, value: Vec<u8>) -> RowWrite {
    RowWrite { rows: Rows::Queue, key, value: Some(value) }
}
