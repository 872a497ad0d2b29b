//! The queue of a shop without a server of its own: what no relay holds, straight from the
//! journals. No rows are kept for it.

use std::collections::BTreeMap;

use crdt_model::entry::Place;
use crdt_model::ids::{DeviceId, JournalId, RecordId};
use crdt_model::shop::{Shop, Status};

use super::handle::{Destination, QueueState};
use super::operation::{describe, kind_word};
use super::row::{OpRow, QueueStatus, Recorded};
use super::rules::relay_is_connected;
use super::{DeskError, Filter, Listing, Schedule, Shown};
use crate::shop_handle::{ReadError, ShopHandle};

/// The most entries that one page looks at for a type.
const LOOKS_MAX: usize = 2_000;

/// How far it has come.
pub(super) fn state(status: &Status, connected: bool) -> QueueState {
    let (pending, syncing) = if connected { (0, status.pending) } else { (status.pending, 0) };
    let schedule = match (status.pending, connected) {
        (0, _) => Schedule::plain("idle", "nothing is due"),
        (_, true) => Schedule::plain("sending", "a relay is connected"),
        (_, false) => Schedule::plain("relay", "there is no link to a relay"),
    };
    QueueState {
        by_status: [pending, syncing, status.synced, status.conflicts, status.failed],
        last_sync: status.last_sync,
        relay_pending: status.pending,
        destination: Destination::Relay,
        schedule,
    }
}

/// What no relay has: the latest epoch's first, and in each the latest first. `None` for a cursor
/// that is none of ours.
pub(super) async fn list(
    shop: &ShopHandle,
    filter: &Filter,
    limit: usize,
    cursor: Option<&str>,
) -> Result<Option<Listing>, DeskError> {
    let before = match cursor.map(parse_cursor) {
        Some(None) => return Ok(None),
        Some(Some(before)) => Some(before),
        None => None,
    };
    // A type is known only once the entry is read.
    let looks = if filter.operation_type.is_some() { LOOKS_MAX } else { limit };
    let asked = shop.ask(move |shop| (waiting(shop, before, looks + 1), relay_is_connected(shop), shop.device()));
    let (mut places, connected, own) = asked.await?;
    let status = if connected { QueueStatus::Syncing } else { QueueStatus::Pending };
    let listed = filter.statuses.is_empty() || filter.statuses.contains(&status);
    if !listed || filter.device.is_some_and(|device| device != own) {
        return Ok(Some(Listing::default()));
    }
    let more = places.len() > looks;
    places.truncate(looks);
    let mut next = places.last().filter(|_| more).map(|last| cursor_behind(*last));
    let mut items = read(shop, places, status).await?;
    if let Some(wanted) = &filter.operation_type {
        items.retain(|shown| shown.row.recorded.as_ref().is_some_and(|recorded| recorded.operation_type == *wanted));
        if items.len() > limit {
            items.truncate(limit);
            let last = items.last().and_then(|shown| shown.row.recorded.as_ref());
            next = last.map(|recorded| cursor_behind(recorded.place));
        }
    }
    Ok(Some(Listing { items, next }))
}

/// One operation.
pub(super) async fn one(shop: &ShopHandle, record: RecordId) -> Result<Option<Shown>, DeskError> {
    let at = shop.ask(move |shop| {
        let at = shop.books().record(record)?;
        Some((at.place, shop.relay_holds(at.place.journal)))
    });
    let Some((place, held)) = at.await? else { return Ok(None) };
    let status = if held >= place.seq { QueueStatus::Synced } else { QueueStatus::Pending };
    Ok(read(shop, vec![place], status).await?.pop())
}

/// Entries as operations: each by its first fact, or as a correction.
async fn read(shop: &ShopHandle, places: Vec<Place>, status: QueueStatus) -> Result<Vec<Shown>, DeskError> {
    let asked = shop.ask(|shop| {
        let devices = shop.journals().map(|journal| (journal.id(), journal.info.device()));
        (shop.business(), shop.device(), devices.collect::<BTreeMap<JournalId, DeviceId>>())
    });
    let (business, own, devices) = asked.await?;
    let shop = shop.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut found = Vec::with_capacity(places.len());
        for place in places {
            let Some(entry) = shop.entry(place)? else { continue };
            let body = entry.body()?;
            let record = body.record_id(business, place, 0);
            let id = record.unwrap_or_else(|| RecordId::from_place(place.journal, place.seq, 0));
            let fact = body.facts.into_iter().next();
            let described = fact.as_ref().and_then(|fact| describe(fact, id));
            let kind = fact.as_ref().map_or("edit", |fact| kind_word(fact.kind()));
            let recorded = Recorded {
                place,
                index: 0,
                time: entry.time,
                device: devices.get(&place.journal).copied().unwrap_or(own),
                user: entry.user.clone(),
                operation_type: described.map_or_else(|| kind.to_owned(), |described| described.operation_type),
                source: fact.as_ref().and_then(|fact| fact.source()).cloned(),
                carried_by_own: false,
                priority: None,
                lane: id,
            };
            let row = OpRow { recorded: Some(recorded), ..OpRow::default() };
            found.push(Shown { id, status: Some(status), row, fact });
        }
        Ok::<_, ReadError>(found)
    });
    // Only a mistake of ours ends it before it is done; the shop's thread then says which.
    Ok(reading.await.map_err(|_| crate::shop_handle::Stopped)??)
}

/// Own entries that no relay has.
fn waiting(shop: &Shop, before: Option<(JournalId, u64)>, count: usize) -> Vec<Place> {
    let device = shop.device();
    let mut own: Vec<_> = shop.journals().filter(|journal| journal.info.device() == device).collect();
    own.sort_by_key(|journal| (std::cmp::Reverse(journal.info.genesis.epoch), journal.id()));
    let begun = own.iter().position(|journal| before.is_some_and(|(last, _)| journal.id() == last));
    let places = own.into_iter().skip(begun.unwrap_or_default()).flat_map(|journal| {
        let id = journal.id();
        let first = shop.relay_holds(id).max(journal.info.before_first().0).saturating_add(1);
        let last = match before {
            Some((at, seq)) if at == id => seq.saturating_sub(1).min(journal.high),
            Some(_) | None => journal.high,
        };
        (first..=last).rev().map(move |seq| Place { journal: id, seq })
    });
    places.take(count).collect()
}

fn cursor_behind(place: Place) -> String {
    format!("{}_{}", place.journal, place.seq)
}

fn parse_cursor(cursor: &str) -> Option<(JournalId, u64)> {
    let (journal, seq) = cursor.split_once('_')?;
    Some((journal.parse().ok()?, seq.parse().ok()?))
}
