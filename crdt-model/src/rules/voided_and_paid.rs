//! A sale voided on one device while its customer paid: both are true, so both count, and the
//! money has to go back or the void has to be made good by a new sale.

use super::{Conflict, ConflictKind, ConflictState, Side};
use crate::books::{Payment, RecordAt};
use crate::ids::RecordId;

/// The conflict between a sale's void and the receipts of its intent.
pub(crate) fn voided_and_paid(
    id: RecordId,
    payment: &Payment,
    void: Option<RecordAt>,
    state: ConflictState,
) -> Conflict {
    let void = void.map(|void| Side {
        label: "void".to_owned(),
        place: void.place,
        index: void.index,
        time: void.time,
        device: void.device,
        counted: true,
    });
    let receipts = payment.receipts.iter().filter(|receipt| receipt.accepted).map(|receipt| Side {
        label: receipt.number.clone(),
        place: receipt.place,
        index: receipt.index,
        time: receipt.time,
        device: receipt.device,
        counted: true,
    });
    let sides = void.into_iter().chain(receipts).collect();
    Conflict { id, kind: ConflictKind::VoidedAndPaid, record: Some(payment.intent), sku: None, sides, state }
}
