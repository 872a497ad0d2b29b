//! Snapshots: what a shop derived, so that a start needs only the entries since. A snapshot is
//! never the truth; the journals can always rebuild it.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::lazy::LazyDocument;
use super::state::{Known, OpenError, PageSpan, Shop};
use crate::books::Books;
use crate::document::DocumentId;
use crate::entry::Place;
use crate::ids::{DeviceId, EntryHash, JournalId, RecordId};
use crate::journal::Journal;
use crate::record::Certificate;
use crate::sync::holding::Holding;
use crate::time::Clock;

/// Raised whenever the books or this layout change; an older snapshot is rebuilt.
const SNAPSHOT_VERSION: u32 = 3;

#[derive(Encode, Decode)]
struct Snapshot {
    #[n(0)]
    version: u32,
    #[n(1)]
    clock: Clock,
    #[n(2)]
    journals: Vec<Journal>,
    #[cbor(n(3), with = "minicbor::bytes")]
    books: Vec<u8>,
    #[n(4)]
    documents: Vec<SavedDocument>,
    #[n(5)]
    pages: BTreeMap<(JournalId, u32), PageSpan>,
    #[n(6)]
    quarantine: Vec<(Place, String)>,
    #[n(7)]
    members: Vec<Certificate>,
    #[n(8)]
    known: BTreeMap<DeviceId, Known>,
    #[n(9)]
    holdings: Vec<Holding>,
    #[n(10)]
    listed: Vec<RecordId>,
}

#[derive(Encode, Decode)]
struct SavedDocument {
    #[n(0)]
    id: DocumentId,
    #[cbor(n(1), with = "minicbor::bytes")]
    bytes: Vec<u8>,
    #[n(2)]
    authors: Vec<(EntryHash, Place, EntryHash)>,
    #[n(3)]
    conflicts: Vec<String>,
}

impl Shop {
    /// Everything derived so far. Take it only right after a commit: it must not be ahead of
    /// what is stored.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let documents = self
            .documents
            .iter()
            .map(|(id, document)| SavedDocument {
                id: *id,
                bytes: document.bytes(),
                conflicts: self
                    .field_conflicts
                    .range((*id, String::new())..)
                    .take_while(|(document, _)| document == id)
                    .map(|(_, key)| key.clone())
                    .collect(),
                authors: self
                    .authors
                    .get(id)
                    .into_iter()
                    .flatten()
                    .map(|(head, (place, hash))| (EntryHash(*head), *place, *hash))
                    .collect(),
            })
            .collect();
        minicbor::to_vec(Snapshot {
            version: SNAPSHOT_VERSION,
            clock: self.clock,
            journals: self.journals.values().cloned().collect(),
            books: self.books.encode(),
            documents,
            pages: self.pages.clone(),
            quarantine: self.quarantine.iter().map(|(place, reason)| (*place, reason.clone())).collect(),
            members: self.members.values().cloned().collect(),
            known: self.known.clone(),
            holdings: self.holdings.values().cloned().collect(),
            listed: self.listed.iter().copied().collect(),
        })
        .unwrap_or_default()
    }

    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<(), OpenError> {
        let unreadable = |reason: String| OpenError::Snapshot(reason);
        let version = minicbor::Decoder::new(bytes).array().and_then(|_| {
            let mut decoder = minicbor::Decoder::new(bytes);
            decoder.array()?;
            decoder.u32()
        });
        if version.ok() != Some(SNAPSHOT_VERSION) {
            return Err(unreadable("it is of another version".to_owned()));
        }
        let snapshot: Snapshot = minicbor::decode(bytes).map_err(|error| unreadable(error.to_string()))?;
        self.clock = snapshot.clock;
        self.books = Books::decode(&snapshot.books).map_err(|error| unreadable(error.to_string()))?;
        for saved in snapshot.documents {
            self.documents.insert(saved.id, LazyDocument::saved(saved.id, saved.bytes));
            self.field_conflicts.extend(saved.conflicts.into_iter().map(|key| (saved.id, key)));
            let authors = saved.authors.into_iter().map(|(change, place, hash)| (change.0, (place, hash)));
            self.authors.insert(saved.id, authors.collect());
        }
        self.journals = snapshot.journals.into_iter().map(|journal| (journal.id(), journal)).collect();
        self.pages = snapshot.pages;
        self.quarantine = snapshot.quarantine.into_iter().collect();
        self.members.extend(snapshot.members.into_iter().map(|member| (member.device, member)));
        self.known = snapshot.known;
        self.listed = snapshot.listed.into_iter().collect();
        self.holdings = snapshot.holdings.into_iter().map(|holding| (holding.device, holding)).collect();
        Ok(())
    }
}
