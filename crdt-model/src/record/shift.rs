//! Shifts: a till's drawer from float to count.

use minicbor::{Decode, Encode};

use super::{FactError, Source, TEXT_BYTES_MAX, check_not_negative, check_text};
use crate::ids::{JournalId, RecordId};
use crate::money::Money;

/// A shift begins with a float in the drawer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShiftOpened {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// What is in the drawer; not negative.
    #[n(1)]
    pub opening_float: Money,
}

impl ShiftOpened {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_not_negative("float_minor", self.opening_float.minor)
    }
}

/// A shift ends with the drawer counted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShiftClosed {
    /// The shift: the record id of its opening.
    #[n(0)]
    pub shift: RecordId,
    /// What is in the drawer; not negative.
    #[n(1)]
    pub counted: Money,
    /// What the books say should be there.
    #[n(2)]
    pub expected_minor: i64,
    /// What the Z report covers: everything applied up to here. Later facts are its addendum.
    #[n(3)]
    pub seen: Vec<(JournalId, u64)>,
    /// A note.
    #[n(4)]
    pub note: Option<String>,
}

impl ShiftClosed {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_not_negative("counted_minor", self.counted.minor)?;
        check_text("note", self.note.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)
    }
}
