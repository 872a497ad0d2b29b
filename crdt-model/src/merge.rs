//! A three-way merge, field by field, through Automerge: the version that both began with, and
//! what each of the two sides made of it.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, AutomergeError, ROOT, ReadDoc};

/// A version of a record: its fields by their paths, each with its value in a form in which equal
/// values are equal texts.
pub type Fields = BTreeMap<String, String>;

/// The most fields that one version has.
pub const MERGE_FIELDS_MAX: usize = 2_048;

/// What two sides made of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Every field. One in dispute has what the second side made of it.
    pub fields: Fields,
    /// The fields that both sides changed, each to something else.
    pub disputed: BTreeSet<String>,
}

/// Why two versions can't be merged. A person has to decide.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A version is too large.
    #[error("a version has more than {MERGE_FIELDS_MAX} fields: decide by hand")]
    TooLarge,
    /// Automerge refused it.
    #[error("the versions can't be merged: {0}")]
    Failed(String),
}

/// Merges what `ours` and `theirs` made of `base`. Where one side changed a field and the other
/// left it, the change counts; where both made the same of it, that; else it is in dispute.
/// Exchanging the sides changes nothing but what a field in dispute shows meanwhile.
///
/// # Errors
/// [`MergeError`].
pub fn three_way(base: &Fields, ours: &Fields, theirs: &Fields) -> Result<Merged, MergeError> {
    if [base, ours, theirs].iter().any(|version| version.len() > MERGE_FIELDS_MAX) {
        return Err(MergeError::TooLarge);
    }
    let failed = |error: AutomergeError| MergeError::Failed(error.to_string());
    let mut begun = Automerge::new().with_actor(ActorId::from([0].as_slice()));
    change(&mut begun, &Fields::new(), base).map_err(failed)?;
    let mut left = begun.fork().with_actor(ActorId::from([1].as_slice()));
    let mut right = begun.fork().with_actor(ActorId::from([2].as_slice()));
    change(&mut left, base, ours).map_err(failed)?;
    change(&mut right, base, theirs).map_err(failed)?;
    left.merge(&mut right).map_err(failed)?;

    let mut merged = Merged { fields: Fields::new(), disputed: BTreeSet::new() };
    let keys: BTreeSet<&String> = base.keys().chain(ours.keys()).chain(theirs.keys()).collect();
    for key in keys {
        let values: BTreeSet<String> = left
            .get_all(ROOT, key.as_str())
            .map_err(failed)?
            .iter()
            .filter_map(|(value, _)| value.as_str().map(str::to_owned))
            .collect();
        // Automerge keeps a field that one side took away while the other changed it.
        let torn = base.contains_key(key) && is_torn(base.get(key), ours.get(key), theirs.get(key));
        if values.len() > 1 || torn {
            merged.disputed.insert(key.clone());
            merged.fields.extend(theirs.get(key).map(|value| (key.clone(), value.clone())));
        } else if let Some(value) = values.into_iter().next() {
            merged.fields.insert(key.clone(), value);
        }
    }
    Ok(merged)
}

/// One side took it away, the other made something else of it.
fn is_torn(base: Option<&String>, ours: Option<&String>, theirs: Option<&String>) -> bool {
    (ours.is_none() && theirs.is_some() && theirs != base) || (theirs.is_none() && ours.is_some() && ours != base)
}

/// Makes one version of another, as one change.
fn change(document: &mut Automerge, from: &Fields, to: &Fields) -> Result<(), AutomergeError> {
    let made = document.transact::<_, _, AutomergeError>(|edit| {
        for key in from.keys().filter(|key| !to.contains_key(*key)) {
            edit.delete(ROOT, key.as_str())?;
        }
        for (key, value) in to.iter().filter(|(key, value)| from.get(*key) != Some(value)) {
            edit.put(ROOT, key.as_str(), value.as_str())?;
        }
        Ok(())
    });
    made.map(|_| ()).map_err(|failure| failure.error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn changes_of_different_fields_go_together_and_of_one_field_to_a_person() {
        let base = fields(&[("name", "Bread"), ("price", "65"), ("stock", "3"), ("old", "x")]);
        let ours = fields(&[("name", "Brown bread"), ("price", "70"), ("stock", "3"), ("new", "1")]);
        let theirs = fields(&[("name", "Bread"), ("price", "75"), ("stock", "9"), ("old", "x")]);
        let merged = three_way(&base, &ours, &theirs).unwrap();
        let expected = fields(&[("name", "Brown bread"), ("price", "75"), ("stock", "9"), ("new", "1")]);
        assert_eq!(merged.fields, expected);
        assert_eq!(merged.disputed, BTreeSet::from(["price".to_owned()]));
    }

    #[test]
    fn what_one_side_takes_away_and_the_other_changes_is_in_dispute() {
        let base = fields(&[("note", "a")]);
        for (ours, theirs) in [(Fields::new(), fields(&[("note", "b")])), (fields(&[("note", "b")]), Fields::new())] {
            let merged = three_way(&base, &ours, &theirs).unwrap();
            assert_eq!(merged.disputed, BTreeSet::from(["note".to_owned()]));
        }
        assert_eq!(three_way(&base, &base, &Fields::new()).unwrap().fields, Fields::new());
    }

    #[test]
    fn a_version_that_is_too_large_goes_to_a_person() {
        let large: Fields = (0..=MERGE_FIELDS_MAX).map(|number| (number.to_string(), String::new())).collect();
        assert_eq!(three_way(&Fields::new(), &large, &Fields::new()), Err(MergeError::TooLarge));
    }

    fn version() -> impl Strategy<Value = Fields> {
        proptest::collection::btree_map("[a-e]", "[0-3]", 0..5)
    }

    proptest! {
        /// Against the plain rule, field by field, for every combination of versions.
        #[test]
        fn every_field_follows_the_rule(base in version(), ours in version(), theirs in version()) {
            let merged = three_way(&base, &ours, &theirs).unwrap();
            let swapped = three_way(&base, &theirs, &ours).unwrap();
            prop_assert_eq!(&merged.disputed, &swapped.disputed);
            for key in base.keys().chain(ours.keys()).chain(theirs.keys()) {
                let (b, o, t) = (base.get(key), ours.get(key), theirs.get(key));
                let expected = if o == t || t == b { Some(o) } else if o == b { Some(t) } else { None };
                match expected {
                    Some(value) => {
                        prop_assert!(!merged.disputed.contains(key), "{key}");
                        prop_assert_eq!(merged.fields.get(key), value);
                        prop_assert_eq!(swapped.fields.get(key), value);
                    }
                    None => prop_assert!(merged.disputed.contains(key), "{key}"),
                }
            }
        }
    }
}
