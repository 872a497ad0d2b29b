//! More sold than there was. Stock is never clamped: the shelf is counted, or a delivery is
//! recorded, and the conflict goes away with the negative stock.

use super::{Conflict, ConflictKind, ConflictState};
use crate::ids::RecordId;

/// The conflict about a product whose stock is negative since `count`.
pub(crate) fn oversold(id: RecordId, sku: &str, count: Option<RecordId>, state: ConflictState) -> Conflict {
    let sku = Some(sku.to_owned());
    Conflict { id, kind: ConflictKind::Oversold, record: count, sku, sides: Vec::new(), state }
}
