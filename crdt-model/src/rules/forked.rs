//! One journal with two histories: its device ran twice, or was put back to an earlier state by
//! force. Everything on every branch counts, and a person looks at what the device did.

use super::{Conflict, ConflictKind, ConflictState, Side};
use crate::entry::Place;
use crate::ids::{DeviceId, JournalId, RecordId, domain_hash, hash_uuid};
use crate::journal::Fork;
use crate::time::Hlc;

/// The id of the conflict between the branches that leave `journal` at one entry.
pub(crate) fn fork_id(journal: JournalId, fork: &Fork) -> RecordId {
    let parts: [&[u8]; 3] = [&journal.0, &fork.seq.to_be_bytes(), &fork.hash.0];
    RecordId(hash_uuid(domain_hash("tillmesh 2026 forked journal", &parts)))
}

/// The conflict between the branches that are held here. A side's label is its branch's journal; its
/// time is in the branch's first entry.
pub(crate) fn forked(
    id: RecordId,
    device: DeviceId,
    fork: &Fork,
    branches: &[JournalId],
    state: ConflictState,
) -> Conflict {
    let side = |branch: &JournalId| Side {
        label: branch.to_string(),
        place: Place { journal: *branch, seq: fork.seq.saturating_add(1) },
        index: 0,
        time: Hlc(0),
        device,
        counted: true,
    };
    let sides = branches.iter().map(side).collect();
    Conflict { id, kind: ConflictKind::JournalForked, record: None, sku: None, sides, state }
}
