//! Lists of records that are spread over the shards of a shared document: a shard at a time, so
//! that a long catalogue never holds up the shop.

use crdt_model::document::DocumentId;
use crdt_model::ids::RecordId;

use super::list::{Listed, Page, bad_cursor};
use super::problem::Problem;
use super::state::ApiState;
use crate::operations::SharedRecord;

/// A page of the records of a family of shards, by shard and id, that `wanted` accepts.
pub(super) async fn page(
    state: &ApiState,
    family: fn(u8) -> DocumentId,
    shards: u8,
    page: &Page,
    wanted: fn(&SharedRecord) -> bool,
) -> Result<Listed<(RecordId, SharedRecord)>, Problem> {
    let limit = page.limit()?;
    let (first, mut after) = match page.cursor() {
        None => (0, None),
        Some(cursor) => parse(cursor).map(|(shard, record)| (shard, Some(record))).ok_or_else(bad_cursor)?,
    };
    let mut found: Vec<(u8, RecordId, SharedRecord)> = Vec::new();
    for shard in first..shards {
        let (from, room) = (after.take(), limit + 1 - found.len());
        let more = state.shop.ask(move |shop| {
            let document = family(shard);
            let ids = shop.document(document).into_iter().flat_map(|shared| shared.records());
            ids.filter(|id| from.is_none_or(|from| *id > from))
                .map(|id| (shard, id, SharedRecord::read(shop, document, id)))
                .filter(|(_, _, record)| record.exists() && wanted(record))
                .take(room)
                .collect::<Vec<_>>()
        });
        found.extend(more.await?);
        if found.len() > limit {
            break;
        }
    }
    let listed = Listed::of(found, limit, |(shard, id, _)| format!("{shard}_{id}"));
    Ok(listed.map(|(_, id, record)| (id, record)))
}

fn parse(cursor: &str) -> Option<(u8, RecordId)> {
    let (shard, id) = cursor.split_once('_')?;
    Some((shard.parse().ok()?, id.parse().ok()?))
}
