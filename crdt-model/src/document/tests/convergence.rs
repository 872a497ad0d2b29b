//! The merge laws: order, duplication and restarts change nothing.

use proptest::prelude::*;

use super::super::*;
use super::*;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Edit { by: usize, field: usize, value: Option<FieldValue> },
    Hear { by: usize, from: usize },
    Restart { by: usize },
}

const TILLS: usize = 3;
const FIELDS: [&str; 3] = ["name", "price_minor", "active"];

fn value() -> impl Strategy<Value = Option<FieldValue>> {
    prop_oneof![
        Just(None),
        any::<bool>().prop_map(|yes| Some(FieldValue::Bool(yes))),
        (0_i64..4).prop_map(|number| Some(FieldValue::Int(number))),
        "[a-cé🍞]{0,4}".prop_map(|text| Some(FieldValue::Text(text))),
    ]
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let till = 0..TILLS;
    let step = prop_oneof![
        4 => (till.clone(), 0..FIELDS.len(), value()).prop_map(|(by, field, value)| Step::Edit { by, field, value }),
        2 => (till.clone(), till.clone()).prop_map(|(by, from)| Step::Hear { by, from }),
        1 => till.prop_map(|by| Step::Restart { by }),
    ];
    prop::collection::vec(step, 1..40)
}

pub(super) type Log = Vec<(JournalId, Vec<u8>)>;

/// Plays a day, and gives the tills' documents and all changes in the order they were made.
pub(super) fn play(steps: &[Step]) -> (Vec<SharedDocument>, Log) {
    let mut tills = vec![shard(); TILLS];
    let mut log: Log = Vec::new();
    for step in steps {
        match step {
            Step::Edit { by, field, value } => {
                let journal = journal(u8::try_from(*by).unwrap() + 1);
                let edits = [edit(1, FIELDS[*field], value.clone())];
                if let Some(bytes) = tills[*by].edit(journal, MONDAY_MS, &edits).unwrap() {
                    log.push((journal, bytes));
                }
            }
            Step::Hear { by, from } => {
                for (journal, bytes) in &log {
                    let hash = automerge::Change::try_from(bytes.as_slice()).unwrap().hash().0;
                    if tills[*from].holds(hash) {
                        tills[*by].apply(*journal, bytes).unwrap();
                    }
                }
            }
            Step::Restart { by } => {
                tills[*by] = SharedDocument::load(DocumentId::Catalogue(0), &tills[*by].save()).unwrap();
            }
        }
    }
    (tills, log)
}

/// Everything a till shows of a document.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    heads: Vec<[u8; 32]>,
    values: Vec<Vec<Valued>>,
    fields: Vec<Option<FieldValue>>,
    conflicts: Vec<(RecordId, String)>,
}

pub(super) fn shown(doc: &SharedDocument) -> Shown {
    Shown {
        heads: doc.heads(),
        values: FIELDS.iter().map(|field| doc.values(product(1), field)).collect(),
        fields: FIELDS.iter().map(|field| doc.field(product(1), field)).collect(),
        conflicts: doc.conflicts(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn replicas_converge_whatever_the_order_and_however_often_changes_come(
        (steps, order) in (steps(), prop::collection::vec(any::<prop::sample::Index>(), 80)),
    ) {
        let (mut tills, log) = play(&steps);
        let mut late = shard();
        for index in order.iter().filter(|_| !log.is_empty()) {
            let (journal, bytes) = index.get(&log);
            match late.apply(*journal, bytes) {
                Ok(_) | Err(ApplyError::Missing { .. }) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        for (journal, bytes) in &log {
            late.apply(*journal, bytes).unwrap();
            for till in &mut tills {
                till.apply(*journal, bytes).unwrap();
            }
        }
        let mut batched = shard();
        let batch: Vec<_> = log.iter().map(|(journal, bytes)| (*journal, bytes.as_slice())).collect();
        batched.apply_batch(&batch).unwrap();
        let reloaded = SharedDocument::load(DocumentId::Catalogue(0), &late.save()).unwrap();
        for till in tills.iter().chain([&batched, &reloaded]) {
            prop_assert_eq!(shown(till), shown(&late));
        }
    }

    #[test]
    fn a_decision_clears_a_conflict_on_every_replica(steps in steps(), chosen in value()) {
        let (mut tills, log) = play(&steps);
        for (journal, bytes) in &log {
            for till in &mut tills {
                till.apply(*journal, bytes).unwrap();
            }
        }
        let edits: Vec<_> = FIELDS.iter().map(|field| edit(1, field, chosen.clone())).collect();
        if let Some(bytes) = tills[0].edit(journal(1), MONDAY_MS, &edits).unwrap() {
            for till in &mut tills {
                till.apply(journal(1), &bytes).unwrap();
            }
        }
        for till in &tills {
            prop_assert_eq!(till.conflicts(), []);
            prop_assert!(FIELDS.iter().all(|field| till.field(product(1), field) == chosen));
            prop_assert_eq!(till.heads(), tills[0].heads());
        }
    }
}
