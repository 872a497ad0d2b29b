//! What every storage engine must do, run on each of them.

use std::ops::ControlFlow;

use crdt_model::entry::{Entry, Place};

use super::packed::unpacked;
use super::power_cut::SimDisk;
use super::rig::{Contents, Engine, FailingEngine, FileEngine, Seeded, contents_of, journal, random_batch, run};
use super::{
    Batch, Durability, EntryRow, Keys, MemoryDisk, ReadEnd, ReadLimits, Reader, Row, RowPage, Rows, StorageError,
};

fn entry(number: u8, seq: u64, text: &str) -> EntryRow {
    EntryRow { place: Place { journal: journal(number), seq }, bytes: text.into() }
}

fn texts(
    reader: &dyn Reader,
    number: u8,
    seqs: std::ops::RangeInclusive<u64>,
    limits: ReadLimits,
) -> (Vec<String>, ReadEnd) {
    let mut found = Vec::new();
    let end = reader.entries(journal(number), seqs, limits, &mut |seq, bytes| {
        found.push(format!("{seq} {}", String::from_utf8_lossy(bytes)));
        ControlFlow::Continue(())
    });
    (found, end.unwrap())
}

fn entries_of_a_journal_come_in_order<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let reader = storage.reader();
    assert_eq!(reader.last_seq(journal(1)).unwrap(), None);
    assert_eq!(texts(reader.as_ref(), 1, 1..=9, ReadLimits::NONE), (vec![], ReadEnd::Finished));

    storage
        .commit(&Batch::own(vec![entry(1, 300, "c"), entry(2, 1, "x"), entry(1, 2, "a"), entry(1, 256, "b")]))
        .unwrap();
    let all = texts(reader.as_ref(), 1, 0..=u64::MAX, ReadLimits::NONE);
    assert_eq!(all, (vec!["2 a".into(), "256 b".into(), "300 c".into()], ReadEnd::Finished));
    assert_eq!(texts(reader.as_ref(), 1, 3..=299, ReadLimits::NONE).0, ["256 b"]);
    #[expect(clippy::reversed_empty_ranges, reason = "a peer may ask for nothing")]
    let nothing = texts(reader.as_ref(), 1, 9..=3, ReadLimits::NONE);
    assert_eq!(nothing, (vec![], ReadEnd::Finished));
    assert_eq!(reader.seqs(journal(1)).unwrap(), Some(2..=300));
    assert_eq!(reader.seqs(journal(2)).unwrap(), Some(1..=1));
    assert_eq!(reader.entry(Place { journal: journal(1), seq: 256 }).unwrap(), Some(b"b".to_vec()));
    assert_eq!(reader.entry(Place { journal: journal(1), seq: 257 }).unwrap(), None);
    assert_eq!(reader.journals(None, 9).unwrap(), [journal(1), journal(2)]);
    assert_eq!(reader.journals(Some(journal(1)), 9).unwrap(), [journal(2)]);
    assert_eq!(reader.journals(None, 1).unwrap(), [journal(1)]);
    let sizes = reader.sizes().unwrap();
    assert_eq!((sizes.entries, sizes.rows), (4, 0));
}

fn a_branch_moves_to_a_journal_of_its_own<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let reader = storage.reader();
    storage.commit(&Batch::own((1..=4).map(|seq| entry(1, seq, "original")).collect())).unwrap();
    let mut batch = Batch::new(Durability::PeerData);
    for seq in 3..=5 {
        batch.drop_entry(Place { journal: journal(1), seq });
        batch.entries.push(entry(2, seq, "branch"));
    }
    batch.entries.push(entry(1, 3, "original again"));
    storage.commit(&batch).unwrap();
    let left = texts(reader.as_ref(), 1, 1..=9, ReadLimits::NONE).0;
    assert_eq!(left, ["1 original", "2 original", "3 original again"]);
    assert_eq!(reader.seqs(journal(2)).unwrap(), Some(3..=5));
}

fn seqs_of(
    reader: &dyn Reader,
    number: u8,
    seqs: std::ops::RangeInclusive<u64>,
    limits: ReadLimits,
) -> (Vec<u64>, ReadEnd) {
    let mut found = Vec::new();
    let end = reader.entries(journal(number), seqs, limits, &mut |seq, _| {
        found.push(seq);
        ControlFlow::Continue(())
    });
    (found, end.unwrap())
}

/// A run in one piece is read as if its entries had come one by one.
fn a_run_is_read_like_its_entries<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let reader = storage.reader();
    let mut batch = Batch::own(vec![entry(1, 3, "before"), entry(1, 15, "behind")]);
    batch.durability = Durability::PeerData;
    batch.runs = vec![run(1, 4, 8, 7), run(2, 1, 5, 9)];
    let single = unpacked(&batch.runs[0]).unwrap();
    storage.commit(&batch).unwrap();
    let everything: Vec<u64> = (3..=11).chain([15]).collect();
    assert_eq!(seqs_of(reader.as_ref(), 1, 0..=u64::MAX, ReadLimits::NONE), (everything, ReadEnd::Finished));
    assert_eq!(seqs_of(reader.as_ref(), 1, 6..=9, ReadLimits::NONE).0, [6, 7, 8, 9]);
    let three = ReadLimits { entries_max: 3, bytes_max: usize::MAX };
    assert_eq!(seqs_of(reader.as_ref(), 1, 5..=20, three), (vec![5, 6, 7], ReadEnd::At(8)));
    assert_eq!(reader.seqs(journal(1)).unwrap(), Some(3..=15));
    assert_eq!(reader.seqs(journal(2)).unwrap(), Some(1..=5));
    assert_eq!(reader.journals(None, 9).unwrap(), [journal(1), journal(2)]);
    assert_eq!(reader.sizes().unwrap().entries, 15);
    for row in &single {
        assert_eq!(reader.entry(row.place).unwrap().as_ref(), Some(&row.bytes));
    }
    let last = Entry::from_bytes(&single[7].bytes).unwrap();
    assert_eq!(last.mark.map(|mark| mark.hash), Some(batch.runs[0].head), "the last one is signed");
    assert_eq!(reader.entry(Place { journal: journal(1), seq: 12 }).unwrap(), None);
    // One is written anew, one goes, and a run comes over what is there.
    storage.commit(&Batch::own(vec![entry(1, 5, "anew")])).unwrap();
    assert_eq!(texts(reader.as_ref(), 1, 5..=5, ReadLimits::NONE).0, ["5 anew"]);
    let mut batch = Batch::new(Durability::PeerData);
    batch.drop_entry(Place { journal: journal(1), seq: 6 });
    storage.commit(&batch).unwrap();
    assert_eq!(seqs_of(reader.as_ref(), 1, 3..=8, ReadLimits::NONE).0, [3, 4, 5, 7, 8]);
    assert_eq!(texts(reader.as_ref(), 1, 5..=5, ReadLimits::NONE).0, ["5 anew"]);
    let mut batch = Batch::new(Durability::PeerData);
    batch.runs = vec![run(1, 5, 4, 8)];
    storage.commit(&batch).unwrap();
    assert_eq!(seqs_of(reader.as_ref(), 1, 3..=8, ReadLimits::NONE).0, [3, 4, 5, 6, 7, 8]);
    let newest = unpacked(&batch.runs[0]).unwrap();
    assert_eq!(reader.entry(newest[0].place).unwrap().as_ref(), Some(&newest[0].bytes));
}

fn reads_stop_at_their_limits<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let reader = storage.reader();
    storage.commit(&Batch::own((1..=5).map(|seq| entry(1, seq, "four")).collect())).unwrap();
    let read = |entries_max, bytes_max| {
        let (found, end) = texts(reader.as_ref(), 1, 1..=5, ReadLimits { entries_max, bytes_max });
        (found.len(), end)
    };
    assert_eq!(read(2, 1000), (2, ReadEnd::At(3)));
    assert_eq!(read(9, 8), (2, ReadEnd::At(3)));
    assert_eq!(read(9, 11), (2, ReadEnd::At(3)));
    assert_eq!(read(9, 1), (1, ReadEnd::At(2)));
    assert_eq!(read(0, 1000), (0, ReadEnd::At(1)));
    assert_eq!(read(5, 20), (5, ReadEnd::Finished));

    let mut seen = 0;
    let broken_off = reader.entries(journal(1), 1..=5, ReadLimits::NONE, &mut |seq, _| {
        seen = seq;
        if seq == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((seen, broken_off.unwrap()), (3, ReadEnd::At(4)));
}

fn named_rows_are_put_listed_and_deleted<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let reader = storage.reader();
    let mut batch = Batch::new(Durability::OwnEntries);
    for key in ["b", "a/2", "a/1", "a", "a/3"] {
        batch.put(Rows::Local, key, key.to_uppercase());
    }
    batch.put(Rows::Journals, "a/1", "another");
    batch.put(Rows::Local, "", "no key");
    storage.commit(&batch).unwrap();
    assert_eq!(reader.row(Rows::Local, b"a/2").unwrap(), Some(b"A/2".to_vec()));
    assert_eq!(reader.row(Rows::Attempts, b"a/2").unwrap(), None);

    let list = |prefix: &str, after: Option<&str>, entries_max| {
        let keys = Keys { prefix: prefix.as_bytes(), after: after.map(str::as_bytes) };
        let page = reader.rows(Rows::Local, keys, ReadLimits { entries_max, bytes_max: 100 }).unwrap();
        let keys: Vec<_> = page.rows.into_iter().map(|row| String::from_utf8(row.key).unwrap()).collect();
        (keys.join(" "), page.more)
    };
    assert_eq!(list("", None, 9), (" a a/1 a/2 a/3 b".to_owned(), false));
    assert_eq!(list("a/", None, 9), ("a/1 a/2 a/3".to_owned(), false));
    assert_eq!(list("a/", None, 2), ("a/1 a/2".to_owned(), true));
    assert_eq!(list("a/", Some("a/2"), 2), ("a/3".to_owned(), false));
    assert_eq!(list("a/", Some("a"), 9), ("a/1 a/2 a/3".to_owned(), false));
    assert_eq!(list("c", None, 9), (String::new(), false));
    let little = ReadLimits { entries_max: 9, bytes_max: 1 };
    let page = reader.rows(Rows::Local, Keys { prefix: b"b", after: None }, little).unwrap();
    assert_eq!(page, RowPage { rows: vec![Row { key: b"b".into(), value: b"B".into() }], more: false });

    let mut batch = Batch::new(Durability::PeerData);
    batch.delete(Rows::Local, "a/2");
    batch.delete(Rows::Local, "never there");
    batch.put(Rows::Local, "a/1", "first");
    batch.put(Rows::Local, "a/1", "last");
    storage.commit(&batch).unwrap();
    assert_eq!(list("a/", None, 9), ("a/1 a/3".to_owned(), false));
    assert_eq!(reader.row(Rows::Local, b"a/1").unwrap(), Some(b"last".to_vec()));
    assert_eq!(reader.row(Rows::Journals, b"a/1").unwrap(), Some(b"another".to_vec()));
}

fn a_read_sees_nothing_that_is_committed_meanwhile<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let reader = storage.reader();
    storage.commit(&Batch::own((1..=50).map(|seq| entry(1, seq, "old")).collect())).unwrap();
    let mut seen = 0;
    let end = reader.entries(journal(1), 1..=u64::MAX, ReadLimits::NONE, &mut |seq, bytes| {
        assert_eq!(bytes, b"old", "at {seq}");
        seen += 1;
        let news = (seq..=60).map(|seq| entry(1, seq, "new")).collect();
        storage.commit(&Batch::own(news)).unwrap();
        assert_eq!(reader.last_seq(journal(1)).unwrap(), Some(60), "another call sees it at once");
        ControlFlow::Continue(())
    });
    assert_eq!((seen, end.unwrap()), (50, ReadEnd::Finished));
}

fn everything_is_there_after_a_restart<E: Engine>() {
    for crash in [false, true] {
        let engine = E::new();
        let mut storage = engine.open();
        let mut expected = Contents::default();
        let mut seeded = Seeded::new(11);
        for _ in 0..20 {
            let mut batch = random_batch(&mut seeded);
            batch.durability = if seeded.below(2) == 0 { Durability::OwnEntries } else { Durability::Background };
            storage.commit(&batch).unwrap();
            expected.apply(&batch);
        }
        let last = Batch::own(vec![entry(1, 99, "durable, and so is all before")]);
        storage.commit(&last).unwrap();
        expected.apply(&last);
        let closed = storage.reader();
        let storage = if crash {
            engine.open_after_crash(storage)
        } else {
            drop(storage);
            engine.open()
        };
        assert_eq!(contents_of(storage.reader().as_ref()).unwrap(), expected, "crash: {crash}");
        assert!(matches!(closed.last_seq(journal(1)), Err(StorageError::Closed)));
    }
}

fn a_crash_takes_only_background_batches<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    storage.commit(&Batch::own(vec![entry(1, 1, "sale")])).unwrap();
    let mut background = Batch::new(Durability::Background);
    background.put(Rows::Pages, "page", "rendered");
    storage.commit(&background).unwrap();
    assert!(storage.reader().row(Rows::Pages, b"page").unwrap().is_some());
    let storage = engine.open_after_crash(storage);
    assert_eq!(storage.reader().last_seq(journal(1)).unwrap(), Some(1));
    assert_eq!(storage.reader().row(Rows::Pages, b"page").unwrap(), None);
}

fn rows_that_can_be_made_again_stay_from_the_next_commit_on<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let derived = |number: u8| {
        let mut batch = Batch::new(Durability::Background);
        batch.put(Rows::Queue, vec![number], vec![number; 5_000]);
        batch
    };
    let held = |storage: &dyn super::Storage| -> Vec<u8> {
        (0..40).filter(|number| storage.reader().row(Rows::Queue, &[*number]).unwrap().is_some()).collect()
    };
    // More than one record takes along, with a reader in between.
    for number in 0..20 {
        storage.commit(&derived(number)).unwrap();
        assert!(storage.reader().row(Rows::Queue, &[number]).unwrap().is_some());
    }
    storage.commit(&Batch::own(vec![entry(1, 1, "sale")])).unwrap();
    for number in 20..22 {
        storage.commit(&derived(number)).unwrap();
        assert_eq!(held(storage.as_ref()), (0..=number).collect::<Vec<u8>>());
    }
    let mut storage = engine.open_after_crash(storage);
    assert_eq!(held(storage.as_ref()), (0..20).collect::<Vec<u8>>());
    storage.commit(&derived(30)).unwrap();
    storage.commit(&Batch::own(vec![entry(1, 2, "sale")])).unwrap();
    drop(storage);
    let storage = engine.open();
    assert_eq!(held(storage.as_ref()), (0..20).chain([30]).collect::<Vec<u8>>());
    assert_eq!(storage.reader().last_seq(journal(1)).unwrap(), Some(2));
}

fn a_signature_is_added_and_a_crash_may_take_it_back_alone<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let reader = storage.reader();
    storage.commit(&Batch::own(vec![entry(1, 1, "sale"), entry(1, 2, "sale")])).unwrap();
    storage.settle(vec![entry(1, 2, "sale, signed")]).unwrap();
    assert_eq!(texts(reader.as_ref(), 1, 1..=9, ReadLimits::NONE).0, ["1 sale", "2 sale, signed"]);
    let mut storage = engine.open_after_crash(storage);
    let found = texts(storage.reader().as_ref(), 1, 1..=9, ReadLimits::NONE).0;
    assert!(found == ["1 sale", "2 sale"] || found == ["1 sale", "2 sale, signed"], "{found:?}");
    storage.settle(vec![entry(1, 2, "sale, signed")]).unwrap();
    storage.commit(&Batch::own(vec![entry(1, 3, "sale")])).unwrap();
    drop(storage);
    let found = texts(engine.open().reader().as_ref(), 1, 1..=9, ReadLimits::NONE).0;
    assert_eq!(found, ["1 sale", "2 sale, signed", "3 sale"]);
}

fn a_failed_commit_leaves_nothing_and_ends_the_writer<E: FailingEngine>() {
    let engine = E::new();
    let mut storage = engine.open();
    storage.commit(&Batch::own(vec![entry(1, 1, "sale")])).unwrap();
    engine.fail_next_commit();
    let mut batch = Batch::own(vec![entry(1, 2, "lost")]);
    batch.put(Rows::Local, "lost", "too");
    assert!(matches!(storage.commit(&batch), Err(StorageError::Full)));
    assert!(matches!(storage.commit(&batch), Err(StorageError::Ended)));
    let storage = engine.open_after_crash(storage);
    let reader = storage.reader();
    assert_eq!(reader.last_seq(journal(1)).unwrap(), Some(1));
    assert_eq!(reader.row(Rows::Local, b"lost").unwrap(), None);
}

fn what_is_too_large_is_refused_whole<E: Engine>() {
    let engine = E::new();
    let mut storage = engine.open();
    let mut batch = Batch::own(vec![entry(1, 1, "sale")]);
    batch.put(Rows::Local, vec![0; super::ROW_KEY_BYTES_MAX + 1], "");
    let refused = storage.commit(&batch).unwrap_err();
    assert_eq!(refused.to_string(), "a row's key of 1025 bytes is over the limit of 1024: nothing was written");
    assert_eq!(storage.reader().last_seq(journal(1)).unwrap(), None);
}

macro_rules! contract {
    ($name:ident, $engine:ident: $($story:ident)*) => {
        mod $name {
            $(#[test]
            fn $story() {
                super::$story::<super::$engine>();
            })*
        }
    };
}

macro_rules! contract_of_every_engine {
    ($name:ident, $engine:ident) => {
        contract!($name, $engine:
            entries_of_a_journal_come_in_order
            a_branch_moves_to_a_journal_of_its_own
            a_run_is_read_like_its_entries
            reads_stop_at_their_limits
            named_rows_are_put_listed_and_deleted
            a_read_sees_nothing_that_is_committed_meanwhile
            everything_is_there_after_a_restart
            a_crash_takes_only_background_batches
            rows_that_can_be_made_again_stay_from_the_next_commit_on
            a_signature_is_added_and_a_crash_may_take_it_back_alone
            what_is_too_large_is_refused_whole
        );
    };
}

contract_of_every_engine!(in_memory, MemoryDisk);
contract_of_every_engine!(redb_file, FileEngine);
contract_of_every_engine!(redb_on_a_simulated_disk, SimDisk);
// A real disk can't be told to fail.
contract!(in_memory_failing, MemoryDisk: a_failed_commit_leaves_nothing_and_ends_the_writer);
contract!(redb_on_a_failing_disk, SimDisk: a_failed_commit_leaves_nothing_and_ends_the_writer);
