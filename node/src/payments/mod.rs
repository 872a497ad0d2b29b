//! Payment providers: how an attempt becomes money. The relay owns the attempt's row and its
//! state machine (`crdt_model::payment`); a provider only asks, and says what came of it.

pub mod cash;
mod http;
pub mod mpesa;
pub mod phone;
pub mod simulator;
pub mod statement;
pub mod webhook;
pub mod wire;

use crdt_model::payment::{AccountReference, Answer, AttemptEvent, CallbackResult, CallbackToken, ProviderIds};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use uuid::Uuid;

pub use cash::Cash;
pub use mpesa::{MpesaClient, MpesaConfig};
pub use phone::{Phone, PhoneError};
pub use webhook::{Webhook, WebhookConfig};

/// A callback's body is refused beyond this: a real one is below 2 KiB.
pub const CALLBACK_BYTES_MAX: usize = 64 * 1024;

/// The path of [`callback_path`] as an axum route.
pub const CALLBACK_ROUTE: &str = "/callbacks/{intent}/{attempt}/{token}";

/// Where a provider reports on an attempt. It names the attempt, so a callback is attributed
/// even when the response or the row was lost, and only the provider learns its token.
#[must_use]
pub fn callback_path(intent: Uuid, attempt: u32, token: &CallbackToken) -> String {
    format!("/callbacks/{}/{attempt}/{}", intent.as_simple(), token.to_hex())
}

/// A way to be paid. The contract:
///
/// - [`push`](Self::push) is called once an attempt, after the attempt's claim is durable, and
///   asks the customer at most once: it never resends what may have been sent.
/// - `NotSent` is said only when it is certain; whatever is in doubt is `Ambiguous`.
/// - Dropping the future of `push` leaves the attempt in doubt.
/// - [`prepare`](Self::prepare) moves no money and may be called at any time.
/// - Nothing secret, and no full phone number, reaches a log.
pub trait PaymentProvider: std::fmt::Debug + Send + Sync {
    /// A short name for settings, rows and logs, such as `mpesa`.
    fn name(&self) -> &'static str;

    /// Whether an amount can be asked for at all. Checked when the intent is recorded and
    /// again before a push.
    ///
    /// # Errors
    /// [`Unsupported`], naming the field and what would do.
    fn supports(&self, currency: &str, amount_minor: i64) -> Result<(), Unsupported>;

    /// Whether a push could go out now. Asked before an attempt is claimed, so that attempts
    /// wait as READY, rather than fail, while the provider can't be reached.
    fn prepare(&self) -> BoxFuture<'_, Result<(), NotReady>>;

    /// Asks the customer to pay.
    fn push<'a>(&'a self, request: &'a PushRequest) -> BoxFuture<'a, PushOutcome>;

    /// Reads a callback's body.
    ///
    /// # Errors
    /// [`CallbackError`], naming the field.
    fn parse_callback(&self, body: &[u8]) -> Result<CallbackReport, CallbackError>;

    /// Asks what came of a push; asking moves no money.
    fn query<'a>(&'a self, _ids: &'a ProviderIds, _at_ms: u64) -> BoxFuture<'a, QueryOutcome> {
        ready(QueryOutcome::Unavailable { detail: format!("{} answers no queries", self.name()), rate_limited: false })
            .boxed()
    }

    /// Whether [`pull`](Self::pull) works, and names our account references: only then is what it
    /// lacks proven absent.
    fn lists_references(&self) -> bool {
        false
    }

    /// A page of the provider's own list of what it received.
    fn pull(&self, _window: PullWindow) -> BoxFuture<'_, PullOutcome> {
        ready(PullOutcome::Unavailable(format!("{} lists nothing", self.name()))).boxed()
    }

    /// Tells the provider where to report payments that nobody asked for. Repeating it is harmless.
    fn register<'a>(&'a self, _confirmations: &'a str) -> BoxFuture<'a, Result<(), String>> {
        ready(Ok(())).boxed()
    }

    /// Whether an account that a report names is the shop's own.
    fn is_own_account(&self, _account: &str) -> bool {
        false
    }

    /// Reads a report of a payment made by hand, or of what became of a reversal.
    ///
    /// # Errors
    /// [`CallbackError`], naming the field.
    fn parse_report(&self, _body: &[u8]) -> Result<Report, CallbackError> {
        Err(CallbackError::NotExpected(self.name()))
    }

    /// Asks for a payment to be taken back, once; what became of it is reported later.
    fn reverse<'a>(&'a self, _request: &'a ReversalRequest) -> BoxFuture<'a, PushOutcome> {
        ready(not_offered(self.name(), "reversals")).boxed()
    }

    /// Asks about a receipt number; the answer is reported later. Asking moves no money.
    ///
    /// What it says of a receipt number is as good as a query: enough to prove money, never to deny it.
    fn ask_status<'a>(&'a self, _receipt_number: &'a str, _results: &'a str) -> BoxFuture<'a, PushOutcome> {
        ready(not_offered(self.name(), "status queries")).boxed()
    }
}

fn not_offered(name: &str, what: &str) -> PushOutcome {
    let detail = format!("{name} has no {what}: do it in the provider's own portal");
    PushOutcome::NotSent { reason: NotSentReason::Rejected, detail, retry_after_ms: None }
}

/// What a query says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryOutcome {
    /// A result code; only "paid" is ever believed.
    Result {
        /// The code.
        code: String,
        /// The provider's words.
        detail: String,
    },
    /// The customer is still being asked.
    Pending,
    /// Nothing to be learnt now.
    Unavailable {
        /// For a person, without secrets.
        detail: String,
        /// Ask less often.
        rate_limited: bool,
    },
}

/// Which part of the provider's list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullWindow {
    /// From when, in milliseconds since 1970 UTC.
    pub from_ms: u64,
    /// Until when.
    pub until_ms: u64,
    /// How many lines were read before.
    pub offset: u64,
}

/// A page of the provider's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullOutcome {
    /// These lines; none if the window holds no more.
    Listed(Vec<Listed>),
    /// Nothing to be learnt now; the text is for a person.
    Unavailable(String),
}

/// Money that the provider says it received for the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The provider's receipt number.
    pub receipt_number: String,
    /// Minor units.
    pub amount_minor: i64,
    /// The account as the payer or our push named it; empty for tills.
    pub account: String,
    /// When it was paid, in milliseconds since 1970 UTC.
    pub paid_at_ms: Option<u64>,
}

/// What the provider reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A payment.
    Paid(Listed),
    /// What became of a reversal or a status query.
    Result {
        /// The result code.
        code: String,
        /// The provider's words.
        detail: String,
        /// Of which request.
        conversation: Option<String>,
        /// The receipt number asked about.
        receipt_number: Option<String>,
        /// Its amount.
        amount_minor: Option<i64>,
        /// Such as `Completed`.
        status: Option<String>,
        /// Whose account the money went to: a number and a name.
        credited: Option<String>,
        /// When it was done, in milliseconds since 1970 UTC.
        at_ms: Option<u64>,
    },
}

/// A payment to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReversalRequest {
    /// The provider's receipt number.
    pub receipt_number: String,
    /// Minor units.
    pub amount_minor: i64,
    /// Why, for the provider's records.
    pub reason: String,
    /// The path on which the result is reported.
    pub results: String,
}

/// What a provider needs to ask a customer.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The intent being paid.
    pub intent: Uuid,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// ISO 4217.
    pub currency: String,
    /// Minor units.
    pub amount_minor: i64,
    /// Whom to ask; providers without phones ignore it.
    pub phone: Option<Phone>,
    /// From [`crdt_model::payment::account_reference`].
    pub account_reference: AccountReference,
    /// From [`crdt_model::payment::callback_token`].
    pub callback_token: CallbackToken,
    /// What the customer is shown; cut to what the provider takes.
    pub description: String,
    /// Milliseconds since 1970 UTC, read once for this push.
    pub at_ms: u64,
}

/// What came of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// The customer is being asked; a callback follows.
    Accepted(ProviderIds),
    /// Paid at once.
    Settled {
        /// The provider's receipt number.
        receipt_number: String,
    },
    /// The customer was certainly not asked.
    NotSent {
        /// Why.
        reason: NotSentReason,
        /// For a person, without secrets.
        detail: String,
        /// How long a person should wait before trying again, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The customer may have been asked: never push again before that is known.
    Ambiguous {
        /// For a person, without secrets.
        detail: String,
    },
}

impl PushOutcome {
    /// What the attempt machine is told.
    #[must_use]
    pub fn event(&self) -> AttemptEvent {
        AttemptEvent::Answered(match self {
            Self::Accepted(ids) => Answer::Accepted(ids.clone()),
            Self::Settled { receipt_number } => Answer::Settled { receipt_number: receipt_number.clone() },
            Self::NotSent { .. } => Answer::NotSent,
            Self::Ambiguous { .. } => Answer::Ambiguous,
        })
    }
}

/// Why a push was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSentReason {
    /// No connection was made.
    Unreachable,
    /// The provider asks for fewer requests.
    RateLimited,
    /// The provider refuses the shop's credentials or configuration: a person must act.
    Credentials,
    /// The provider or this client refuses the request itself.
    Rejected,
}

/// An amount that the provider can't be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// Another currency.
    #[error("currency: {provider} takes {wanted} only, not {given}: choose another tender")]
    Currency {
        /// The provider's name.
        provider: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What was given.
        given: String,
    },
    /// A part of a currency's unit.
    #[error("amount_minor: M-PESA takes whole shillings only: make {0} a multiple of 100")]
    PartShillings(i64),
    /// Too little or too much.
    #[error("amount_minor: {provider} takes {min_minor} to {max_minor} a payment, not {given}")]
    OutOfRange {
        /// The provider's name.
        provider: &'static str,
        /// The least it takes, in minor units.
        min_minor: i64,
        /// The most it takes, in minor units.
        max_minor: i64,
        /// What was given.
        given: i64,
    },
}

/// Why no push can go out at the moment. Attempts wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The network, or the provider, is away.
    #[error("the payment provider can't be reached ({0}): payments wait until it can")]
    Unreachable(String),
    /// The provider asks for fewer requests.
    #[error("the payment provider asks us to slow down ({0}): payments wait")]
    RateLimited(String),
    /// A person must mend the credentials.
    #[error("the payment provider refuses our credentials ({0}): check the credentials file")]
    Credentials(String),
}

/// What a callback says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackReport {
    /// What the attempt machine needs.
    pub result: CallbackResult,
    /// The provider's words.
    pub description: String,
    /// When the provider says it was paid, in milliseconds since 1970 UTC.
    pub paid_at_ms: Option<u64>,
    /// Who paid, often masked: never match on it.
    pub phone: Option<String>,
}

impl CallbackReport {
    /// What the attempt machine is told, once the token in the callback's path has matched.
    #[must_use]
    pub fn event(&self) -> AttemptEvent {
        AttemptEvent::CalledBack(self.result.clone())
    }
}

/// A callback that can't be read. It is kept raw all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// Larger than any real callback.
    #[error("the callback is larger than {CALLBACK_BYTES_MAX} bytes: it is not the provider's")]
    TooLarge,
    /// Not JSON of the expected shape.
    #[error("the callback can't be read: {0}")]
    Malformed(String),
    /// A field is missing or is not what it should be.
    #[error("the callback's {field} is {problem}: look at the stored body")]
    Field {
        /// The field's name in the provider's protocol.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The provider makes no callbacks.
    #[error("{0} makes no callbacks: something else called this address")]
    NotExpected(&'static str),
}

#[cfg(test)]
mod connection_tests;
#[cfg(test)]
mod tests;
