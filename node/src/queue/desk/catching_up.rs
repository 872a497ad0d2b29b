//! Catching up: what is new in the journals behind each watermark becomes rows, a batch at a time;
//! rows that were made for another shape of the shop are made anew.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use crdt_model::entry::Place;
use crdt_model::ids::{BusinessId, DeviceId, JournalId, RecordId};
use crdt_model::record::Role;

use super::super::projection::{Batch, Counters, ENTRIES_MAX, Finished, Scope, put, stored};
use super::{Desk, DeskError, Known, counters_row, delete, keys};
use crate::shop_handle::Stopped;
use crate::storage::{Keys, ReadLimits, RowWrite, Rows};

struct View {
    business: BusinessId,
    scope: Scope,
    made_for: String,
    journals: Vec<Journal>,
    quarantined: BTreeSet<Place>,
}

struct Journal {
    id: JournalId,
    device: DeviceId,
    from: u64,
    applied: u64,
}

impl Desk {
    async fn view(&self) -> Result<View, Stopped> {
        let view = self.shop.ask(|shop| {
            let device = shop.device();
            let relay = shop.certificate().role == Role::Relay;
            let mut journals: Vec<Journal> = shop
                .journals()
                .map(|journal| Journal {
                    id: journal.id(),
                    device: journal.info.device(),
                    from: journal.info.before_first().0.max(journal.base).saturating_add(1),
                    applied: journal.applied,
                })
                .collect();
            // Own operations come before what others say of them.
            journals.sort_by_key(|journal| (journal.device != device, journal.id));
            let forks = shop.journals().filter(|journal| journal.info.fork.is_some()).count();
            View {
                business: shop.business(),
                scope: if relay { Scope::Everybody } else { Scope::Own(device) },
                made_for: format!("layout 3, relay {relay}, forks {forks}"),
                journals,
                quarantined: shop.quarantine().map(|one| one.place).collect(),
            }
        });
        view.await
    }

    pub(super) async fn caught_up(&self, turn: &mut Option<Known>) -> Result<Known, DeskError> {
        self.known(turn)?;
        let view = self.view().await?;
        let known = turn.get_or_insert_default();
        known.whose = Some((view.business, view.scope));
        // What is only made again is nothing new to tell.
        let anew = known.counters.made_for != view.made_for;
        if anew {
            self.begin_anew(known, &view.made_for).await?;
        }
        for journal in &view.journals {
            self.read(known, &view, journal, anew).await?;
        }
        Ok(known.clone())
    }

    async fn read(&self, known: &mut Known, view: &View, journal: &Journal, quiet: bool) -> Result<(), DeskError> {
        loop {
            let read = known.read.get(&journal.id).copied().unwrap_or_default();
            let from = read.saturating_add(1).max(journal.from);
            if from > journal.applied {
                return Ok(());
            }
            let entries = stored(self.shop.reader().as_ref(), journal.id, from..=journal.applied)?;
            if entries.is_empty() {
                known.read.insert(journal.id, journal.applied);
                return Ok(());
            }
            for some in entries.chunks(ENTRIES_MAX) {
                self.take(known, view, journal, some, quiet).await?;
            }
        }
    }

    async fn take(
        &self,
        known: &mut Known,
        view: &View,
        journal: &Journal,
        entries: &[(u64, Vec<u8>)],
        quiet: bool,
    ) -> Result<(), DeskError> {
        let Some((last, _)) = entries.last() else { return Ok(()) };
        let skip = |seq| view.quarantined.contains(&Place { journal: journal.id, seq });
        let mut batch = Batch::new(Arc::clone(self.shop.reader()), view.business, view.scope);
        batch.read(journal.id, journal.device, entries, &skip)?;
        if let Scope::Own(own) = view.scope {
            let others = self.of_others(batch.strangers(), own).await?;
            batch.forget(&others);
        }
        let mut counters = known.counters.clone();
        let Finished { mut writes, touched, mut alerts } = batch.finish(&mut counters);
        if quiet {
            alerts.clear();
        }
        alerts.iter().for_each(|alert| alert.kind.count(&mut counters.alerts));
        writes.push(watermark_row(journal.id, *last));
        writes.push(counters_row(&counters));
        // They and the watermark go together, and can be made again.
        self.shop.write_derived_rows(writes).await?;
        known.counters = counters;
        known.read.insert(journal.id, *last);
        if let Some(changed) = self.changed.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            changed.extend(touched);
        }
        alerts.into_iter().for_each(|alert| self.bell.ring(alert));
        Ok(())
    }

    /// Which of these operations are other devices'.
    async fn of_others(&self, ids: Vec<RecordId>, own: DeviceId) -> Result<Vec<RecordId>, Stopped> {
        if ids.is_empty() {
            return Ok(ids);
        }
        let others = self.shop.ask(move |shop| {
            let is_other = |id: &RecordId| shop.books().record(*id).is_some_and(|at| at.device != own);
            ids.into_iter().filter(is_other).collect()
        });
        others.await
    }

    pub(super) fn load(&self) -> Result<Known, DeskError> {
        let reader = self.shop.reader();
        let counters = reader.row(Rows::Queue, keys::COUNTERS)?;
        let counters: Counters = counters.and_then(|bytes| minicbor::decode(&bytes).ok()).unwrap_or_default();
        let prefix = keys::watermark_prefix();
        let page = reader.rows(Rows::Queue, Keys { prefix: &prefix, after: None }, ReadLimits::NONE)?;
        let read = page
            .rows
            .iter()
            .filter_map(|row| Some((keys::watermark_journal(&row.key)?, minicbor::decode::<u64>(&row.value).ok()?)));
        Ok(Known { counters, read: read.collect(), whose: None })
    }

    /// Throws the rows away, to make them anew from the journals.
    async fn begin_anew(&self, known: &mut Known, made_for: &str) -> Result<(), DeskError> {
        loop {
            let limits = ReadLimits { entries_max: 1_024, bytes_max: usize::MAX };
            let page = self.shop.reader().rows(Rows::Queue, Keys::default(), limits)?;
            if page.rows.is_empty() {
                break;
            }
            self.shop.write_rows(page.rows.into_iter().map(|row| delete(row.key)).collect()).await?;
        }
        let counters = Counters {
            made_for: made_for.to_owned(),
            cleared_before: known.counters.cleared_before,
            alerts: known.counters.alerts,
            ..Counters::default()
        };
        self.shop.write_rows(vec![counters_row(&counters)]).await?;
        *known = Known { counters, whose: known.whose, ..Known::default() };
        Ok(())
    }
}

fn watermark_row(journal: JournalId, read: u64) -> RowWrite {
    put(keys::watermark(journal), minicbor::to_vec(read).unwrap_or_default())
}
