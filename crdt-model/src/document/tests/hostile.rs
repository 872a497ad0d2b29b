//! Changes that no honest device makes, by hand and at random.

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc};
use proptest::prelude::*;

use super::super::*;
use super::convergence::{play, shown, steps};
use super::*;

#[test]
fn a_till_that_comes_back_with_an_old_copy_is_seen_to_have_forked() {
    let mut a = shard();
    let mut old = a.clone();
    let mut b = shard();
    let one = write(&mut a, 1, "name", text("Bread"));
    let forked = write(&mut old, 1, "name", text("Loaf"));
    b.apply(journal(1), &one).unwrap();
    assert_eq!(b.apply(journal(1), &forked), Err(ApplyError::WrongSequence { expected: 2, found: 1 }));
    assert_eq!(b.field(product(1), "name"), text("Bread"));
}

/// A change as a dishonest device could make it, on top of `base`.
fn crafted(base: &SharedDocument, make: impl FnOnce(&mut automerge::transaction::Transaction<'_>)) -> Vec<u8> {
    let mut doc = Automerge::load(&base.save()).unwrap().with_actor(ActorId::from([9_u8; 16]));
    let mut change = doc.transaction();
    make(&mut change);
    change.commit();
    doc.get_last_local_change().unwrap().raw_bytes().to_vec()
}

#[test]
fn a_change_that_is_no_edit_of_fields_is_refused() {
    let mut a = shard();
    write(&mut a, 1, "name", text("Bread"));
    let key = field_key(product(1), "name");
    let (_, name) = automerge_of(&a).get(ROOT, key.as_str()).unwrap().unwrap();
    let elsewhere = field_key(RecordId(uuid::Uuid::from_bytes([1; 16])), "name");
    let crafted = [
        crafted(&a, |change| change.put(ROOT, "_schema", 2).unwrap()),
        crafted(&a, |change| change.put(ROOT, elsewhere.as_str(), 2).unwrap()),
        crafted(&a, |change| change.put(ROOT, key.as_str(), "plain string").unwrap()),
        crafted(&a, |change| change.put(ROOT, key.as_str(), 1.5).unwrap()),
        crafted(&a, |change| change.put(ROOT, key.as_str(), automerge::ScalarValue::counter(1)).unwrap()),
        crafted(&a, |change| drop(change.put_object(ROOT, key.as_str(), ObjType::Map).unwrap())),
        crafted(&a, |change| drop(change.put_object(ROOT, key.as_str(), ObjType::List).unwrap())),
        crafted(&a, |change| change.splice_text(&name, 0, 1, "b").unwrap()),
        crafted(&a, |change| {
            let text = change.put_object(ROOT, key.as_str(), ObjType::Text).unwrap();
            change.splice_text(&text, 0, 0, "ab").unwrap();
            change.splice_text(&text, 0, 0, "c").unwrap();
        }),
        crafted(&a, |change| {
            let text = change.put_object(ROOT, key.as_str(), ObjType::Text).unwrap();
            change.splice_text(&text, 0, 0, &"x".repeat(2_001)).unwrap();
        }),
        crafted(&a, |change| {
            let text = change.put_object(ROOT, key.as_str(), ObjType::Text).unwrap();
            change.insert(&text, 0, 7).unwrap();
        }),
    ];
    let heads = a.heads();
    for (number, bytes) in crafted.iter().enumerate() {
        let refused = a.apply(journal(9), bytes);
        assert!(matches!(refused, Err(ApplyError::NotAllowed(_))), "crafted {number}: {refused:?}");
        assert!(matches!(a.apply(journal(8), bytes), Err(ApplyError::WrongJournal { .. })));
    }
    assert_eq!(a.heads(), heads);
}

fn automerge_of(doc: &SharedDocument) -> Automerge {
    Automerge::load(&doc.save()).unwrap()
}

/// Rewrites a change's content and encodes it again.
fn rewritten(bytes: &[u8], rewrite: impl FnOnce(&mut automerge::ExpandedChange)) -> Vec<u8> {
    let mut expanded = automerge::Change::try_from(bytes).unwrap().decode();
    rewrite(&mut expanded);
    automerge::Change::from(expanded).raw_bytes().to_vec()
}

#[test]
fn numbers_and_replaced_values_that_no_honest_device_gives_are_refused() {
    let (mut a, mut b) = (shard(), shard());
    let one = write(&mut a, 9, "name", int(1));
    let between = a.clone();
    let two = write(&mut a, 9, "price_minor", int(2));
    let other = write(&mut a, 9, "price_minor", int(3));
    b.apply(journal(9), &one).unwrap();
    let first = automerge::ChangeHash(shard().first());
    let beside_bytes = write(&mut shard(), 8, "active", int(1));
    b.apply(journal(8), &beside_bytes).unwrap();
    let beside = automerge::Change::try_from(beside_bytes.as_slice()).unwrap().hash();
    let not_on_own = rewritten(&two, |change| change.deps = vec![beside]);
    let reason = b.apply(journal(9), &not_on_own).unwrap_err().to_string();
    assert!(reason.contains("doesn't build on the journal's change before it"), "{reason}");
    let replaces = automerge::Change::try_from(other.as_slice()).unwrap().decode().operations[0].pred.clone();
    let actor = ActorId::from([9_u8; 16]);
    let crafted = [
        rewritten(&two, |change| change.seq = 7),
        rewritten(&two, |change| change.start_op = 900.try_into().unwrap()),
        rewritten(&two, |change| change.start_op = 2.try_into().unwrap()),
        rewritten(&two, |change| change.deps = vec![first]),
        rewritten(&two, |change| change.deps = Vec::new()),
        rewritten(&two, |change| change.deps = vec![change.deps[0], change.deps[0]]),
        rewritten(&two, |change| change.operations.clear()),
        rewritten(&two, |change| change.message = Some("hello".to_owned())),
        rewritten(&two, |change| change.extra_bytes = vec![1]),
        rewritten(&two, |change| change.operations[0].pred = replaces),
        rewritten(&two, |change| {
            change.operations[0].pred = vec![automerge::legacy::OpId::new(2, &actor)].into();
        }),
        rewritten(&two, |change| change.operations[0].insert = true),
    ];
    let before = (b.heads(), b.save());
    for (number, bytes) in crafted.iter().enumerate() {
        let refused = b.apply(journal(9), bytes);
        assert!(refused.is_err(), "crafted {number}");
        assert!(!matches!(refused, Err(ApplyError::Missing { .. })), "crafted {number} would be awaited for ever");
        let (one, mut fresh) = (one.as_slice(), shard());
        assert!(fresh.apply_batch(&[(journal(9), one), (journal(9), bytes)]).is_err(), "batch with crafted {number}");
        assert_eq!(fresh.heads(), shard().heads());
    }
    assert_eq!((b.heads(), b.save()), before);
    b.apply(journal(9), &two).unwrap();
    let mut c = between;
    c.apply(journal(9), &two).unwrap();
    c.apply(journal(8), &beside_bytes).unwrap();
    assert_eq!(b.heads(), c.heads());
}

#[test]
fn other_chunks_and_claims_without_end_are_refused_before_they_are_decoded() {
    let mut a = shard();
    let long = write(&mut a, 1, "note", text(&"a long note ".repeat(100)));
    let mut change = automerge::Change::try_from(long.as_slice()).unwrap();
    let compressed = change.bytes().into_owned();
    assert!(compressed.len() < long.len() && compressed != long);
    let mut b = shard();
    for bytes in [compressed.as_slice(), &a.save(), &[], &long[..long.len() - 1], &vec![0; CHANGE_BYTES_MAX + 1]] {
        assert!(matches!(b.apply(journal(1), bytes), Err(ApplyError::Unreadable(_) | ApplyError::OverLimit { .. })));
    }
    b.apply(journal(1), &long).unwrap();

    // One operation, then 2^40 of them, in a handful of bytes.
    let one = rewritten(&long, |change| change.operations.truncate(1));
    let bomb = with_first_action_run(&one, 1 << 40);
    let refused = shard().apply(journal(1), &bomb);
    assert_eq!(refused, Err(ApplyError::OverLimit { what: "operations", limit: OPS_MAX }));
}

/// Claims `rows` times the first action, in a change of one operation.
fn with_first_action_run(bytes: &[u8], rows: u64) -> Vec<u8> {
    let text_action = 4;
    let lone = [0x7f, text_action]; // a run of one, literal
    let at = bytes.windows(2).rposition(|pair| pair == lone).unwrap();
    let mut run = Vec::new();
    let mut rest = rows;
    while rest >= 0x40 {
        run.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    run.push(u8::try_from(rest).unwrap());
    run.push(text_action);
    let grown = u8::try_from(run.len() - lone.len()).unwrap();
    let mut bomb = bytes.to_vec();
    bomb.splice(at..at + 2, run);
    bomb[9] += grown; // the chunk's length, still one byte
    let column = bytes.windows(2).position(|pair| pair == [0x42, 2]).unwrap();
    bomb[column + 1] += grown;
    bomb
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn damaged_changes_never_panic_and_never_change_a_document(
        (flips, cut, steps) in (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), any::<prop::sample::Index>(), steps()),
    ) {
        let (_, log) = play(&steps);
        let mut doc = shard();
        for (journal, bytes) in &log {
            let mut damaged = bytes.clone();
            for (at, byte) in &flips {
                let at = at.index(damaged.len());
                damaged[at] ^= byte;
            }
            if flips.len() % 2 == 1 {
                damaged.truncate(cut.index(damaged.len()));
            }
            if damaged != *bytes {
                let before = doc.heads();
                if doc.apply(*journal, &damaged).is_err() {
                    prop_assert_eq!(doc.heads(), before);
                } else {
                    return Err(TestCaseError::fail("a damaged change was accepted"));
                }
            }
            doc.apply(*journal, bytes).unwrap();
        }
    }

    /// With its checksum mended, a damaged change may turn out to be another honest one.
    #[test]
    fn a_forged_change_is_refused_or_behaves_as_any_other(
        (flips, steps) in (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3), steps()),
    ) {
        let (_, log) = play(&steps);
        let mut doc = shard();
        for (journal, bytes) in &log {
            let mut forged = bytes.clone();
            for (at, byte) in &flips {
                // Behind the header, whose length and kind would only be refused.
                let at = 10 + at.index(forged.len() - 10);
                forged[at] ^= byte;
            }
            if let Ok(change) = automerge::Change::try_from(forged.as_slice()) {
                forged[4..8].copy_from_slice(&change.hash().0[..4]);
            }
            let mut copy = doc.clone();
            let outcome = copy.apply(*journal, &forged);
            if outcome.is_ok() {
                let reloaded = SharedDocument::load(DocumentId::Catalogue(0), &copy.save()).unwrap();
                prop_assert_eq!(shown(&reloaded), shown(&copy));
                prop_assert!(reloaded.holds(automerge::Change::try_from(forged.as_slice()).unwrap().hash().0));
            } else {
                prop_assert_eq!(shown(&copy), shown(&doc));
            }
            doc.apply(*journal, bytes).unwrap();
        }
    }

    #[test]
    fn noise_behind_a_change_header_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
        let mut length = noise.len();
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        bytes.extend(&noise);
        prop_assert!(shard().apply(journal(1), &bytes).is_err());
    }
}
