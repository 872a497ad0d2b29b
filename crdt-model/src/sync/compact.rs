//! The small forms of the live path: a run of a few entries without what the receiver can tell
//! from the entry before, packed with the dictionary, and the acknowledgement of it.
//! docs/protocol.md specifies both.

use super::codec::{CodecError, Run};
use super::dictionary;
use super::message::Message;
use super::predictor::{Decoder, Encoder, Predictor};
use crate::entry::{After, Audience, Class, Entry, PARTS_MAX, PageLabel, Part, PartContent, PartKind};
use crate::ids::JournalId;
use crate::journal::Tail;
use crate::record::{Fact, Sale};
use crate::time::{Day, Hlc};

/// The most entries of a compact run; more go as a block.
pub const COMPACT_ENTRIES_MAX: usize = 8;
/// The most bytes that a compact run holds before it is packed.
pub const COMPACT_BYTES_MAX: usize = 2_048;

/// Which journal a short message means: one of the device that wrote it, by the first bytes of
/// its id. Whoever reads it must know exactly one that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JournalRef {
    /// Among the journals of one end of the link.
    OfEnd([u8; 2]),
    /// Among all.
    Any([u8; 8]),
}

impl JournalRef {
    /// Names a journal of one end of the link.
    #[must_use]
    pub fn of_end(journal: JournalId) -> Self {
        let [a, b, ..] = journal.0;
        Self::OfEnd([a, b])
    }

    /// Names any journal.
    #[must_use]
    pub fn any(journal: JournalId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = journal.0;
        Self::Any([a, b, c, d, e, f, g, h])
    }

    /// Whether `journal` may be meant.
    #[must_use]
    pub fn fits(&self, journal: JournalId) -> bool {
        match self {
            Self::OfEnd(prefix) => journal.0.starts_with(prefix),
            Self::Any(prefix) => journal.0.starts_with(prefix),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::OfEnd(prefix) => prefix,
            Self::Any(prefix) => prefix,
        }
    }
}

/// A run of a few entries, which only whoever holds the entry before it can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compact {
    /// The journal.
    pub journal: JournalRef,
    /// The lowest 8 bits of the last entry's sequence number.
    pub last: u8,
    /// The author's signature over the last entry's hash.
    pub signature: [u8; 64],
    /// The entries, packed.
    pub packed: Vec<u8>,
}

impl Compact {
    /// The compact form of a run that follows an entry with this tail; `None` if the run is too
    /// large for it, or introduces its journal.
    #[must_use]
    pub fn of(run: &Run, tail: &Tail, journal: JournalRef) -> Option<Self> {
        let bytes: usize = run.entries.iter().map(plain_bytes_max).sum();
        if run.info.is_some() || run.entries.len() > COMPACT_ENTRIES_MAX || bytes > COMPACT_BYTES_MAX {
            return None;
        }
        let last = run.start.checked_add(run.entries.len() as u64)?.checked_sub(1)?;
        let mut writer = Writer { encoder: Encoder::new(dictionary::taught().clone()) };
        writer.entries(&run.entries, tail);
        let packed = writer.encoder.finish();
        Some(Self { journal, last: last.to_le_bytes()[0], signature: run.signature, packed })
    }

    /// The last entry's sequence number, for a reader that holds the journal up to `high`: the
    /// number with these lowest bits that is nearest.
    #[must_use]
    pub fn last_after(&self, high: u64) -> u64 {
        let lowest = high.saturating_sub(127);
        let ahead = self.last.wrapping_sub(lowest.to_le_bytes()[0]);
        lowest.saturating_add(u64::from(ahead))
    }

    /// The entries, for a reader whose last entry of the journal left this tail. Only the
    /// signature tells whether it was the right one.
    ///
    /// # Errors
    /// A [`CodecError`].
    pub fn unpack(&self, tail: &Tail) -> Result<Vec<Entry>, CodecError> {
        let decoder = Decoder::new(dictionary::taught().clone(), &self.packed);
        Reader { decoder, left: COMPACT_BYTES_MAX }.entries(tail)
    }
}

/// The frame of stored entries for a peer that holds all before them: compact if the run is
/// small. `before` reads the entry before the run.
pub fn range_frame<E>(run: Run, before: impl FnOnce(u64) -> Result<Option<Entry>, E>) -> Result<Vec<u8>, E> {
    if run.info.is_none() && run.entries.len() <= COMPACT_ENTRIES_MAX && run.start > 1 {
        let named = JournalRef::any(run.journal);
        let tail = before(run.start - 1)?.map(|entry| Tail::of(&entry));
        if let Some(compact) = tail.and_then(|tail| Compact::of(&run, &tail, named)) {
            return Ok(Message::Compact(compact).to_frame());
        }
    }
    Ok(Message::Entries(vec![run]).to_frame())
}

/// Teaches a predictor what entries look like.
pub(super) fn teach(predictor: Predictor, entries: &[Entry], tail: &Tail) -> Predictor {
    let mut writer = Writer { encoder: Encoder::new(predictor) };
    writer.entries(entries, tail);
    writer.encoder.taught()
}

/// What kinds of fields there are; values of one kind resemble each other.
mod field {
    pub(super) const FLAGS: u8 = 0;
    pub(super) const WALL: u8 = 1;
    pub(super) const COUNTER: u8 = 2;
    pub(super) const PAGE: u8 = 3;
    pub(super) const USER: u8 = 4;
    pub(super) const AFTER: u8 = 5;
    pub(super) const SHAPE: u8 = 6;
    pub(super) const SALT: u8 = 7;
    pub(super) const LENGTH: u8 = 8;
    /// And the two that follow: personal data, and changes.
    pub(super) const FACTS: u8 = 9;
}

const CLASS_BITS: u8 = 0b11;
const MORE: u8 = 1 << 2;
const OTHER_PAGE: u8 = 1 << 3;
const OTHER_USER: u8 = 1 << 4;
const AFTER: u8 = 1 << 5;
const COUNTER: u8 = 1 << 6;
/// The body is nothing but facts for all members.
const FACTS_ALONE: u8 = 1 << 7;

/// The tender of a sale that is its total, as it is left out: no sale has it otherwise, since a
/// sale that costs nothing has no tender, or one of zero.
const IS_TOTAL: i64 = -1;

struct Writer {
    encoder: Encoder,
}

impl Writer {
    fn entries(&mut self, entries: &[Entry], tail: &Tail) {
        let mut tail = tail.clone();
        for (index, entry) in entries.iter().enumerate() {
            self.entry(entry, &tail, index + 1 < entries.len());
            tail = Tail::of(entry);
        }
    }

    fn entry(&mut self, entry: &Entry, tail: &Tail, more: bool) {
        let facts = facts_alone(entry);
        let counter = entry.time.0 & 0xffff;
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        self.bytes(
            field::FLAGS,
            &[entry.class as u8
                | flag(MORE, more)
                | flag(OTHER_PAGE, entry.page != tail.page)
                | flag(OTHER_USER, entry.user != tail.user)
                | flag(AFTER, !entry.after.is_empty())
                | flag(COUNTER, counter > 0)
                | flag(FACTS_ALONE, facts.is_some())],
        );
        self.number(field::WALL, zigzag(entry.time.wall().0.wrapping_sub(tail.time.wall().0).cast_signed()));
        if counter > 0 {
            self.number(field::COUNTER, counter);
        }
        if entry.page != tail.page {
            self.number(field::PAGE, u64::from(entry.page.ordinal));
            self.number(field::PAGE, zigzag(i64::from(entry.page.day.0)));
        }
        if entry.user != tail.user {
            self.cbor(field::USER, &entry.user);
        }
        if !entry.after.is_empty() {
            self.cbor(field::AFTER, &entry.after);
        }
        match facts {
            Some(bytes) => self.sized(field::FACTS, &without_totals(bytes).unwrap_or_else(|| bytes.to_vec())),
            None => self.parts(&entry.parts),
        }
    }

    fn parts(&mut self, parts: &[Part]) {
        self.number(field::SHAPE, parts.len() as u64);
        for part in parts {
            let erased = matches!(part.content, PartContent::Erased(_));
            let flags = part.kind as u8
                | (part.audience as u8) << 2
                | u8::from(part.salt.is_some()) << 3
                | u8::from(erased) << 4;
            self.bytes(field::SHAPE, &[flags]);
            if let Some(salt) = &part.salt {
                self.bytes(field::SALT, salt);
            }
            match &part.content {
                PartContent::Erased(hash) => self.bytes(field::SALT, hash),
                PartContent::Present(bytes) => self.sized(field::FACTS + part.kind as u8, bytes),
            }
        }
    }

    fn cbor<T: minicbor::Encode<()>>(&mut self, field: u8, value: &T) {
        self.sized(field, &minicbor::to_vec(value).unwrap_or_default());
    }

    fn sized(&mut self, field: u8, bytes: &[u8]) {
        self.number(field::LENGTH, bytes.len() as u64);
        self.bytes(field, bytes);
    }

    fn number(&mut self, field: u8, mut number: u64) {
        self.encoder.begin(field);
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or_default();
            number >>= 7;
            self.encoder.put(if number > 0 { low | 0x80 } else { low });
            if number == 0 {
                return;
            }
        }
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.encoder.begin(field);
        bytes.iter().for_each(|byte| self.encoder.put(*byte));
    }
}

struct Reader<'b> {
    decoder: Decoder<'b>,
    /// How many more bytes may come out.
    left: usize,
}

impl Reader<'_> {
    fn entries(&mut self, tail: &Tail) -> Result<Vec<Entry>, CodecError> {
        let mut tail = tail.clone();
        let mut entries = Vec::new();
        loop {
            let flags = self.byte(field::FLAGS)?;
            entries.push(self.entry(flags, &tail)?);
            if flags & MORE == 0 {
                return Ok(entries);
            }
            if entries.len() >= COMPACT_ENTRIES_MAX {
                return Err(CodecError::OverLimit { what: "entries in a compact run", limit: COMPACT_ENTRIES_MAX });
            }
            tail = entries.last().map(Tail::of).unwrap_or_default();
        }
    }

    fn entry(&mut self, flags: u8, tail: &Tail) -> Result<Entry, CodecError> {
        let class = match flags & CLASS_BITS {
            0 => Class::Payment,
            1 => Class::Membership,
            2 => Class::Intent,
            _ => Class::Normal,
        };
        let step = unzigzag(self.number(field::WALL)?);
        let wall = tail.time.wall().0.wrapping_add(step.cast_unsigned());
        let counter = if flags & COUNTER == 0 { 0 } else { self.number(field::COUNTER)? };
        if wall > u64::MAX >> 16 || counter > 0xffff {
            return Err(malformed("a time is out of range"));
        }
        let page = if flags & OTHER_PAGE == 0 { tail.page } else { self.page()? };
        let user = if flags & OTHER_USER == 0 { tail.user.clone() } else { self.cbor(field::USER)? };
        let after: Vec<After> = if flags & AFTER == 0 { Vec::new() } else { self.cbor(field::AFTER)? };
        let parts = if flags & FACTS_ALONE == 0 {
            self.parts()?
        } else {
            let bytes = self.sized(field::FACTS)?;
            let content = PartContent::Present(with_totals(&bytes).unwrap_or(bytes));
            vec![Part { audience: Audience::Members, kind: PartKind::Facts, salt: None, content }]
        };
        Ok(Entry { class, page, time: Hlc(wall << 16 | counter), user, after, parts, mark: None })
    }

    fn page(&mut self) -> Result<PageLabel, CodecError> {
        let ordinal = u32::try_from(self.number(field::PAGE)?).map_err(|_| malformed("a page is out of range"))?;
        let day = i32::try_from(unzigzag(self.number(field::PAGE)?)).map_err(|_| malformed("a day is out of range"))?;
        Ok(PageLabel { ordinal, day: Day(day) })
    }

    fn parts(&mut self) -> Result<Vec<Part>, CodecError> {
        let count = usize::try_from(self.number(field::SHAPE)?).unwrap_or(usize::MAX);
        if count > PARTS_MAX {
            return Err(CodecError::OverLimit { what: "parts", limit: PARTS_MAX });
        }
        (0..count).map(|_| self.part()).collect()
    }

    fn part(&mut self) -> Result<Part, CodecError> {
        let flags = self.byte(field::SHAPE)?;
        let kind = match flags & 0b11 {
            0 => PartKind::Facts,
            1 => PartKind::Personal,
            2 => PartKind::Changes,
            _ => return Err(malformed("an unknown kind of part")),
        };
        let audience = if flags & 0b100 == 0 { Audience::Members } else { Audience::Relay };
        let salt = if flags & 0b1000 == 0 { None } else { self.bytes(field::SALT, 16)?.try_into().ok() };
        let content = if flags & 0b1_0000 == 0 {
            PartContent::Present(self.sized(field::FACTS + kind as u8)?)
        } else {
            PartContent::Erased(self.bytes(field::SALT, 32)?.try_into().map_err(|_| malformed("a hash"))?)
        };
        Ok(Part { audience, kind, salt, content })
    }

    fn cbor<T: for<'c> minicbor::Decode<'c, ()>>(&mut self, field: u8) -> Result<T, CodecError> {
        Ok(minicbor::decode(&self.sized(field)?)?)
    }

    fn sized(&mut self, field: u8) -> Result<Vec<u8>, CodecError> {
        let count = usize::try_from(self.number(field::LENGTH)?).unwrap_or(usize::MAX);
        self.bytes(field, count)
    }

    fn number(&mut self, field: u8) -> Result<u64, CodecError> {
        self.spend(1)?;
        self.decoder.begin(field);
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.decoder.take();
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(malformed("a number is too long"))
    }

    fn byte(&mut self, field: u8) -> Result<u8, CodecError> {
        self.spend(1)?;
        self.decoder.begin(field);
        Ok(self.decoder.take())
    }

    fn bytes(&mut self, field: u8, count: usize) -> Result<Vec<u8>, CodecError> {
        self.spend(count)?;
        self.decoder.begin(field);
        Ok((0..count).map(|_| self.decoder.take()).collect())
    }

    /// Anything can be read from anything, so what is read is bounded before it is.
    fn spend(&mut self, count: usize) -> Result<(), CodecError> {
        let left = self.left.checked_sub(count);
        self.left = left.ok_or(CodecError::OverLimit { what: "bytes of a compact run", limit: COMPACT_BYTES_MAX })?;
        Ok(())
    }
}

fn malformed(what: &str) -> CodecError {
    CodecError::Malformed(what.to_owned())
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// An upper bound of what [`Reader::spend`] counts for an entry.
fn plain_bytes_max(entry: &Entry) -> usize {
    let parts: usize = entry.parts.iter().map(|part| part.size_bytes() + 64).sum();
    parts + entry.user.as_ref().map_or(0, String::len) + 48 * entry.after.len() + 32
}

/// The body of an entry that is nothing but facts for all members.
fn facts_alone(entry: &Entry) -> Option<&[u8]> {
    match entry.parts.as_slice() {
        [
            Part {
                audience: Audience::Members,
                kind: PartKind::Facts,
                salt: None,
                content: PartContent::Present(bytes),
            },
        ] => {
            // Whatever else looks as if a total were left out goes as it is.
            with_totals(bytes).is_none().then_some(bytes)
        }
        _ => None,
    }
}

/// The same facts, with what a sale's only tender pays left out where it is the total. `None`
/// if there is nothing to leave out, or it would not come back byte for byte.
fn without_totals(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut facts: Vec<Fact> = minicbor::decode(bytes).ok()?;
    let mut left_out = false;
    for sale in facts.iter_mut().filter_map(as_sale) {
        let total = sale.total_minor().ok();
        if let [tender] = sale.tenders.as_mut_slice()
            && Some(tender.amount_minor) == total
        {
            tender.amount_minor = IS_TOTAL;
            left_out = true;
        }
    }
    let short = left_out.then(|| minicbor::to_vec(&facts).ok())??;
    (with_totals(&short).as_deref() == Some(bytes)).then_some(short)
}

fn with_totals(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut facts: Vec<Fact> = minicbor::decode(bytes).ok()?;
    let mut put_back = false;
    for sale in facts.iter_mut().filter_map(as_sale) {
        let total = sale.total_minor().ok();
        if let ([tender], Some(total)) = (sale.tenders.as_mut_slice(), total)
            && tender.amount_minor == IS_TOTAL
        {
            tender.amount_minor = total;
            put_back = true;
        }
    }
    put_back.then(|| minicbor::to_vec(&facts).ok())?
}

fn as_sale(fact: &mut Fact) -> Option<&mut Sale> {
    if let Fact::Sale(sale) = fact { Some(sale) } else { None }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
