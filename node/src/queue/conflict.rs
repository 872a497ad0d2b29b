//! What an operation and the shop's own server hold against each other, and a person's decision
//! about it.

use crdt_model::ids::RecordId;
use crdt_model::record::{DeliveryOutcome, Fact, FactError, Resolution, UpstreamConflict};
use crdt_model::rules::{CLIENT, SERVER};

use super::row::{OpRow, QueueStatus};
use crate::upstream::resolve::MERGED;

/// What an operation and the server hold against each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opposed {
    /// The conflict: what a decision names.
    pub conflict: RecordId,
    /// Of which kind it is.
    pub kind: UpstreamConflict,
    /// The server's version, as JSON, if it told.
    pub server: Option<String>,
    /// The fields that both changed apart, as paths.
    pub disputed: Vec<String>,
    /// For people.
    pub detail: Option<String>,
}

/// Which side a person picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// What the till recorded.
    Client,
    /// What the server has.
    Server,
    /// Both, field by field.
    Merge,
}

/// A person's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The side.
    pub choice: Choice,
    /// With [`Choice::Merge`]: values of single fields over what merges by itself, as a JSON
    /// object; `null` takes a field away.
    pub fields: Option<String>,
    /// Why.
    pub note: Option<String>,
}

/// Why a decision can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceRefused {
    /// Single fields are decided only where both sides are merged.
    #[error("fields goes with the choice merge: leave one of them out")]
    FieldsWithoutMerge,
    /// Too long, or something else that no entry takes.
    #[error(transparent)]
    Fact(#[from] FactError),
}

impl Opposed {
    /// What the row of an operation says.
    #[must_use]
    pub fn of(operation: RecordId, row: &OpRow) -> Option<Self> {
        if row.status() != Some(QueueStatus::Conflict) {
            return None;
        }
        let (ordinal, _, outcome) = row.outcome.as_ref()?;
        Some(Self {
            conflict: DeliveryOutcome::conflict_id(operation, *ordinal),
            kind: outcome.conflict?,
            server: outcome.server.clone(),
            disputed: outcome.disputed.clone(),
            detail: outcome.detail.clone(),
        })
    }
}

impl Choice {
    /// In the API's words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => CLIENT,
            Self::Server => SERVER,
            Self::Merge => MERGED,
        }
    }

    /// From the API's words.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Client, Self::Server, Self::Merge].into_iter().find(|choice| choice.word() == word)
    }
}

impl Decision {
    /// The fact that tells every device of it.
    ///
    /// # Errors
    /// [`ChoiceRefused`].
    pub fn about(self, conflict: RecordId) -> Result<Fact, ChoiceRefused> {
        if self.fields.is_some() && self.choice != Choice::Merge {
            return Err(ChoiceRefused::FieldsWithoutMerge);
        }
        let choice = self.choice.word().to_owned();
        let fact = Fact::Resolution(Resolution { conflict, choice, note: self.note, fields: self.fields });
        fact.check()?;
        Ok(fact)
    }
}
