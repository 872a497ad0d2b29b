//! Compact runs come back as they were, cost what the protocol promises, and are bounded.

use proptest::prelude::*;

use super::*;
use crate::entry::Body;
use crate::money::Currency;
use crate::record::{Line, Tender, TenderKind};
use crate::sync::codec::Run;
use crate::sync::message::Message;
use crate::time::Timestamp;

const JOURNAL: JournalId = JournalId([3; 16]);

fn sold(sku: &str, quantity: i64, price: i64, key: Option<&str>) -> Fact {
    let line = Line {
        sku: sku.to_owned(),
        quantity_milli: quantity * 1000,
        unit_price_minor: price,
        discount_minor: 0,
        tax_rate_bp: None,
    };
    Fact::Sale(Sale {
        source: key.map(|key| crate::record::Source { instance: "pos".to_owned(), key: key.to_owned() }),
        occurred: None,
        currency: Currency::KES,
        lines: vec![line],
        tenders: vec![Tender { kind: TenderKind::Cash, amount_minor: quantity * price }],
        customer: None,
        note: None,
        ticket: None,
    })
}

fn tail() -> Tail {
    Tail {
        time: Hlc::from_wall(Timestamp(1_800_000_000_000)),
        page: PageLabel { ordinal: 7, day: Day(20_833) },
        user: Some("amina".to_owned()),
    }
}

fn entry_of(facts: Vec<Fact>, after_ms: u64) -> Entry {
    Entry {
        class: Class::Normal,
        page: tail().page,
        time: Hlc::from_wall(Timestamp(1_800_000_000_000 + after_ms)),
        user: tail().user,
        after: Vec::new(),
        parts: Body { facts, ..Body::default() }.to_parts(|| [0; 16]),
        mark: None,
    }
}

fn run_of(entries: Vec<Entry>) -> Run {
    Run { journal: JOURNAL, info: None, start: 300, entries, signature: [9; 64] }
}

fn compact(entries: Vec<Entry>) -> Compact {
    Compact::of(&run_of(entries), &tail(), JournalRef::of_end(JOURNAL)).unwrap()
}

#[test]
fn a_live_sale_and_its_acknowledgement_are_small() {
    for (sku, quantity, price, bytes) in [
        ("BREAD", 2, 6500, 75),
        ("MILK", 1, 7000, 77),
        ("5901234123457", 12, 34_550, 84),
        ("SHOVEL-XL", 3, 129_900, 92),
    ] {
        let entry = entry_of(vec![sold(sku, quantity, price, None)], 47_123);
        let live = compact(vec![entry.clone()]);
        assert_eq!(live.unpack(&tail()).unwrap(), [entry]);
        let frame = Message::Compact(live.clone()).to_frame();
        assert_eq!(frame.len(), bytes, "{sku}");
        assert_eq!(Message::from_frame(&frame).unwrap(), Message::Compact(live));
    }
    for (high, bytes) in [(99, 4), (9_999, 5), (1_999_999, 6)] {
        let have = Message::Have(vec![(JournalRef::of_end(JOURNAL), high)]);
        assert_eq!(have.to_frame().len(), bytes);
        assert_eq!(Message::from_frame(&have.to_frame()).unwrap(), have);
    }
}

#[test]
fn a_hundred_waiting_sales_are_small_too() {
    let sale = |number: u64| {
        let sku = ["BREAD", "MILK", "5901234123457", "SHOVEL-XL"][usize::try_from(number % 4).unwrap()];
        let (quantity, price) = (1 + number.cast_signed() * 7 % 4, 6500 + 150 * (number.cast_signed() * 11 % 17));
        entry_of(vec![sold(sku, quantity, price, None)], number * 41_003 + number * number * 13 % 9_000)
    };
    let frame = Message::Entries(vec![run_of((0..100).map(sale).collect())]).to_frame();
    assert!(frame.len() <= 1_200, "{} bytes", frame.len());
}

#[test]
fn a_run_that_is_large_or_introduces_its_journal_goes_as_a_block() {
    let many = vec![entry_of(vec![sold("BREAD", 1, 6500, None)], 0); COMPACT_ENTRIES_MAX + 1];
    let large = vec![entry_of(vec![sold(&"B".repeat(100), 1, 6500, None); 20], 0)];
    for entries in [many, large] {
        assert_eq!(Compact::of(&run_of(entries), &tail(), JournalRef::any(JOURNAL)), None);
    }
}

#[test]
fn a_total_that_was_never_right_comes_back_as_it_was() {
    for amount_minor in [-1, 0, 5] {
        let Fact::Sale(mut sale) = sold("BREAD", 1, 6500, None) else { panic!("a sale") };
        sale.tenders[0].amount_minor = amount_minor;
        let entry = entry_of(vec![Fact::Sale(sale)], 0);
        assert_eq!(compact(vec![entry.clone()]).unpack(&tail()).unwrap(), [entry]);
    }
}

#[test]
fn the_last_entry_is_the_nearest_with_these_bits() {
    let mut run = compact(vec![entry_of(vec![sold("BREAD", 1, 6500, None)], 0)]);
    for (last, high, meant) in
        [(1, 0, 1), (255, 254, 255), (0, 255, 256), (1, 255, 257), (0x2c, 299, 300), (0x2b, 300, 299), (0xff, 300, 255)]
    {
        run.last = last;
        assert_eq!(run.last_after(high), meant, "{last} after {high}");
    }
}

#[test]
fn endless_entries_and_sizes_end_at_the_limits() {
    // What a packer without limits would write: many entries, or a part that claims a gigabyte.
    let entry = entry_of(vec![sold("BREAD", 1, 6500, None)], 0);
    let mut writer = Writer { encoder: Encoder::new(dictionary::taught().clone()) };
    writer.entries(&vec![entry; COMPACT_ENTRIES_MAX + 1], &tail());
    let many = Compact { packed: writer.encoder.finish(), ..compact(Vec::new()) };
    assert!(matches!(many.unpack(&tail()), Err(CodecError::OverLimit { .. })));
    let mut writer = Writer { encoder: Encoder::new(dictionary::taught().clone()) };
    writer.bytes(field::FLAGS, &[FACTS_ALONE | 3]);
    writer.number(field::WALL, 0);
    writer.number(field::LENGTH, 1 << 30);
    let large = Compact { packed: writer.encoder.finish(), ..compact(Vec::new()) };
    assert!(matches!(large.unpack(&tail()), Err(CodecError::OverLimit { .. })));
}

fn part() -> impl Strategy<Value = Part> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    let hidden = (any::<Option<[u8; 16]>>(), any::<Option<[u8; 32]>>());
    (0..3_u8, any::<bool>(), hidden, bytes).prop_map(|(kind, relay, (salt, erased), bytes)| Part {
        kind: [PartKind::Facts, PartKind::Personal, PartKind::Changes][usize::from(kind)],
        audience: if relay { Audience::Relay } else { Audience::Members },
        salt,
        content: erased.map_or(PartContent::Present(bytes), PartContent::Erased),
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let after = proptest::collection::vec((any::<[u8; 16]>(), any::<u64>(), any::<[u8; 16]>()), 0..3);
    let parts = proptest::collection::vec(part(), 0..4);
    let sales = (any::<bool>(), 1..9_i64, 0..9_999_i64);
    (0..4_usize, (any::<u32>(), any::<i32>()), any::<u64>(), proptest::option::of("[a-z]{0,8}"), after, parts, sales)
        .prop_map(|(class, (ordinal, day), time, user, after, parts, (sells, quantity, price))| {
            if sells {
                return entry_of(vec![sold("BREAD", quantity, price, user.as_deref())], time % 1_000_000);
            }
            let after = after.into_iter().map(|(journal, seq, hash)| After {
                place: crate::entry::Place { journal: JournalId(journal), seq },
                hash: crate::ids::ShortHash(hash),
            });
            Entry {
                class: [Class::Payment, Class::Membership, Class::Intent, Class::Normal][class],
                page: PageLabel { ordinal, day: Day(day) },
                time: Hlc(time),
                user,
                after: after.collect(),
                parts,
                mark: None,
            }
        })
}

proptest! {
    #[test]
    fn every_small_run_comes_back_as_it_was(entries in proptest::collection::vec(entry(), 1..=COMPACT_ENTRIES_MAX)) {
        if let Some(packed) = Compact::of(&run_of(entries.clone()), &tail(), JournalRef::any(JOURNAL)) {
            let frame = Message::Compact(packed).to_frame();
            let Message::Compact(read) = Message::from_frame(&frame).unwrap() else { panic!("a compact run") };
            prop_assert_eq!(read.unpack(&tail()).unwrap(), entries);
        }
    }

    #[test]
    fn any_bytes_at_all_give_entries_or_an_error_within_the_limits(
        packed in proptest::collection::vec(any::<u8>(), 0..300), time in any::<u64>()
    ) {
        let garbage = Compact { packed, ..compact(Vec::new()) };
        if let Ok(entries) = garbage.unpack(&Tail { time: Hlc(time), ..tail() }) {
            let bytes: usize = entries.iter().flat_map(|entry| &entry.parts).map(Part::size_bytes).sum();
            // A left-out total may come back longer.
            prop_assert!(bytes <= 2 * COMPACT_BYTES_MAX && entries.len() <= COMPACT_ENTRIES_MAX);
        }
    }

    #[test]
    fn frames_cut_or_damaged_anywhere_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(), which in 0..3) {
        let mut frame = match which {
            0 => Message::Compact(compact(vec![entry_of(vec![sold("BREAD", 1, 6500, None)], 0)])),
            1 => Message::Have(vec![(JournalRef::of_end(JOURNAL), 7)]),
            _ => Message::Have(vec![(JournalRef::any(JOURNAL), 7), (JournalRef::any(JournalId([4; 16])), 900)]),
        }
        .to_frame();
        let at = at.index(frame.len());
        if cut { frame.truncate(at) } else { frame[at] = byte }
        if let Ok(Message::Compact(read)) = Message::from_frame(&frame) {
            drop(read.unpack(&tail()));
        }
    }
}
