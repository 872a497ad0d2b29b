//! Runs of entries on the wire: columns of like bytes, what the chain implies left out,
//! compressed as one block. docs/protocol.md specifies it.

use std::ops::ControlFlow;

use minicbor::{Decode, Encode};

use crate::entry::{After, Audience, Class, Entry, PARTS_MAX, PageLabel, Part, PartContent, PartKind};
use crate::ids::JournalId;
use crate::journal::JournalInfo;
use crate::time::{Day, Hlc};

/// The most entries of a run.
pub const RUN_ENTRIES_MAX: usize = 1_024;
/// A run ends at the first signature once it holds so many bytes of parts.
pub const RUN_BYTES_SOFT: usize = 256 * 1024;
/// The most plaintext of a block: 256 KiB, and the 256 KiB that may follow until a signature,
/// with room for the columns.
pub const BLOCK_PLAINTEXT_BYTES_MAX: usize = 1024 * 1024;
/// The most runs of a block.
pub const RUNS_MAX: usize = 64;

/// Level 3 costs about 1 µs an entry; level 19 gains 5–12 % for a hundred times that.
const ZSTD_LEVEL: i32 = 3;
/// Below this, compression gains nothing.
const COMPRESS_FROM_BYTES: usize = 96;

/// Consecutive entries of one journal, and the author's signature over the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The journal.
    pub journal: JournalId,
    /// How to verify it, for a peer that may not know it.
    pub info: Option<JournalInfo>,
    /// The sequence number of the first entry.
    pub start: u64,
    /// The entries, without marks.
    pub entries: Vec<Entry>,
    /// The author's signature over the last entry's hash.
    pub signature: [u8; 64],
}

/// Cuts stored entries into a run: as many as its limits allow, up to a mark; if there is no
/// mark within them, up to the first one beyond.
#[derive(Debug)]
pub struct RunBuilder {
    run: Run,
    entries_max: usize,
    bytes_soft: usize,
    bytes: usize,
    marked: Option<usize>,
}

impl RunBuilder {
    /// A run that begins at `start`.
    #[must_use]
    pub fn new(journal: JournalId, info: Option<JournalInfo>, start: u64) -> Self {
        let run = Run { journal, info, start, entries: Vec::new(), signature: [0; 64] };
        Self { run, entries_max: RUN_ENTRIES_MAX, bytes_soft: RUN_BYTES_SOFT, bytes: 0, marked: None }
    }

    /// A run of at most so many entries and about so many bytes of parts, for a slow link: what
    /// is cut off in the middle of a run has to be sent again.
    #[must_use]
    pub fn limited_to(mut self, entries: usize, bytes: usize) -> Self {
        self.entries_max = entries.clamp(1, RUN_ENTRIES_MAX);
        self.bytes_soft = bytes.min(RUN_BYTES_SOFT);
        self
    }

    /// Takes the next stored entry; breaks once the run is full.
    pub fn push(&mut self, mut entry: Entry) -> ControlFlow<()> {
        self.bytes += entry.parts.iter().map(Part::size_bytes).sum::<usize>();
        let mark = entry.mark.take();
        self.run.entries.push(entry);
        if let Some(mark) = mark {
            self.marked = Some(self.run.entries.len());
            self.run.signature = mark.signature;
        }
        let full = self.bytes >= self.bytes_soft || self.run.entries.len() >= self.entries_max;
        if full && self.marked.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The run, if it holds a mark.
    #[must_use]
    pub fn finish(mut self) -> Option<Run> {
        self.run.entries.truncate(self.marked?);
        Some(self.run)
    }
}

/// Why a block can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Over a limit of the protocol.
    #[error("the block is over its limit of {limit} {what}")]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// Not a block of this version.
    #[error("the block can't be read: {0}")]
    Malformed(String),
}

impl From<minicbor::decode::Error> for CodecError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A run with its entries as columns.
#[derive(Encode, Decode)]
struct WireRun {
    #[n(0)]
    journal: JournalId,
    #[n(1)]
    info: Option<JournalInfo>,
    #[n(2)]
    start: u64,
    #[n(3)]
    count: u32,
    #[cbor(n(4), with = "minicbor::bytes")]
    signature: [u8; 64],
    /// class, page, wall-clock, counter, user, after, part shapes, salts, facts, personal, changes
    #[n(5)]
    columns: Vec<Column>,
}

#[derive(Encode, Decode, Default)]
#[cbor(transparent)]
struct Column(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>);

#[derive(Clone, Copy)]
enum Name {
    Class,
    Page,
    Wall,
    Counter,
    User,
    After,
    Shapes,
    Salts,
    Facts,
    Personal,
    Changes,
}

const COLUMNS: usize = 11;

/// Writes runs as one block.
#[must_use]
pub fn encode_block(runs: &[Run]) -> Vec<u8> {
    let wire: Vec<WireRun> = runs.iter().map(to_columns).collect();
    let plain = minicbor::to_vec(&wire).unwrap_or_default();
    if plain.len() >= COMPRESS_FROM_BYTES
        && let Ok(packed) = zstd::bulk::compress(&plain, ZSTD_LEVEL)
        && packed.len() < plain.len()
    {
        let mut block = minicbor::to_vec(plain.len() as u64).unwrap_or_default();
        block.extend_from_slice(&packed);
        return block;
    }
    let mut block = minicbor::to_vec(0_u64).unwrap_or_default();
    block.extend_from_slice(&plain);
    block
}

/// Reads a block; every size is checked before anything of that size is allocated.
///
/// # Errors
/// A [`CodecError`].
pub fn decode_block(block: &[u8]) -> Result<Vec<Run>, CodecError> {
    let mut header = minicbor::Decoder::new(block);
    let plain_bytes = usize::try_from(header.u64()?).unwrap_or(usize::MAX);
    let rest = block.get(header.position()..).unwrap_or_default();
    if plain_bytes.max(rest.len()) > BLOCK_PLAINTEXT_BYTES_MAX {
        return Err(CodecError::OverLimit { what: "bytes", limit: BLOCK_PLAINTEXT_BYTES_MAX });
    }
    if plain_bytes == 0 {
        return decode_plain(rest);
    }
    let plain = zstd::bulk::decompress(rest, plain_bytes).map_err(|error| CodecError::Malformed(error.to_string()))?;
    decode_plain(&plain)
}

fn decode_plain(plain: &[u8]) -> Result<Vec<Run>, CodecError> {
    let mut decoder = minicbor::Decoder::new(plain);
    let count = decoder.array()?.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    if count > RUNS_MAX {
        return Err(CodecError::OverLimit { what: "runs", limit: RUNS_MAX });
    }
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        runs.push(from_columns(decoder.decode()?)?);
    }
    if decoder.position() != plain.len() {
        return Err(CodecError::Malformed("the block has bytes left over".to_owned()));
    }
    Ok(runs)
}

/// Appends CBOR values to columns.
struct Writer {
    columns: [Vec<u8>; COLUMNS],
}

impl Writer {
    fn put<T: Encode<()>>(&mut self, name: Name, value: T) {
        if let Some(column) = self.columns.get_mut(name as usize) {
            // Writing to a vector can't fail.
            drop(minicbor::encode(value, column));
        }
    }

    fn extend(&mut self, name: Name, bytes: &[u8]) {
        if let Some(column) = self.columns.get_mut(name as usize) {
            column.extend_from_slice(bytes);
        }
    }
}

fn part_column(kind: PartKind) -> Name {
    match kind {
        PartKind::Facts => Name::Facts,
        PartKind::Personal => Name::Personal,
        PartKind::Changes => Name::Changes,
    }
}

fn to_columns(run: &Run) -> WireRun {
    let mut writer = Writer { columns: std::array::from_fn(|_| Vec::new()) };
    let mut page = PageLabel::default();
    let mut time = Hlc::default();
    for entry in &run.entries {
        writer.put(Name::Class, entry.class);
        if entry.page == page {
            writer.put(Name::Page, 0_u8);
        } else {
            writer.put(Name::Page, 1_u8);
            writer.put(Name::Page, entry.page.ordinal);
            writer.put(Name::Page, entry.page.day.0);
        }
        page = entry.page;
        writer.put(Name::Wall, difference(time.wall().0, entry.time.wall().0));
        writer.put(Name::Counter, entry.time.0 & 0xffff);
        time = entry.time;
        writer.put(Name::User, &entry.user);
        writer.put(Name::After, &entry.after);
        writer.put(Name::Shapes, entry.parts.len() as u64);
        for part in &entry.parts {
            let erased = matches!(part.content, PartContent::Erased(_));
            let flags = part.kind as u8
                | (part.audience as u8) << 2
                | u8::from(part.salt.is_some()) << 3
                | u8::from(erased) << 4;
            writer.put(Name::Shapes, flags);
            if let Some(salt) = &part.salt {
                writer.extend(Name::Salts, salt);
            }
            match &part.content {
                PartContent::Erased(hash) => writer.extend(Name::Salts, hash),
                PartContent::Present(bytes) => {
                    writer.put(Name::Shapes, bytes.len() as u64);
                    writer.extend(part_column(part.kind), bytes);
                }
            }
        }
    }
    WireRun {
        journal: run.journal,
        info: run.info.clone(),
        start: run.start,
        count: u32::try_from(run.entries.len()).unwrap_or(u32::MAX),
        signature: run.signature,
        columns: writer.columns.into_iter().map(Column).collect(),
    }
}

/// Reads CBOR values and plain bytes from columns.
struct Reader<'b> {
    columns: Vec<minicbor::Decoder<'b>>,
}

impl<'b> Reader<'b> {
    fn column(&mut self, name: Name) -> Result<&mut minicbor::Decoder<'b>, CodecError> {
        self.columns.get_mut(name as usize).ok_or_else(|| CodecError::Malformed("a column is missing".to_owned()))
    }

    fn take<T: Decode<'b, ()>>(&mut self, name: Name) -> Result<T, CodecError> {
        Ok(self.column(name)?.decode()?)
    }

    fn bytes(&mut self, name: Name, count: usize) -> Result<&'b [u8], CodecError> {
        let column = self.column(name)?;
        let start = column.position();
        let bytes = start
            .checked_add(count)
            .and_then(|end| column.input().get(start..end))
            .ok_or_else(|| CodecError::Malformed("a column ends early".to_owned()))?;
        column.set_position(start + count);
        Ok(bytes)
    }
}

fn from_columns(wire: WireRun) -> Result<Run, CodecError> {
    let count = wire.count as usize;
    if count == 0 || count > RUN_ENTRIES_MAX {
        return Err(CodecError::OverLimit { what: "entries in a run", limit: RUN_ENTRIES_MAX });
    }
    let mut reader = Reader { columns: wire.columns.iter().map(|column| minicbor::Decoder::new(&column.0)).collect() };
    let mut entries = Vec::with_capacity(count);
    let mut page = PageLabel::default();
    let mut time = Hlc::default();
    for _ in 0..count {
        let entry = take_entry(&mut reader, page, time)?;
        page = entry.page;
        time = entry.time;
        entries.push(entry);
    }
    if reader.columns.iter().any(|column| column.position() != column.input().len()) {
        return Err(CodecError::Malformed("a column has bytes left over".to_owned()));
    }
    Ok(Run { journal: wire.journal, info: wire.info, start: wire.start, entries, signature: wire.signature })
}

fn take_entry(reader: &mut Reader<'_>, page: PageLabel, time: Hlc) -> Result<Entry, CodecError> {
    let class: Class = reader.take(Name::Class)?;
    let page = match reader.take::<u8>(Name::Page)? {
        0 => page,
        _ => PageLabel { ordinal: reader.take(Name::Page)?, day: Day(reader.take(Name::Page)?) },
    };
    let wall = advance(time.wall().0, reader.take(Name::Wall)?);
    let counter: u64 = reader.take(Name::Counter)?;
    if wall > u64::MAX >> 16 || counter > 0xffff {
        return Err(CodecError::Malformed("a time is out of range".to_owned()));
    }
    let user: Option<String> = reader.take(Name::User)?;
    let after: Vec<After> = reader.take(Name::After)?;
    let parts = usize::try_from(reader.take::<u64>(Name::Shapes)?).unwrap_or(usize::MAX);
    if parts > PARTS_MAX {
        return Err(CodecError::OverLimit { what: "parts", limit: PARTS_MAX });
    }
    let parts = (0..parts).map(|_| take_part(reader)).collect::<Result<_, _>>()?;
    Ok(Entry { class, page, time: Hlc(wall << 16 | counter), user, after, parts, mark: None })
}

fn take_part(reader: &mut Reader<'_>) -> Result<Part, CodecError> {
    let flags: u8 = reader.take(Name::Shapes)?;
    let kind = match flags & 0b11 {
        0 => PartKind::Facts,
        1 => PartKind::Personal,
        2 => PartKind::Changes,
        _ => return Err(CodecError::Malformed("an unknown kind of part".to_owned())),
    };
    let audience = if flags & 0b100 == 0 { Audience::Members } else { Audience::Relay };
    let salt = match flags & 0b1000 {
        0 => None,
        _ => reader.bytes(Name::Salts, 16)?.try_into().ok(),
    };
    let content = if flags & 0b1_0000 == 0 {
        let count = usize::try_from(reader.take::<u64>(Name::Shapes)?).unwrap_or(usize::MAX);
        PartContent::Present(reader.bytes(part_column(kind), count)?.to_vec())
    } else {
        let hash = reader.bytes(Name::Salts, 32)?;
        PartContent::Erased(hash.try_into().map_err(|_| CodecError::Malformed("a hash".to_owned()))?)
    };
    Ok(Part { audience, kind, salt, content })
}

/// The signed step from one unsigned number to another, modulo 2^64.
fn difference(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from).cast_signed()
}

fn advance(from: u64, step: i64) -> u64 {
    from.wrapping_add(step.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Place;
    use crate::ids::ShortHash;

    fn part() -> impl Strategy<Value = Part> {
        (
            0..3_u8,
            any::<bool>(),
            any::<Option<[u8; 16]>>(),
            any::<Option<[u8; 32]>>(),
            proptest::collection::vec(any::<u8>(), 0..40),
        )
            .prop_map(|(kind, relay, salt, erased, bytes)| Part {
                kind: [PartKind::Facts, PartKind::Personal, PartKind::Changes][usize::from(kind)],
                audience: if relay { Audience::Relay } else { Audience::Members },
                salt,
                content: erased.map_or(PartContent::Present(bytes), PartContent::Erased),
            })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (
            0..4_usize,
            (any::<u32>(), any::<i32>()),
            any::<u64>(),
            proptest::option::of("[a-z]{0,8}"),
            proptest::collection::vec((any::<[u8; 16]>(), any::<u64>(), any::<[u8; 16]>()), 0..3),
            proptest::collection::vec(part(), 0..4),
        )
            .prop_map(|(class, (ordinal, day), time, user, after, parts)| Entry {
                class: [Class::Payment, Class::Membership, Class::Intent, Class::Normal][class],
                page: PageLabel { ordinal, day: Day(day) },
                time: Hlc(time),
                user,
                after: after
                    .into_iter()
                    .map(|(journal, seq, hash)| After {
                        place: Place { journal: JournalId(journal), seq },
                        hash: ShortHash(hash),
                    })
                    .collect(),
                parts,
                mark: None,
            })
    }

    proptest! {
        #[test]
        fn every_run_comes_back_as_it_was(entries in proptest::collection::vec(entry(), 1..20), start in any::<u64>()) {
            let run = Run { journal: JournalId([3; 16]), info: None, start, entries, signature: [9; 64] };
            prop_assert_eq!(decode_block(&encode_block(std::slice::from_ref(&run))).unwrap(), vec![run]);
        }

        #[test]
        fn damaged_blocks_give_errors_and_never_panic(
            entries in proptest::collection::vec(entry(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
        ) {
            let run = Run { journal: JournalId([3; 16]), info: None, start: 1, entries, signature: [9; 64] };
            let mut block = encode_block(&[run]);
            let at = at.index(block.len());
            if cut { block.truncate(at) } else { block[at] = byte }
            drop(decode_block(&block));
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_inflated() {
        let plain = vec![0_u8; 64 * 1024 * 1024];
        let packed = zstd::bulk::compress(&plain, 3).unwrap();
        for claimed in [plain.len() as u64, 1000] {
            let mut block = minicbor::to_vec(claimed).unwrap();
            block.extend_from_slice(&packed);
            assert!(decode_block(&block).is_err(), "claimed {claimed}");
        }
    }
}
