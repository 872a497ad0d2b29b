//! Stories of several devices editing one shared document.

use std::collections::BTreeMap;

use automerge::Automerge;

use super::super::*;
use super::*;

#[test]
fn a_new_document_is_the_golden_vector_on_every_replica() {
    let heads: Vec<_> = shard().heads().iter().map(|head| data_encoding::HEXLOWER.encode(head)).collect();
    assert_eq!(heads, ["1e582c4cac804f5929afcde569e17c9dee41e7a16b1c5871a062b274475da5ed"]);
    let settings = SharedDocument::new(DocumentId::Settings);
    assert_ne!(settings.heads(), shard().heads());
    assert!(matches!(
        SharedDocument::load(DocumentId::Settings, &shard().save()),
        Err(LoadError::Other { document: DocumentId::Settings })
    ));
    let foreign = Automerge::new().save();
    assert!(matches!(SharedDocument::load(DocumentId::Settings, &foreign), Err(LoadError::Other { .. })));
    assert!(matches!(SharedDocument::load(DocumentId::Settings, b"junk"), Err(LoadError::Unreadable { .. })));
}

#[test]
fn two_tills_edit_different_fields_of_one_product_and_both_stand() {
    let (mut a, mut b) = (shard(), shard());
    let name = write(&mut a, 1, "name", text("Mkate 🍞"));
    let price = write(&mut b, 2, "price_minor", int(6_500));
    assert_eq!(a.apply(journal(2), &price).unwrap().len(), 1);
    b.apply(journal(1), &name).unwrap();
    assert_eq!(a.heads(), b.heads());
    assert_eq!(a.record(product(1)), b.record(product(1)));
    assert_eq!(a.field(product(1), "name"), text("Mkate 🍞"));
    assert_eq!(a.field(product(1), "price_minor"), int(6_500));
    assert!(a.conflicts().is_empty());
}

#[test]
fn two_edits_of_one_field_keep_both_values_until_someone_decides() {
    for (first, second) in [(int(60), int(65)), (text("Bread"), text("Loaf"))] {
        let (mut a, mut b) = (shard(), shard());
        let base = write(&mut a, 1, "field", Some(FieldValue::Bool(true)));
        b.apply(journal(1), &base).unwrap();
        let one = write(&mut a, 1, "field", first.clone());
        let two = write(&mut b, 2, "field", second.clone());
        a.apply(journal(2), &two).unwrap();
        let touched = b.apply(journal(1), &one).unwrap();
        assert!(touched.iter().all(|key| b.conflicted(key)));
        for doc in [&a, &b] {
            assert_eq!(doc.conflicts(), [(product(1), "field".to_owned())]);
            let values = doc.values(product(1), "field");
            assert_eq!(
                values,
                [
                    Valued { value: first.clone().unwrap(), by: journal(1) },
                    Valued { value: second.clone().unwrap(), by: journal(2) },
                ]
            );
        }
        // Choosing the value that happens to win must still be a decision that travels.
        let winner = a.field(product(1), "field");
        let decided = write(&mut a, 1, "field", winner.clone());
        assert!(a.conflicts().is_empty());
        b.apply(journal(1), &decided).unwrap();
        assert!(b.conflicts().is_empty());
        assert_eq!(b.field(product(1), "field"), winner);
        assert_eq!(b.values(product(1), "field").len(), 1);
        assert_eq!(a.heads(), b.heads());
    }
}

#[test]
fn a_decision_is_not_undone_unseen_by_an_edit_made_at_the_same_time() {
    let (mut a, mut b, mut c) = (shard(), shard(), shard());
    let one = write(&mut a, 1, "price_minor", int(60));
    let two = write(&mut b, 2, "price_minor", int(65));
    for doc in [&mut a, &mut b, &mut c] {
        doc.apply(journal(1), &one).unwrap();
        doc.apply(journal(2), &two).unwrap();
    }
    let chosen = a.field(product(1), "price_minor");
    let decided = write(&mut a, 1, "price_minor", chosen);
    let third = write(&mut c, 3, "price_minor", int(70));
    b.apply(journal(1), &decided).unwrap();
    b.apply(journal(3), &third).unwrap();
    assert_eq!(b.values(product(1), "price_minor").len(), 2);
    assert_eq!(b.conflicts().len(), 1);
}

#[test]
fn the_same_value_written_twice_at_once_is_no_conflict() {
    let (mut a, mut b) = (shard(), shard());
    write(&mut a, 1, "name", text("Bread"));
    let two = write(&mut b, 2, "name", text("Bread"));
    a.apply(journal(2), &two).unwrap();
    assert!(a.conflicts().is_empty());
    assert_eq!(a.values(product(1), "name").len(), 2);
    assert_eq!(a.edit(journal(1), MONDAY_MS, &[edit(1, "name", text("Bread"))]), Ok(None));
}

#[test]
fn writing_what_is_there_makes_no_change_and_clearing_leaves_nothing() {
    let mut a = shard();
    for value in [int(5), Some(FieldValue::Bool(false)), text("")] {
        write(&mut a, 1, "field", value.clone());
        assert_eq!(a.edit(journal(1), MONDAY_MS, &[edit(1, "field", value)]), Ok(None));
    }
    write(&mut a, 1, "field", None);
    assert_eq!(a.edit(journal(1), MONDAY_MS, &[edit(1, "field", None)]), Ok(None));
    assert_eq!(a.record(product(1)), BTreeMap::new());
    assert_eq!(a.records().count(), 0);
    assert_eq!(a.edit(journal(1), MONDAY_MS, &[]), Ok(None));
}

#[test]
fn an_edit_beats_a_clearing_made_at_the_same_time() {
    let (mut a, mut b) = (shard(), shard());
    let base = write(&mut a, 1, "name", text("Bread"));
    b.apply(journal(1), &base).unwrap();
    let cleared = write(&mut a, 1, "name", None);
    let edited = write(&mut b, 2, "name", text("Loaf"));
    a.apply(journal(2), &edited).unwrap();
    b.apply(journal(1), &cleared).unwrap();
    assert_eq!(a.field(product(1), "name"), text("Loaf"));
    assert_eq!(a.heads(), b.heads());
    assert!(a.conflicts().is_empty() && b.conflicts().is_empty());
}

#[test]
fn records_and_fields_come_in_order_whatever_was_written_first() {
    let mut a = shard();
    for number in [9, 2, 5] {
        let edits = [edit(number, "price_minor", int(1)), edit(number, "name", text("x"))];
        a.edit(journal(1), MONDAY_MS, &edits).unwrap();
    }
    assert_eq!(a.records().collect::<Vec<_>>(), [product(2), product(5), product(9)]);
    assert_eq!(a.record(product(5)).keys().collect::<Vec<_>>(), ["name", "price_minor"]);
}

#[test]
fn edits_out_of_bounds_are_refused_and_change_nothing() {
    let mut a = shard();
    let heads = a.heads();
    let elsewhere = FieldEdit { record: RecordId(uuid::Uuid::from_bytes([1; 16])), ..edit(1, "name", None) };
    let refused = |a: &mut SharedDocument, edit: FieldEdit| a.edit(journal(1), MONDAY_MS, &[edit]).unwrap_err();
    assert!(matches!(refused(&mut a, elsewhere), EditError::WrongDocument { .. }));
    assert!(matches!(refused(&mut a, edit(1, "", int(1))), EditError::Field { .. }));
    assert!(matches!(refused(&mut a, edit(1, "a\n", int(1))), EditError::Field { .. }));
    let error = refused(&mut a, edit(1, "note", text(&"x".repeat(2_001))));
    assert_eq!(error.to_string(), "note is too long: keep it to 2000 bytes");
    let many: Vec<_> = (0..5).map(|number| edit(number, "note", text(&"x".repeat(2_000)))).collect();
    assert!(matches!(
        a.edit(journal(1), MONDAY_MS, &many),
        Err(EditError::TooLarge { what: "operations", limit: OPS_MAX })
    ));
    assert_eq!(a.heads(), heads);
}

#[test]
fn the_largest_edit_is_accepted_by_every_peer() {
    let (mut a, mut b) = (shard(), shard());
    let varied: String =
        (0..20_u32).flat_map(|number| ['x', 'é', '€', '🍞', char::from_u32(97 + number).unwrap()]).collect();
    let edits: Vec<_> = (0..30).map(|number| edit(number, &"f".repeat(FIELD_BYTES_MAX), text(&varied))).collect();
    let change = a.edit(journal(1), MONDAY_MS, &edits).unwrap().unwrap();
    b.apply(journal(1), &change).unwrap();
    assert_eq!(a.heads(), b.heads());
}

#[test]
fn a_change_waits_for_what_it_builds_on_and_counts_once() {
    let (mut a, mut b) = (shard(), shard());
    let one = write(&mut a, 1, "name", text("Bread"));
    let between = a.heads();
    let two = write(&mut a, 1, "name", text("Loaf"));
    assert_eq!(b.apply(journal(1), &two), Err(ApplyError::Missing { missing: between }));
    b.apply(journal(1), &one).unwrap();
    b.apply(journal(1), &two).unwrap();
    let heads = b.heads();
    assert!(b.apply(journal(1), &one).unwrap().is_empty());
    assert!(b.apply(journal(1), &two).unwrap().is_empty());
    assert_eq!(b.heads(), heads);
}

#[test]
fn what_was_checked_applies_although_others_came_in_between() {
    let (mut a, mut b, mut c) = (shard(), shard(), shard());
    let one = write(&mut a, 1, "name", text("Bread"));
    let two = write(&mut b, 2, "name", text("Loaf"));
    let verified = c.check(journal(1), &one).unwrap();
    let again = c.check(journal(1), &one).unwrap();
    assert!(c.heads() == shard().heads(), "checking changes nothing");
    c.apply(journal(2), &two).unwrap();
    assert_eq!(c.apply_verified(verified).unwrap().len(), 1);
    assert!(c.apply_verified(again).unwrap().is_empty());
    b.apply(journal(1), &one).unwrap();
    assert_eq!(b.heads(), c.heads());
}

#[test]
fn a_batch_gives_what_one_by_one_gives_or_nothing() {
    let (mut a, mut b, mut c) = (shard(), shard(), shard());
    let changes: Vec<_> = (0..20).map(|number| (journal(1), write(&mut a, 1, "price_minor", int(number)))).collect();
    let batch: Vec<_> = changes.iter().map(|(journal, bytes)| (*journal, bytes.as_slice())).collect();
    b.apply(journal(1), batch[0].1).unwrap();
    assert_eq!(b.apply_batch(&batch).unwrap().len(), 1);
    assert_eq!(b.heads(), a.heads());
    assert_eq!(b.record(product(1)), a.record(product(1)));
    write(&mut a, 1, "price_minor", int(99));
    let mut gap = batch.clone();
    gap.remove(7);
    assert!(matches!(c.apply_batch(&gap), Err(ApplyError::Missing { .. })));
    assert_eq!(c.heads(), shard().heads());
    c.apply_batch(&batch).unwrap();
    let next = write(&mut b, 1, "name", text("Bread"));
    c.apply(journal(1), &next).unwrap();
    assert_eq!(c.heads(), b.heads());
}

#[test]
fn a_change_takes_its_time_in_whole_seconds() {
    let mut doc = shard();
    let bytes = doc.edit(journal(1), 1_999, &[edit(1, "name", int(1))]).unwrap().unwrap();
    assert_eq!(automerge::Change::try_from(bytes.as_slice()).unwrap().timestamp(), 1);
}
