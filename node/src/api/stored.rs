//! Reading records back: the books say where each is, storage has its fact.

use crdt_model::books::RecordAt;
use crdt_model::document::DocumentId;
use crdt_model::ids::RecordId;
use crdt_model::record::{Fact, Kind};
use crdt_model::time::Day;

use super::list::{Listed, Page, cursor};
use super::problem::{Code, Problem, path_id};
use super::state::ApiState;
use crate::operations::SharedRecord;

/// A record with its fact.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) at: RecordAt,
    pub(super) fact: Fact,
    /// The business day it belongs to.
    pub(super) day: Day,
}

/// One record of the wanted kinds; `what` names it in errors.
pub(super) async fn one(state: &ApiState, what: &str, kinds: &[Kind], id: &str) -> Result<Stored, Problem> {
    let record: RecordId = path_id(what, id)?;
    let at = state.shop.ask(move |shop| shop.books().record(record)).await?;
    let at = at.filter(|at| kinds.contains(&at.kind)).ok_or_else(|| Problem::not_found(what, id))?;
    let found = load(state, vec![at]).await?;
    found.into_iter().next().ok_or_else(|| Problem::not_found(what, id))
}

/// A page of the records of some kinds, the newest first.
pub(super) async fn page(state: &ApiState, kinds: &'static [Kind], page: &Page) -> Result<Listed<Stored>, Problem> {
    let (limit, before) = (page.limit()?, page.before()?);
    let mut found = state
        .shop
        .ask(move |shop| {
            let lists = kinds.iter().flat_map(|kind| shop.books().list(*kind, before).take(limit + 1));
            lists.collect::<Vec<RecordAt>>()
        })
        .await?;
    found.sort_by_key(|at| std::cmp::Reverse((at.time, at.id)));
    let Listed { items, next } = Listed::of(found, limit, |at| cursor(at.time, at.id));
    Ok(Listed { items: load(state, items).await?, next })
}

/// Reads the facts of records.
pub(super) async fn load(state: &ApiState, records: Vec<RecordAt>) -> Result<Vec<Stored>, Problem> {
    let offset = state.fixed().await?.utc_offset_minutes;
    let shop = state.shop.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut found = Vec::with_capacity(records.len());
        for at in records {
            let Some(entry) = shop.entry(at.place)? else { continue };
            let body = entry.body().map_err(crate::shop_handle::ReadError::from)?;
            let index = usize::try_from(at.index).unwrap_or(usize::MAX);
            let Some(fact) = body.facts.into_iter().nth(index) else { continue };
            let day = fact.occurred().map_or(entry.page.day, |occurred| Day::of(occurred, offset));
            found.push(Stored { at, fact, day });
        }
        Ok::<_, crate::shop_handle::ReadError>(found)
    });
    let found = read.await.map_err(|error| Problem::new(Code::Unreadable, error.to_string()))?;
    Ok(found?)
}

/// The corrections of records, in their order.
pub(super) async fn corrections(state: &ApiState, records: Vec<RecordId>) -> Result<Vec<SharedRecord>, Problem> {
    let read = state.shop.ask(move |shop| {
        let read = |record: &RecordId| SharedRecord::read(shop, DocumentId::annotations(*record), *record);
        records.iter().map(read).collect()
    });
    Ok(read.await?)
}
