//! The index of records: where each is, which of its copies counts, and lists by kind in the
//! order of time. About 75 bytes a record.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use minicbor::{Decode, Decoder, Encode, Encoder};

use super::id_table::IdTable;
use super::names::Journals;
use super::ordered::Ordered;
use super::placed::{Followup, Key, Placed};
use crate::entry::{Entry, Part, PartKind, Place};
use crate::ids::{DeviceId, Domain, RecordId};
use crate::record::{Fact, Kind, TenderKind};
use crate::time::Hlc;

/// A record's place, for lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordAt {
    /// The record.
    pub id: RecordId,
    /// What kind it is.
    pub kind: Kind,
    /// The entry of the copy that counts.
    pub place: Place,
    /// Its index in that entry.
    pub index: u32,
    /// When that entry was made.
    pub time: Hlc,
    /// The device that recorded it.
    pub device: DeviceId,
    /// The fact's [`body_digest`].
    pub digest: BodyDigest,
}

/// The first 8 bytes of a fact's hash: equal bodies are one fact.
pub type BodyDigest = [u8; 8];

/// What the index knows of one copy of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct CopyOf {
    #[n(0)]
    pub(crate) key: Key,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) body: BodyDigest,
    #[n(2)]
    pub(crate) kind: Kind,
    /// One bit for each of a sale's tenders that is M-PESA.
    #[n(3)]
    pub(crate) mpesa_tenders: u16,
    /// Closed a ticket.
    #[n(4)]
    pub(crate) ticket: bool,
}

/// A record of which several copies are known: other bodies, or a recount to be done.
#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Contest {
    /// The smallest copy of each body.
    #[n(0)]
    pub(super) sides: BTreeMap<[u8; 8], CopyOf>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    id: RecordId,
    time: Hlc,
    seq: u64,
    body: BodyDigest,
    journal: u32,
    index: u32,
    mpesa_tenders: u16,
    kind: Kind,
    ticket: bool,
}

/// What adding a copy led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// The first copy: count it.
    First,
    /// The very copy that is counted.
    Same,
    /// Another copy.
    Other,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pages: Vec<Vec<Row>>,
    by_id: IdTable,
    by_time: BTreeMap<Kind, Ordered<u32>>,
    contests: BTreeMap<RecordId, Contest>,
}

const PAGE_ROWS: usize = 1_024;

impl CopyOf {
    pub(super) fn of(placed: &Placed<'_>) -> Self {
        let (mpesa_tenders, ticket) = match placed.fact {
            Fact::Sale(sale) => (mpesa_bits(sale), sale.ticket.is_some()),
            Fact::Expense(_)
            | Fact::FinancialRecord(_)
            | Fact::StockMovement(_)
            | Fact::StockCount(_)
            | Fact::Intent(_)
            | Fact::Void(_)
            | Fact::Refund(_)
            | Fact::ShiftOpened(_)
            | Fact::ShiftClosed(_)
            | Fact::Receipt(_)
            | Fact::Decline(_)
            | Fact::Custom(_)
            | Fact::Enrolment(_)
            | Fact::IntentAddressed(_)
            | Fact::IntentConfirmed(_)
            | Fact::Payment(_)
            | Fact::Resolution(_)
            | Fact::HandoffOffered(_)
            | Fact::HandoffAccepted(_)
            | Fact::HandoffTransferred(_)
            | Fact::HandoffWithdrawn(_)
            | Fact::HandoffDecided(_)
            | Fact::Upstream(_) => (0, false),
        };
        let body = placed.digest.unwrap_or_else(|| body_digest(placed.fact));
        Self { key: placed.key(), body, kind: placed.fact.kind(), mpesa_tenders, ticket }
    }
}

fn mpesa_bits(sale: &crate::record::Sale) -> u16 {
    let mpesa =
        |bits: u16, (index, _): (usize, _)| bits | 1_u16.checked_shl(u32::try_from(index).unwrap_or(16)).unwrap_or(0);
    sale.tenders.iter().enumerate().filter(|(_, tender)| tender.kind == TenderKind::Mpesa).fold(0, mpesa)
}

/// Room for most facts, so that encoding one seldom moves it.
const FACT_BYTES_USUAL: usize = 512;

static BODY: Domain = Domain::new("tillmesh 2026 fact body");

/// The start of the hash of a fact's CBOR.
#[must_use]
pub fn body_digest(fact: &Fact) -> BodyDigest {
    let mut bytes = Vec::with_capacity(FACT_BYTES_USUAL);
    // Writing to memory can't fail.
    drop(minicbor::encode(fact, &mut bytes));
    digest_of(&bytes)
}

/// The digests of an entry's facts, from their bytes as they are.
pub(crate) fn fact_digests(entry: &Entry) -> Vec<BodyDigest> {
    let parts = entry.parts.iter().filter(|part| part.kind == PartKind::Facts).map(Part::bytes);
    let mut digests = Vec::new();
    for bytes in parts {
        let mut decoder = Decoder::new(bytes);
        let count = decoder.array().ok().flatten().unwrap_or_default();
        for _ in 0..count {
            let start = decoder.position();
            if decoder.skip().is_err() {
                break;
            }
            digests.push(digest_of(bytes.get(start..decoder.position()).unwrap_or_default()));
        }
    }
    digests
}

fn digest_of(bytes: &[u8]) -> BodyDigest {
    let [a, b, c, d, e, f, g, h, ..] = BODY.hash(&[bytes]);
    [a, b, c, d, e, f, g, h]
}

impl Records {
    pub(super) fn add(&mut self, id: RecordId, copy: CopyOf, journals: &mut Journals, device: DeviceId) -> Added {
        let Some(handle) = self.handle(id) else {
            self.push(row(id, &copy, journals.number(copy.key.journal, device)));
            return Added::First;
        };
        let Some(counted) = self.row(handle).and_then(|row| copied(row, journals)) else {
            return Added::Other;
        };
        if counted.key == copy.key {
            return Added::Same;
        }
        let known = self.contests.contains_key(&id);
        if !known && counted.body == copy.body && counted.key < copy.key {
            return Added::Other;
        }
        journals.number(copy.key.journal, device);
        let contest = self.contests.entry(id).or_default();
        if !known {
            contest.sides.insert(counted.body, counted);
        }
        let side = contest.sides.entry(copy.body).or_insert(copy);
        if copy.key < side.key {
            *side = copy;
        }
        Added::Other
    }

    /// The copy that is counted now, and the one that must count, where they differ.
    pub(super) fn recount(&self, id: RecordId, journals: &Journals) -> Option<(CopyOf, CopyOf)> {
        let best = self.contests.get(&id)?.best()?;
        let counted = copied(self.row(self.handle(id)?)?, journals)?;
        (best.key != counted.key).then_some((counted, best))
    }

    /// Makes the smallest copy the one that counts.
    pub(super) fn recounted(&mut self, id: RecordId, journals: &mut Journals) {
        let Some((counted, best)) = self.recount(id, journals) else {
            return;
        };
        let (Some(handle), Some(device)) = (self.handle(id), journals.device_of(best.key.journal)) else {
            return;
        };
        self.unlist(counted.kind, counted.key.time, id);
        let journal = journals.number(best.key.journal, device);
        if let Some(place) = self.row_mut(handle) {
            *place = row(id, &best, journal);
        }
        self.list_in(best.kind, best.key.time, id, handle);
        if self.contests.get(&id).is_some_and(|contest| contest.sides.len() < 2) {
            self.contests.remove(&id);
        }
    }

    pub(super) fn contest(&self, id: RecordId) -> Option<&Contest> {
        self.contests.get(&id)
    }

    pub(super) fn is_contested(&self, id: RecordId) -> bool {
        self.contests.get(&id).is_some_and(|contest| contest.sides.len() > 1)
    }

    pub(super) fn pending(&self, journals: &Journals) -> Vec<Followup> {
        self.contests.keys().filter_map(|id| self.followup(*id, journals)).collect()
    }

    pub(super) fn followup(&self, id: RecordId, journals: &Journals) -> Option<Followup> {
        let (counted, best) = self.recount(id, journals)?;
        let old = (counted.key.place(), counted.key.index);
        Some(Followup::Recount { old, new: (best.key.place(), best.key.index) })
    }

    pub(super) fn counted(&self, id: RecordId, journals: &Journals) -> Option<CopyOf> {
        copied(self.row(self.handle(id)?)?, journals)
    }

    pub(super) fn has(&self, id: RecordId, kind: Kind) -> bool {
        self.handle(id).and_then(|handle| self.row(handle)).is_some_and(|row| row.kind == kind)
    }

    pub(super) fn at(&self, id: RecordId, journals: &Journals) -> Option<RecordAt> {
        record_at(self.row(self.handle(id)?)?, journals)
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        self.by_time.get(&kind).map_or(0, Ordered::len)
    }

    pub(super) fn list<'a>(
        &'a self,
        kind: Kind,
        before: Option<(Hlc, RecordId)>,
        journals: &'a Journals,
    ) -> impl Iterator<Item = RecordAt> + 'a {
        let order = move |handle: &u32| match (before, self.row(*handle)) {
            (Some(before), Some(row)) => (row.time, row.id).cmp(&before),
            (_, _) => Ordering::Less,
        };
        let handles = self.by_time.get(&kind).into_iter().flat_map(move |list| list.before(order));
        handles.filter_map(|handle| record_at(self.row(handle)?, journals))
    }

    fn handle(&self, id: RecordId) -> Option<u32> {
        self.by_id.find(id, |handle| self.row(handle).map(|row| row.id))
    }

    fn row(&self, handle: u32) -> Option<&Row> {
        let at = usize::try_from(handle).ok()?;
        self.pages.get(at / PAGE_ROWS)?.get(at % PAGE_ROWS)
    }

    fn row_mut(&mut self, handle: u32) -> Option<&mut Row> {
        let at = usize::try_from(handle).ok()?;
        self.pages.get_mut(at / PAGE_ROWS)?.get_mut(at % PAGE_ROWS)
    }

    fn push(&mut self, row: Row) {
        // 2^32 records are beyond any shop's memory long before the handle could wrap.
        let handle = u32::try_from(self.by_id.len()).unwrap_or(u32::MAX);
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE_ROWS => page.push(row),
            _ => {
                let mut page = Vec::with_capacity(PAGE_ROWS);
                page.push(row);
                self.pages.push(page);
            }
        }
        let mut by_id = std::mem::take(&mut self.by_id);
        by_id.insert(row.id, handle, |handle| self.row(handle).map(|row| row.id));
        self.by_id = by_id;
        self.list_in(row.kind, row.time, row.id, handle);
    }

    fn list_in(&mut self, kind: Kind, time: Hlc, id: RecordId, handle: u32) {
        let mut list = self.by_time.remove(&kind).unwrap_or_default();
        list.insert(handle, |other| self.row(*other).map(|row| (row.time, row.id)).cmp(&Some((time, id))));
        self.by_time.insert(kind, list);
    }

    fn unlist(&mut self, kind: Kind, time: Hlc, id: RecordId) {
        let mut list = self.by_time.remove(&kind).unwrap_or_default();
        list.remove(|other| self.row(*other).map(|row| (row.time, row.id)).cmp(&Some((time, id))));
        self.by_time.insert(kind, list);
    }
}

impl Contest {
    fn best(&self) -> Option<CopyOf> {
        self.sides.values().min_by_key(|side| side.key).copied()
    }
}

fn row(id: RecordId, copy: &CopyOf, journal: u32) -> Row {
    Row {
        id,
        time: copy.key.time,
        seq: copy.key.seq,
        body: copy.body,
        journal,
        index: copy.key.index,
        mpesa_tenders: copy.mpesa_tenders,
        kind: copy.kind,
        ticket: copy.ticket,
    }
}

fn copied(row: &Row, journals: &Journals) -> Option<CopyOf> {
    let key = Key { time: row.time, journal: journals.id(row.journal)?, seq: row.seq, index: row.index };
    Some(CopyOf { key, body: row.body, kind: row.kind, mpesa_tenders: row.mpesa_tenders, ticket: row.ticket })
}

fn record_at(row: &Row, journals: &Journals) -> Option<RecordAt> {
    Some(RecordAt {
        id: row.id,
        kind: row.kind,
        place: Place { journal: journals.id(row.journal)?, seq: row.seq },
        index: row.index,
        time: row.time,
        device: journals.device(row.journal)?,
        digest: row.body,
    })
}

// The lists are made again from the rows.
impl<C> Encode<C> for Records {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.array(2)?.array(self.by_id.len() as u64)?;
        for row in self.pages.iter().flatten() {
            row.id.encode(encoder, context)?;
            encoder.u64(row.time.0)?.u64(row.seq)?.bytes(&row.body)?.u32(row.journal)?.u32(row.index)?;
            encoder.u16(row.mpesa_tenders)?;
            row.kind.encode(encoder, context)?;
            encoder.bool(row.ticket)?;
        }
        self.contests.encode(encoder, context)
    }
}

impl<'b, C> Decode<'b, C> for Records {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        let wrong = minicbor::decode::Error::message;
        let mut records = Self::default();
        if decoder.array()? != Some(2) {
            return Err(wrong("not an index of records"));
        }
        for _ in 0..decoder.array()?.ok_or_else(|| wrong("records without a number"))? {
            let row = Row {
                id: RecordId::decode(decoder, context)?,
                time: Hlc(decoder.u64()?),
                seq: decoder.u64()?,
                body: decoder.bytes()?.try_into().map_err(|_| wrong("a body digest of a wrong length"))?,
                journal: decoder.u32()?,
                index: decoder.u32()?,
                mpesa_tenders: decoder.u16()?,
                kind: Kind::decode(decoder, context)?,
                ticket: decoder.bool()?,
            };
            if records.handle(row.id).is_some() {
                return Err(wrong("a record twice"));
            }
            records.push(row);
        }
        records.contests = BTreeMap::decode(decoder, context)?;
        Ok(records)
    }
}
