//! What is said about operations on their way to the shop's own server: what became of them
//! there, what people want, and who carries them.

use minicbor::{Decode, Encode};

use super::{FactError, NAME_BYTES_MAX, TEXT_BYTES_MAX, check_name, check_text};
use crate::books::Key;
use crate::ids::RecordId;

/// The largest version of a record, by the server or a client, that an outcome carries.
pub const VERSION_BYTES_MAX: usize = 32 * 1024;

/// One fact about delivery to the shop's own server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum UpstreamFact {
    /// The carrier: what became of an operation.
    #[n(0)]
    Outcome(#[n(0)] DeliveryOutcome),
    /// A person: try a failed operation again.
    #[n(1)]
    Wish(#[n(0)] DeliveryWish),
    /// The entry that holds this is carried to the server by its own till.
    #[n(2)]
    Carried,
    /// The carrier: how far its chain of attempts has come.
    #[n(3)]
    Anchor(#[n(0)] AttemptAnchor),
}

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum DeliveryState {
    /// The server has it, or a decision says that it needn't.
    #[n(0)]
    Synced,
    /// It won't be tried again by itself.
    #[n(1)]
    Failed,
    /// It contradicts what the server has, and a person decides.
    #[n(2)]
    Conflict,
}

/// Why a call did not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ErrorClass {
    /// The server could not be reached, or went silent.
    #[n(0)]
    Network,
    /// The server's own fault.
    #[n(1)]
    ServerError,
    /// The server refuses the operation itself.
    #[n(2)]
    Validation,
    /// The server doesn't let the carrier in.
    #[n(3)]
    Auth,
    /// The server has something else.
    #[n(4)]
    Conflict,
    /// The server wants fewer calls.
    #[n(5)]
    Rate,
}

/// How an operation and the server's record contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum UpstreamConflict {
    /// The server has such a record, and not from us.
    #[n(0)]
    Duplicate,
    /// The server's record has changed since the client saw it.
    #[n(1)]
    VersionMismatch,
    /// The server's record is gone.
    #[n(2)]
    Deleted,
    /// Anything else that needs a person.
    #[n(3)]
    Manual,
}

/// Who wins where an operation and the server contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Strategy {
    /// What the till recorded.
    #[n(0)]
    ClientWins,
    /// What the server has.
    #[n(1)]
    ServerWins,
    /// Both, field by field; a field that both changed apart goes to a person.
    #[n(2)]
    Merge,
    /// A person decides.
    #[n(3)]
    Manual,
}

/// What became of an operation at the server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeliveryOutcome {
    /// The operation: its fact's record.
    #[n(0)]
    pub operation: RecordId,
    /// Which outcome of this operation, from 1: the highest counts.
    #[n(1)]
    pub ordinal: u32,
    /// What became of it.
    #[n(2)]
    pub state: DeliveryState,
    /// How many calls were made for it in all.
    #[n(3)]
    pub attempts: u32,
    /// The server's own id for the record.
    #[n(4)]
    pub server_id: Option<String>,
    /// The HTTP status of the last answer.
    #[n(5)]
    pub http_status: Option<u16>,
    /// Why it failed or conflicts.
    #[n(6)]
    pub class: Option<ErrorClass>,
    /// The server's or the carrier's code, in one word.
    #[n(7)]
    pub code: Option<String>,
    /// For people.
    #[n(8)]
    pub detail: Option<String>,
    /// How it contradicts the server.
    #[n(9)]
    pub conflict: Option<UpstreamConflict>,
    /// What was decided about that, by rule or by a person.
    #[n(10)]
    pub strategy: Option<Strategy>,
    /// The server's version, as JSON.
    #[n(11)]
    pub server: Option<String>,
    /// The version tag of that.
    #[n(12)]
    pub server_tag: Option<String>,
    /// The fields that both changed apart.
    #[n(13)]
    pub disputed: Vec<String>,
    /// The server may have taken it twice: it was sent again after a crash, and does not honour keys.
    #[n(14)]
    pub maybe_twice: bool,
    /// The person's decision that it follows, if it follows one.
    #[n(15)]
    pub decided: Option<Key>,
}

/// A person wants a failed operation tried again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeliveryWish {
    /// The operation.
    #[n(0)]
    pub operation: RecordId,
    /// The outcome that the person saw: the wish is good for that one alone.
    #[n(1)]
    pub after: u32,
}

/// How far a carrier's chain of attempts has come.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AttemptAnchor {
    /// The number of the last attempt in it.
    #[n(0)]
    pub through: u64,
    /// The chain's hash there.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub head: [u8; 32],
}

impl UpstreamFact {
    /// The operation that it is about.
    #[must_use]
    pub fn operation(&self) -> Option<RecordId> {
        match self {
            Self::Outcome(outcome) => Some(outcome.operation),
            Self::Wish(wish) => Some(wish.operation),
            Self::Carried | Self::Anchor(_) => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), FactError> {
        let Self::Outcome(outcome) = self else { return Ok(()) };
        let text = |field, text: &Option<String>, limit| check_text(field, text.as_deref().unwrap_or_default(), limit);
        text("server_id", &outcome.server_id, NAME_BYTES_MAX * 2)?;
        text("code", &outcome.code, NAME_BYTES_MAX)?;
        text("detail", &outcome.detail, TEXT_BYTES_MAX)?;
        text("server", &outcome.server, VERSION_BYTES_MAX)?;
        text("server_tag", &outcome.server_tag, NAME_BYTES_MAX * 2)?;
        super::check_count("disputed", outcome.disputed.len(), DISPUTED_MAX)?;
        outcome.disputed.iter().try_for_each(|field| check_name("disputed", field, NAME_BYTES_MAX * 2))
    }
}

impl DeliveryOutcome {
    /// The conflict that it is, if it is one: the same on every device.
    #[must_use]
    pub fn conflict_id(operation: RecordId, ordinal: u32) -> RecordId {
        operation.derived("upstream conflict", ordinal)
    }
}

/// The most disputed fields that an outcome names.
const DISPUTED_MAX: usize = 64;

macro_rules! words {
    ($kind:ident: $($variant:ident $word:literal)*) => {
        impl $kind {
            /// In the API's words.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// From the API's words.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words!(DeliveryState: Synced "synced" Failed "failed" Conflict "conflict");
words!(ErrorClass: Network "NETWORK" ServerError "SERVER_ERROR" Validation "VALIDATION" Auth "AUTH" Conflict "CONFLICT"
    Rate "RATE");
words!(UpstreamConflict: Duplicate "DUPLICATE" VersionMismatch "VERSION_MISMATCH" Deleted "DELETED" Manual "MANUAL");
words!(Strategy: ClientWins "client_wins" ServerWins "server_wins" Merge "merge" Manual "manual");
