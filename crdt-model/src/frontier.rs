//! Frontiers: how far each journal is held, stored and verified.

use minicbor::{Decode, Encode};

use crate::ids::{JournalId, ShortHash, domain_hash};

/// The most journals a frontier lists.
pub const FRONTIER_ROWS_MAX: usize = 4_096;

/// How far one journal is held: every entry in (base, high].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct FrontierRow {
    /// The journal.
    #[n(0)]
    pub journal: JournalId,
    /// The last sequence number before the held interval; 0 when all of it is held.
    #[n(1)]
    pub base: u64,
    /// The last entry held.
    #[n(2)]
    pub high: u64,
    /// Its hash.
    #[n(3)]
    pub hash: ShortHash,
}

/// Every journal a device holds, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Frontier(#[n(0)] pub Vec<FrontierRow>);

impl Frontier {
    /// Equal digests mean equal frontiers.
    #[must_use]
    pub fn digest(&self) -> ShortHash {
        let bytes = minicbor::to_vec(self).unwrap_or_default();
        crate::ids::EntryHash(domain_hash("tillmesh 2026 frontier", &[&bytes])).short()
    }

    /// The row of a journal.
    #[must_use]
    pub fn row(&self, journal: JournalId) -> Option<&FrontierRow> {
        self.0.binary_search_by(|row| row.journal.cmp(&journal)).ok().and_then(|at| self.0.get(at))
    }
}
