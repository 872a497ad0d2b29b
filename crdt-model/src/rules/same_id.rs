//! One record id with several bodies: the earliest copy counts, the others are kept as sides.

use data_encoding::HEXLOWER;

use super::{Conflict, ConflictKind, ConflictState, Side};
use crate::books::{CopyOf, Key};
use crate::ids::{DeviceId, RecordId};

/// The conflict between the copies of `record`, each with its device. A side's label is the
/// digest of its body, which stays the same when an earlier copy of that body arrives.
pub(crate) fn same_id(
    id: RecordId,
    record: RecordId,
    counted: Option<Key>,
    copies: &[(CopyOf, DeviceId)],
    state: ConflictState,
) -> Conflict {
    let mut sides: Vec<Side> = copies
        .iter()
        .map(|(copy, device)| Side {
            label: HEXLOWER.encode(&copy.body),
            place: copy.key.place(),
            index: copy.key.index,
            time: copy.key.time,
            device: *device,
            counted: counted == Some(copy.key),
        })
        .collect();
    sides.sort_by_key(|side| (!side.counted, side.time, side.place, side.index));
    Conflict { id, kind: ConflictKind::SameIdOtherBody, record: Some(record), sku: None, sides, state }
}
