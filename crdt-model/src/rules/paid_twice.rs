//! Two receipts for one intent: it is paid, and one of the payments has to go back.

use super::{Conflict, ConflictKind, ConflictState, Side};
use crate::books::Payment;
use crate::ids::RecordId;

/// The conflict between the receipts that pay an intent, the earliest first. A side's label
/// is the provider's receipt number.
pub(crate) fn paid_twice(id: RecordId, payment: &Payment, state: ConflictState) -> Conflict {
    let mut sides: Vec<Side> = payment
        .receipts
        .iter()
        .filter(|receipt| receipt.accepted)
        .map(|receipt| Side {
            label: receipt.number.clone(),
            place: receipt.place,
            index: receipt.index,
            time: receipt.time,
            device: receipt.device,
            counted: true,
        })
        .collect();
    sides.sort_by_key(|side| (side.time, side.place, side.index));
    Conflict { id, kind: ConflictKind::PaidTwice, record: Some(payment.intent), sku: None, sides, state }
}
