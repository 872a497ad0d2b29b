//! Pages: the Automerge rendering of a journal. One entry with facts is one change, and every
//! replica renders the same hashes and heads from the same entries.

use std::fmt;
use std::str::FromStr;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, AutomergeError, ObjType, ROOT, ReadDoc, ScalarValue, Value};

use crate::entry::{Audience, Entry, FACTS_MAX, PAGE_FACTS_MAX, PageLabel, Part, PartContent, PartKind, Place};
use crate::ids::JournalId;
use crate::record::Fact;

/// A page of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    /// The journal.
    pub journal: JournalId,
    /// The page's number in it, from 0.
    pub ordinal: u32,
}

/// A text that names no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("not a page id: write page-, the journal's 32 hexadecimal digits, - and the page's number")]
pub struct PageIdError;

/// A rendered page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// An Automerge save, which any Automerge library opens.
    pub bytes: Vec<u8>,
    /// The document's heads: equal on all replicas with the same entries.
    pub heads: Vec<[u8; 32]>,
}

/// One fact of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageFact {
    /// The sequence number of its entry.
    pub seq: u64,
    /// Its place among the entry's facts.
    pub index: u32,
    /// The fact.
    pub fact: Fact,
}

/// Why a page can't be rendered or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// An entry is not on the page, or not in its order.
    #[error("entry {seq} is not the next one of this page: give the page's own entries in order")]
    WrongEntry {
        /// The entry's sequence number.
        seq: u64,
    },
    /// An entry's facts can't be taken apart.
    #[error("the facts of entry {seq} can't be read: {reason}")]
    Facts {
        /// The entry's sequence number.
        seq: u64,
        /// What is wrong with them.
        reason: String,
    },
    /// There are more facts than a page holds.
    #[error("the page has more than {limit} facts")]
    TooManyFacts {
        /// How many it may have.
        limit: usize,
    },
    /// Automerge refused a fact.
    #[error("the page can't be rendered: {0}")]
    Failed(String),
    /// The bytes are no saved page.
    #[error("the saved page can't be read: {0}; render it again from the journal")]
    Unreadable(String),
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page-{}-{}", self.journal, self.ordinal)
    }
}

impl FromStr for PageId {
    type Err = PageIdError;

    fn from_str(text: &str) -> Result<Self, PageIdError> {
        let (journal, ordinal) = text.strip_prefix("page-").and_then(|rest| rest.split_once('-')).ok_or(PageIdError)?;
        let id = Self {
            journal: journal.parse().map_err(|_| PageIdError)?,
            ordinal: ordinal.parse().map_err(|_| PageIdError)?,
        };
        if id.to_string() != text {
            return Err(PageIdError);
        }
        Ok(id)
    }
}

/// Renders a page from all its entries, in order. Facts for all members are on it, as the CBOR
/// that the entry holds, under `<seq>/<index>`; personal data and what is for the relay alone
/// are not. A change's time is its entry's, in whole seconds since 1970 UTC.
///
/// # Errors
/// [`PageError`], if the entries are not the page's.
pub fn render(entries: &[(Place, &Entry)], journal: JournalId, page: PageLabel) -> Result<Page, PageError> {
    let mut doc = begin(journal, page)?;
    doc.set_actor(ActorId::from(journal.as_bytes().as_slice()));
    let (mut last_seq, mut count) = (0, 0);
    for (place, entry) in entries {
        let seq = place.seq;
        if place.journal != journal || entry.page != page || seq <= last_seq {
            return Err(PageError::WrongEntry { seq });
        }
        last_seq = seq;
        let facts = facts_of(entry).map_err(|reason| PageError::Facts { seq, reason })?;
        count += facts.len();
        if count > FACTS_ON_A_PAGE_MAX {
            return Err(PageError::TooManyFacts { limit: FACTS_ON_A_PAGE_MAX });
        }
        if facts.is_empty() {
            continue;
        }
        commit(&mut doc, seconds(entry), |change| {
            facts.iter().enumerate().try_for_each(|(index, fact)| {
                change.put(ROOT, format!("{seq}/{index}"), ScalarValue::Bytes(fact.to_vec()))
            })
        })?;
    }
    Ok(Page { bytes: doc.save(), heads: doc.get_heads().into_iter().map(|hash| hash.0).collect() })
}

/// Reads the facts of a saved page, in order.
///
/// # Errors
/// [`PageError::Unreadable`].
pub fn read(bytes: &[u8]) -> Result<Vec<PageFact>, PageError> {
    let doc = Automerge::load(bytes).map_err(|error| PageError::Unreadable(error.to_string()))?;
    let mut facts = Vec::new();
    for item in doc.map_range(ROOT, ..) {
        if item.key.starts_with('_') {
            continue;
        }
        let unreadable = |reason: &str| PageError::Unreadable(format!("{}: {reason}", item.key));
        let (seq, index) = item
            .key
            .split_once('/')
            .and_then(|(seq, index)| Some((seq.parse().ok()?, index.parse().ok()?)))
            .ok_or_else(|| unreadable("not the place of a fact"))?;
        let Value::Scalar(scalar) = item.value.clone().into_value() else {
            return Err(unreadable("not a fact"));
        };
        let cbor = scalar.as_bytes().ok_or_else(|| unreadable("not a fact"))?;
        let fact = minicbor::decode(cbor).map_err(|error| unreadable(&error.to_string()))?;
        facts.push(PageFact { seq, index, fact });
    }
    facts.sort_by_key(|fact| (fact.seq, fact.index));
    Ok(facts)
}

/// An entry that starts below the limit may exceed it.
const FACTS_ON_A_PAGE_MAX: usize = PAGE_FACTS_MAX as usize + FACTS_MAX;

/// Not 16 bytes, so that it can be no journal.
const FIRST_ACTOR: &[u8; 8] = b"tillmesh";

/// The first change of a page is the same wherever the page is rendered.
fn begin(journal: JournalId, page: PageLabel) -> Result<Automerge, PageError> {
    let mut doc = Automerge::new().with_actor(ActorId::from(FIRST_ACTOR.as_slice()));
    commit(&mut doc, 0, |change| {
        let mut put_text = |key, text: String| {
            let object = change.put_object(ROOT, key, ObjType::Text)?;
            change.splice_text(object, 0, 0, &text)
        };
        put_text("_day", page.day.to_string())?;
        put_text("_journal", journal.to_string())?;
        change.put(ROOT, "_page", i64::from(page.ordinal))
    })?;
    Ok(doc)
}

fn commit(
    doc: &mut Automerge,
    seconds: i64,
    puts: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
) -> Result<(), PageError> {
    doc.transact_with::<_, _, AutomergeError, _>(|()| CommitOptions::default().with_time(seconds), puts)
        .map(|_| ())
        .map_err(|failure| PageError::Failed(failure.error.to_string()))
}

fn seconds(entry: &Entry) -> i64 {
    i64::try_from(entry.time.wall().0 / 1000).unwrap_or(i64::MAX)
}

/// The CBOR of each fact that every member may read.
fn facts_of(entry: &Entry) -> Result<Vec<&[u8]>, String> {
    let mut facts = Vec::new();
    for part in entry.parts.iter().filter(|part| shown(part)) {
        let PartContent::Present(bytes) = &part.content else { continue };
        let mut decoder = minicbor::Decoder::new(bytes);
        let count = decoder.array().map_err(|error| error.to_string())?.ok_or("a list without a length")?;
        if count > FACTS_MAX as u64 {
            return Err(format!("more than {FACTS_MAX} facts"));
        }
        for _ in 0..count {
            let start = decoder.position();
            decoder.skip().map_err(|error| error.to_string())?;
            facts.push(bytes.get(start..decoder.position()).ok_or("cut short")?);
        }
    }
    Ok(facts)
}

fn shown(part: &Part) -> bool {
    part.audience == Audience::Members && part.kind == PartKind::Facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Body, Class, Personal};
    use crate::record::Custom;
    use crate::time::{Day, Hlc, Timestamp};

    const JOURNAL: JournalId = JournalId([7; 16]);
    const PAGE: PageLabel = PageLabel { ordinal: 3, day: Day(14_944) };

    fn custom(path: &str) -> Fact {
        Fact::Custom(Custom {
            source: None,
            operation_type: "loyalty".to_owned(),
            method: "POST".to_owned(),
            path: path.to_owned(),
            body: "{}".to_owned(),
            ..Custom::default()
        })
    }

    fn entry(facts: Vec<Fact>, second: u64) -> Entry {
        let personal = vec![Personal { fact: 0, phone: Some("254708374149".to_owned()) }];
        let body = Body { facts, personal, changes: Vec::new() };
        Entry {
            class: Class::Normal,
            page: PAGE,
            time: Hlc::from_wall(Timestamp(second * 1000 + 999)),
            user: None,
            after: Vec::new(),
            parts: body.to_parts(|| [9; 16]),
            mark: None,
        }
    }

    fn entries() -> Vec<(Place, Entry)> {
        let place = |seq| Place { journal: JOURNAL, seq };
        vec![
            (place(9), entry(vec![custom("/a"), custom("/b")], 100)),
            (place(10), entry(vec![], 101)),
            (place(11), entry(vec![custom("/c")], 102)),
        ]
    }

    fn rendered(entries: &[(Place, Entry)]) -> Result<Page, PageError> {
        let borrowed: Vec<_> = entries.iter().map(|(place, entry)| (*place, entry)).collect();
        render(&borrowed, JOURNAL, PAGE)
    }

    #[test]
    fn a_page_reads_back_as_the_facts_of_its_entries_in_order() {
        let facts = read(&rendered(&entries()).unwrap().bytes).unwrap();
        let places: Vec<_> = facts.iter().map(|fact| (fact.seq, fact.index)).collect();
        assert_eq!(places, [(9, 0), (9, 1), (11, 0)]);
        assert_eq!(facts[1].fact, custom("/b"));
        assert_eq!(facts[2].fact, custom("/c"));
    }

    #[test]
    fn every_replica_renders_the_heads_of_the_golden_vector() {
        let page = rendered(&entries()).unwrap();
        assert_eq!(page, rendered(&entries()).unwrap());
        let heads: Vec<_> = page.heads.iter().map(|head| data_encoding::HEXLOWER.encode(head)).collect();
        assert_eq!(heads, ["4997362f8356a78ef528be09dfa4d2f0484f5fa048fb9a38a3ba3bae08942aae"]);
    }

    #[test]
    fn each_entry_is_one_change_of_its_journal_at_its_time() {
        let doc = Automerge::load(&rendered(&entries()).unwrap().bytes).unwrap();
        let changes = doc.get_changes(&[]);
        let seen: Vec<_> = changes.iter().map(|change| (change.seq(), change.timestamp(), change.len())).collect();
        assert_eq!(seen, [(1, 0, 10 + 32 + 3), (1, 100, 2), (2, 102, 1)]);
        assert!(changes[1..].iter().all(|change| change.actor_id().to_bytes() == JOURNAL.as_bytes()));
    }

    #[test]
    fn personal_data_and_parts_for_the_relay_never_reach_a_page() {
        let mut entries = entries();
        entries[2].1.parts[0].audience = Audience::Relay;
        let page = rendered(&entries).unwrap();
        assert_eq!(read(&page.bytes).unwrap().len(), 2);
        let doc = Automerge::load(&page.bytes).unwrap();
        assert!(!format!("{:?}", doc.hydrate(None)).contains("254708374149"));
    }

    #[test]
    fn entries_of_another_page_journal_or_order_are_refused() {
        let mut swapped = entries();
        swapped.swap(0, 2);
        assert_eq!(rendered(&swapped), Err(PageError::WrongEntry { seq: 10 }));
        let mut other_page = entries();
        other_page[0].1.page.ordinal = 4;
        assert_eq!(rendered(&other_page), Err(PageError::WrongEntry { seq: 9 }));
        let mut other_journal = entries();
        other_journal[1].0.journal = JournalId([8; 16]);
        assert_eq!(rendered(&other_journal), Err(PageError::WrongEntry { seq: 10 }));
        let mut cut = entries();
        if let PartContent::Present(bytes) = &mut cut[0].1.parts[0].content {
            bytes.truncate(bytes.len() - 1);
        }
        assert!(matches!(rendered(&cut), Err(PageError::Facts { seq: 9, .. })));
        assert!(read(b"not a page").is_err());
    }

    #[test]
    fn page_ids_round_trip_through_text() {
        let id = PageId { journal: JOURNAL, ordinal: 12 };
        assert_eq!(id.to_string(), format!("page-{}-12", "07".repeat(16)));
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["page-", "page-07-1", &format!("page-{JOURNAL}-01"), &format!("page-{JOURNAL}"), "sales-1"] {
            assert_eq!(wrong.parse::<PageId>(), Err(PageIdError), "{wrong}");
        }
    }
}
