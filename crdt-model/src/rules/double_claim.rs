//! One receipt number claimed for two intents: the earliest claim that its intent's ledger
//! made pays; the other intents stay as they were.

use super::{Conflict, ConflictKind};
use crate::books::Payment;

/// Names a conflict between the claims of one receipt number, and marks the one that pays.
pub(crate) fn double_claim(conflict: Conflict, claimed_for: &[Payment]) -> Conflict {
    let claims = || claimed_for.iter().flat_map(|payment| &payment.receipts);
    let pays = |side: &super::Side| claims().any(|claim| claim.accepted && claim.place == side.place);
    let mut sides = conflict.sides;
    for side in &mut sides {
        side.counted = pays(side);
    }
    sides.sort_by_key(|side| (!side.counted, side.time, side.place, side.index));
    Conflict { kind: ConflictKind::DoubleClaim, sides, ..conflict }
}
