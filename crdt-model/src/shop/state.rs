//! What a shop holds in memory, how it is opened, and the questions it answers.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::act::Unfolded;
use super::lazy::LazyDocument;
use super::{Identity, Output, StoredEntry};
use crate::books::Books;
use crate::document::{DocumentId, SharedDocument};
use crate::entry::{PageLabel, Place};
use crate::frontier::{Frontier, FrontierRow};
use crate::ids::{BusinessId, DeviceId, EntryHash, JournalId, RecordId, domain_hash};
use crate::journal::{Journal, JournalGenesis, JournalInfo, Tail};
use crate::record::{Certificate, Role};
use crate::sync::holding::Holding;
use crate::sync::packed::PackedRun;
use crate::sync::session::{LinkId, LinkKind, Session};
use crate::time::{Clock, Day, Timestamp};

/// Everything one device knows of its business.
#[derive(Debug)]
pub struct Shop {
    pub(super) identity: Identity,
    /// Our journal of this epoch.
    pub(super) own: JournalId,
    pub(super) clock: Clock,
    pub(super) journals: BTreeMap<JournalId, Journal>,
    pub(super) books: Books,
    pub(super) documents: BTreeMap<DocumentId, LazyDocument>,
    /// For each document, which entry made each of its changes.
    pub(super) authors: BTreeMap<DocumentId, BTreeMap<[u8; 32], (Place, EntryHash)>>,
    pub(super) pages: BTreeMap<(JournalId, u32), PageSpan>,
    pub(super) quarantine: BTreeMap<Place, String>,
    /// Fields of shared documents that have several values at once.
    pub(super) field_conflicts: BTreeSet<(DocumentId, String)>,
    /// The products that the catalogue lists.
    pub(super) listed: BTreeSet<RecordId>,
    /// Members, by what their certificates say.
    pub(super) members: BTreeMap<DeviceId, Certificate>,
    /// How far each device durably holds each journal, by its own word.
    pub(super) known: BTreeMap<DeviceId, Known>,
    /// The newest signed word of each device for what it holds, ours included.
    pub(super) holdings: BTreeMap<DeviceId, Holding>,

    // What a restart forgets.
    pub(super) sessions: BTreeMap<LinkId, Session>,
    /// Entries since the last seal.
    pub(super) staged: Vec<StoredEntry>,
    pub(super) staged_runs: Vec<PackedRun>,
    pub(super) staged_from_peers: bool,
    /// The entry that was recorded last, while it is not in the books yet.
    pub(super) unfolded: Option<Unfolded>,
    /// Own entries since the last seal, and the bytes since our last mark.
    pub(super) unsealed: Vec<(u64, EntryHash, crate::entry::Entry)>,
    /// How many of them were given out to be stored, not signed yet.
    pub(super) stored_unsealed: usize,
    pub(super) unmarked_bytes: usize,
    /// Our first entry of this journal since the start, and the last that was given to a link.
    pub(super) first_since_start: Option<u64>,
    pub(super) given_out: u64,
    /// What our last entry before those says of the next.
    pub(super) sealed_tail: Tail,
    /// Journals that advanced since the last seal, and by which link.
    pub(super) advanced: BTreeMap<JournalId, Option<LinkId>>,
    /// Journals that wait for entries of others.
    pub(super) blocked: BTreeSet<JournalId>,
    /// Journals whose stored entries are being loaded.
    pub(super) loading: BTreeSet<JournalId>,
    /// Which link brings a journal that we lack entries of, and up to where.
    pub(super) bringing: BTreeMap<JournalId, (LinkId, u64)>,
    /// Fork enquiries under way: our entries are being loaded for comparison.
    pub(super) comparing: BTreeMap<JournalId, super::fork::Comparison>,
    pub(super) epochs_begun: u64,
    /// When our next signed word is due, and the least number it may have.
    pub(super) holding_due: Option<Timestamp>,
    pub(super) holding_floor: u64,
    /// A member was met whose word may have been passed over.
    pub(super) holdings_to_compare: bool,
}

/// What a device said it holds, and when it was last heard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Known {
    /// How far each journal.
    #[n(0)]
    pub holds: BTreeMap<JournalId, u64>,
    /// When it was last heard.
    #[n(1)]
    pub heard: Timestamp,
}

/// Which entries a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PageSpan {
    /// The business day it was begun on.
    #[n(0)]
    pub day: Day,
    /// Its first entry.
    #[n(1)]
    pub first: u64,
    /// Its last entry.
    #[n(2)]
    pub last: u64,
    /// How many facts it holds.
    #[n(3)]
    pub facts: u32,
}

/// An entry that is kept but can't be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it is.
    pub place: Place,
    /// Why.
    pub reason: String,
}

/// A device of the business, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The device.
    pub device: DeviceId,
    /// Its certificate, if we have seen it.
    pub certificate: Option<Certificate>,
    /// The links to it that are up, with what carries them and since when.
    pub links: Vec<(LinkId, LinkKind, Timestamp)>,
    /// When it was last heard.
    pub heard: Option<Timestamp>,
    /// How many of our own entries it lacks, by its own word.
    pub lacks: u64,
}

/// How far our operations have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Not yet at a relay.
    pub pending: u64,
    /// At a relay.
    pub synced: u64,
    /// Kept, but not applicable.
    pub failed: u64,
    /// Conflicts that wait for a person.
    pub conflicts: u64,
    /// All of our operations.
    pub total: u64,
    /// When a relay was last heard.
    pub last_sync: Option<Timestamp>,
}

/// What storage holds for a shop that is opened.
#[derive(Debug, Default)]
pub struct Stored {
    /// The last snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// Every journal that was begun here.
    pub journals: Vec<JournalInfo>,
    /// Begin a new epoch: the restore marker did not fit, or the device is new.
    pub begin_epoch: bool,
}

/// Why a shop can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The snapshot can't be read; opening without it rebuilds it.
    #[error("the snapshot can't be read: open the shop without it: {0}")]
    Snapshot(String),
    /// A stored journal is not of this business.
    #[error("a stored journal can't be verified: {0}")]
    Journal(#[from] crate::journal::JournalError),
    /// The device's own certificate is wrong.
    #[error("this device's own certificate is not valid: join the business again: {0}")]
    Certificate(#[from] crate::record::CertificateError),
}

impl Shop {
    /// Opens a shop over what is stored. The outputs load what the snapshot lacks.
    ///
    /// # Errors
    /// An [`OpenError`].
    pub fn open(identity: Identity, stored: Stored) -> Result<(Self, Vec<Output>), OpenError> {
        identity.certificate.verify(&identity.genesis)?;
        let mut shop = Self::empty(identity);
        if let Some(snapshot) = &stored.snapshot {
            shop.restore(snapshot)?;
        }
        for info in stored.journals {
            info.verify(&shop.identity.genesis)?;
            shop.members.entry(info.device()).or_insert_with(|| info.certificate.clone());
            shop.journals.entry(info.id()).or_insert_with(|| Journal::new(info));
        }
        let mut out = Vec::new();
        let device = shop.device();
        let current = shop
            .journals
            .values()
            .filter(|journal| journal.info.device() == device && journal.info.fork.is_none())
            .filter(|journal| !shop.is_closed(journal.id()))
            .max_by_key(|journal| journal.info.genesis.epoch)
            .map(Journal::id);
        match current {
            Some(own) if !stored.begin_epoch => shop.own = own,
            _ => shop.begin_epoch(&mut out),
        }
        for (journal, state) in &shop.journals {
            shop.loading.insert(*journal);
            out.push(Output::Load { journal: *journal, from: state.applied.saturating_add(1) });
        }
        shop.fetch_for(shop.books.pending(), &mut out);
        Ok((shop, out))
    }

    fn empty(identity: Identity) -> Self {
        let members = BTreeMap::from([(identity.certificate.device, identity.certificate.clone())]);
        Self {
            identity,
            own: JournalId([0; 16]),
            clock: Clock::default(),
            journals: BTreeMap::new(),
            books: Books::default(),
            documents: BTreeMap::new(),
            authors: BTreeMap::new(),
            pages: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            field_conflicts: BTreeSet::new(),
            listed: BTreeSet::new(),
            members,
            known: BTreeMap::new(),
            holdings: BTreeMap::new(),
            sessions: BTreeMap::new(),
            staged: Vec::new(),
            staged_runs: Vec::new(),
            staged_from_peers: false,
            unfolded: None,
            unsealed: Vec::new(),
            stored_unsealed: 0,
            unmarked_bytes: 0,
            first_since_start: None,
            given_out: 0,
            sealed_tail: Tail::default(),
            advanced: BTreeMap::new(),
            blocked: BTreeSet::new(),
            loading: BTreeSet::new(),
            bringing: BTreeMap::new(),
            comparing: BTreeMap::new(),
            epochs_begun: 0,
            holding_due: None,
            holding_floor: 0,
            holdings_to_compare: false,
        }
    }

    /// Begins a journal of our own with a fresh nonce.
    pub(super) fn begin_epoch(&mut self, out: &mut Vec<Output>) {
        let device = self.device();
        let last = self
            .journals
            .values()
            .filter(|journal| journal.info.device() == device)
            .map(|journal| journal.info.genesis.epoch)
            .max()
            .unwrap_or(0);
        self.epochs_begun += 1;
        let fresh =
            domain_hash("tillmesh 2026 journal nonce", &[&self.identity.entropy, &self.epochs_begun.to_le_bytes()]);
        let nonce = EntryHash(fresh).short().0;
        let genesis = JournalGenesis { business: self.business(), device, epoch: last.saturating_add(1), nonce };
        let info = JournalInfo { genesis, fork: None, certificate: self.identity.certificate.clone() };
        self.own = info.id();
        self.first_since_start = None;
        self.given_out = 0;
        out.push(Output::Begun(info.clone()));
        out.push(Output::Changed(super::Change::Epoch { epoch: info.genesis.epoch }));
        self.journals.insert(self.own, Journal::new(info));
    }

    /// The device that this shop is on.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.identity.certificate.device
    }

    /// The business.
    #[must_use]
    pub fn business(&self) -> BusinessId {
        self.identity.certificate.business
    }

    /// The payment that a provider's receipt number pays.
    #[must_use]
    pub fn number_pays(&self, provider: &str, number: &str) -> Option<RecordId> {
        self.books.receipt_pays(crate::record::Receipt::id_of(self.business(), provider, number))
    }

    /// The business's genesis.
    #[must_use]
    pub fn genesis(&self) -> &crate::record::Genesis {
        &self.identity.genesis
    }

    /// This device's certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.identity.certificate
    }

    /// Our journal of this epoch.
    #[must_use]
    pub fn own_journal(&self) -> JournalId {
        self.own
    }

    /// The derived figures.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// A shared document; `None` while nothing was ever written to it.
    #[must_use]
    pub fn document(&self, id: DocumentId) -> Option<&SharedDocument> {
        self.documents.get(&id).map(LazyDocument::shared)
    }

    /// Every shared document that was ever written to.
    pub fn documents(&self) -> impl Iterator<Item = (DocumentId, &SharedDocument)> {
        self.documents.iter().map(|(id, document)| (*id, document.shared()))
    }

    /// A saved document could not be read back: the shop has to be opened without its snapshot.
    #[must_use]
    pub fn needs_rebuild(&self) -> bool {
        self.documents.values().any(LazyDocument::is_damaged)
    }

    /// Every page, by journal and ordinal.
    pub fn pages(&self) -> impl Iterator<Item = (JournalId, u32, &PageSpan)> {
        self.pages.iter().map(|((journal, ordinal), span)| (*journal, *ordinal, span))
    }

    /// One page.
    #[must_use]
    pub fn page(&self, journal: JournalId, ordinal: u32) -> Option<&PageSpan> {
        self.pages.get(&(journal, ordinal))
    }

    /// Every journal, by id.
    pub fn journals(&self) -> impl Iterator<Item = &Journal> {
        self.journals.values()
    }

    /// One journal.
    #[must_use]
    pub fn journal(&self, id: JournalId) -> Option<&Journal> {
        self.journals.get(&id)
    }

    /// Entries that are kept but can't be applied.
    pub fn quarantine(&self) -> impl Iterator<Item = Quarantined> + '_ {
        self.quarantine.iter().map(|(place, reason)| Quarantined { place: *place, reason: reason.clone() })
    }

    /// Fields of shared documents that have several values at once, as document and key.
    pub fn field_conflicts(&self) -> impl Iterator<Item = &(DocumentId, String)> {
        self.field_conflicts.iter()
    }

    /// The business day at `now`.
    #[must_use]
    pub fn today(&self, now: Timestamp) -> Day {
        Day::of(now, self.identity.genesis.utc_offset_minutes)
    }

    /// Nothing stored is left to be loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loading.is_empty()
    }

    /// What is held and verified, signed tails included.
    #[must_use]
    pub fn frontier(&self) -> Frontier {
        Frontier(
            self.journals
                .iter()
                .filter(|(_, journal)| journal.marked.0 > journal.base)
                .map(|(id, journal)| row(*id, journal))
                .collect(),
        )
    }

    /// How far each journal is applied, for facts that say what their author had seen.
    #[must_use]
    pub fn seen(&self) -> Vec<(JournalId, u64)> {
        self.journals
            .iter()
            .filter(|(_, journal)| journal.applied > 0)
            .map(|(id, journal)| (*id, journal.applied))
            .collect()
    }

    /// Members of the business that we know of.
    pub fn members(&self) -> impl Iterator<Item = &Certificate> {
        self.members.values()
    }

    /// The other devices of the business.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        let mut devices: BTreeSet<DeviceId> = self.members.keys().copied().collect();
        devices.extend(self.sessions.values().filter(|session| session.greeted).map(|session| session.device));
        devices.remove(&self.device());
        devices
            .into_iter()
            .map(|device| Peer {
                device,
                certificate: self.members.get(&device).cloned(),
                links: self
                    .sessions
                    .iter()
                    .filter(|(_, session)| session.device == device && session.greeted)
                    .map(|(link, session)| (*link, session.kind, session.since))
                    .collect(),
                heard: self.known.get(&device).map(|known| known.heard),
                lacks: self.lacks(device),
            })
            .collect()
    }

    /// How many of our own entries a device lacks, by its own word, said to us or signed.
    fn lacks(&self, device: DeviceId) -> u64 {
        self.own_journals()
            .map(|journal| {
                let held = self.holds(device, journal.id());
                journal.high.saturating_sub(held.max(journal.info.before_first().0))
            })
            .sum()
    }

    /// How far a device holds a journal: by what it said on a link to us, or by its signature.
    fn holds(&self, device: DeviceId, journal: JournalId) -> u64 {
        let said = self.known.get(&device).and_then(|known| known.holds.get(&journal).copied());
        said.unwrap_or(0).max(self.signed_for(device, journal))
    }

    pub(super) fn own_journals(&self) -> impl Iterator<Item = &Journal> {
        let device = self.device();
        self.journals.values().filter(move |journal| journal.info.device() == device)
    }

    /// How far our operations have come. Costs time by the number of devices, not of operations.
    #[must_use]
    pub fn status(&self) -> Status {
        let total = self.own_journals().map(|journal| journal.high.saturating_sub(journal.info.before_first().0)).sum();
        let relays = self.members.values().filter(|member| member.role == Role::Relay).map(|member| member.device);
        let best = relays.map(|relay| (self.lacks_at_relay(relay), relay)).min();
        let pending = best.map_or(total, |(lacks, _)| lacks);
        Status {
            pending,
            synced: total - pending.min(total),
            failed: self.quarantine.len() as u64,
            conflicts: self.conflict_count(),
            total,
            last_sync: best.and_then(|(_, relay)| self.last_word(relay)),
        }
    }

    /// When a device was last heard, by itself or by its signed word.
    fn last_word(&self, device: DeviceId) -> Option<Timestamp> {
        let heard = self.known.get(&device).map(|known| known.heard).filter(|heard| heard.0 > 0);
        heard.max(self.holdings.get(&device).map(Holding::at))
    }

    fn lacks_at_relay(&self, relay: DeviceId) -> u64 {
        if relay == self.device() { 0 } else { self.lacks(relay) }
    }

    /// How far some relay holds one of our journals.
    #[must_use]
    pub fn relay_holds(&self, journal: JournalId) -> u64 {
        self.members
            .values()
            .filter(|member| member.role == Role::Relay)
            .filter_map(|member| {
                if member.device == self.device() {
                    return self.journals.get(&journal).map(|journal| journal.high);
                }
                Some(self.holds(member.device, journal))
            })
            .max()
            .unwrap_or(0)
    }

    /// Whether a journal has forked here, so that only its branches go on.
    pub(super) fn is_closed(&self, journal: JournalId) -> bool {
        self.forked_at(journal).is_some()
    }

    /// The last entry of a forked journal that all of its branches share.
    pub(super) fn forked_at(&self, journal: JournalId) -> Option<u64> {
        self.branches_of(journal).map(|branch| branch.info.before_first().0).min()
    }

    pub(super) fn branches_of(&self, journal: JournalId) -> impl Iterator<Item = &Journal> {
        self.journals.values().filter(move |branch| branch.info.fork.is_some() && branch.info.genesis.id() == journal)
    }

    /// The label of the page that our next entry with `facts` facts goes on.
    pub(super) fn next_page(&self, now: Timestamp, facts: u32) -> PageLabel {
        let today = self.today(now);
        let last = self.pages.range((self.own, 0)..=(self.own, u32::MAX)).next_back();
        match last {
            None => PageLabel { ordinal: 0, day: today },
            Some(((_, ordinal), span))
                if span.day == today && span.facts.saturating_add(facts) <= crate::entry::PAGE_FACTS_MAX =>
            {
                PageLabel { ordinal: *ordinal, day: span.day }
            }
            Some(((_, ordinal), _)) => PageLabel { ordinal: ordinal.saturating_add(1), day: today },
        }
    }
}

fn row(id: JournalId, journal: &Journal) -> FrontierRow {
    FrontierRow { journal: id, base: journal.base, high: journal.marked.0, hash: journal.marked.1.short() }
}
