//! Errors as problem documents (RFC 9457). Every code is in one table; docs/api.md lists them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use crdt_model::document::EditError;
use crdt_model::ids::IdError;
use crdt_model::record::FactError;
use crdt_model::shop::{ActError, HandoffError};
use serde::Serialize;
use utoipa::ToSchema;

use super::control::ControlError;
use crate::layers::BadHeader;
use crate::operations::{PlanError, State};
use crate::queue::{ChoiceRefused, ConfigRefused, DeskError, OfflineRefused, QueueError, Wrong};
use crate::shop_handle::{ReadError, RecordError, Stopped};

macro_rules! codes {
    ($($variant:ident $text:literal $status:literal $title:literal;)*) => {
        /// What went wrong, in one word that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as answers carry it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    MalformedJson "malformed_json" 400 "The body is not JSON";
    UnknownField "unknown_field" 400 "A field that this request does not have";
    MissingField "missing_field" 400 "A field is missing";
    WrongType "wrong_type" 400 "A field has a value of another type";
    BadParameter "bad_parameter" 400 "A parameter or header can't be used";
    HostNotAllowed "host_not_allowed" 421 "The request is for another host";
    OriginNotAllowed "origin_not_allowed" 403 "The request comes from another site";
    OfflineNotAllowed "offline_not_allowed" 403 "This may not be recorded while the relay is away";
    NotFound "not_found" 404 "There is no such thing";
    UnknownBusiness "unknown_business" 404 "There is no such business here";
    MethodNotAllowed "method_not_allowed" 405 "This can't be done to that";
    OperationIdReused "operation_id_reused" 409 "The id was used for something else";
    SaleVoided "sale_voided" 409 "The sale was voided before";
    ProductExists "product_exists" 409 "The product exists with other fields";
    TicketClosed "ticket_closed" 409 "The ticket was closed before";
    ShiftOpen "shift_open" 409 "The till has an open shift";
    ShiftClosed "shift_closed" 409 "The shift was closed before";
    ShiftFrozen "shift_frozen" 409 "The till's shift is offered to another till";
    ShiftElsewhere "shift_elsewhere" 409 "Another till has the shift";
    TicketOffered "ticket_offered" 409 "The ticket is offered to another till";
    HandoffPast "handoff_past" 409 "The handoff is past that";
    HandoffNotYours "handoff_not_yours" 409 "The handoff is between other devices";
    HandoffNotSafe "handoff_not_safe" 409 "The other till may have accepted the shift";
    HandoffIncomplete "handoff_incomplete" 409 "Not everything that comes along has arrived";
    HandoffWaiting "handoff_waiting" 409 "An accepted shift is on its way to the till";
    CountDiffers "count_differs" 409 "Giver and receiver counted different amounts";
    RefundTooLarge "refund_too_large" 409 "That much of the sale was taken back already";
    PaymentNotOpen "payment_not_open" 409 "The payment is settled";
    PromiseLimit "promise_limit" 409 "Too much is promised and not settled";
    PaymentNotDeclined "payment_not_declined" 409 "The payment may still be paid";
    TooManyAttempts "too_many_attempts" 409 "Every attempt is used up";
    CodeClaimed "code_claimed" 409 "The receipt number pays something else";
    NothingToSettle "nothing_to_settle" 409 "There is nothing to settle like this";
    SamePerson "same_person" 409 "Another person has to decide";
    ProposalDecided "proposal_decided" 409 "The proposal was decided before";
    LedgerMoved "ledger_moved" 409 "The payments go to another ledger already";
    NotARelay "not_a_relay" 409 "Only a relay can do this";
    NotAnOwner "not_an_owner" 409 "This device has no owner's key";
    BodyTooLarge "body_too_large" 413 "The body is larger than 256 KiB";
    TooLarge "too_large" 413 "The operation does not fit in one entry";
    UnsupportedMediaType "unsupported_media_type" 415 "The body is not declared as JSON";
    InvalidField "invalid_field" 422 "A field's value can't be used";
    BadCursor "bad_cursor" 422 "The cursor is none of this list's";
    OperationIdMismatch "operation_id_mismatch" 422 "Two different ids for one operation";
    WrongCurrency "wrong_currency" 422 "Amounts are not in the business's currency";
    AmountTooLarge "amount_too_large" 422 "The figures are beyond 64 bits";
    Unbalanced "unbalanced" 422 "The tenders don't add up to the lines";
    UnknownSku "unknown_sku" 422 "The product is not known";
    UnknownProvider "unknown_provider" 422 "The paying relay has no such provider";
    UnsupportedTender "unsupported_tender" 422 "This can't be paid this way";
    Unreadable "unreadable" 500 "Something stored can't be read";
    UpstreamFailed "upstream_failed" 502 "A service could not pass a request on";
    NodeStopped "node_stopped" 503 "The node has stopped";
    Offline "offline" 503 "This needs a connection";
    NotReady "not_ready" 503 "The node is not ready";
    OfflineDisabled "offline_disabled" 503 "Nothing is recorded while the relay is away";
    QueueFull "queue_full" 507 "Too many operations wait";
}

/// An error, as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(super) code: Code,
    pub(super) detail: String,
    pub(super) field: Option<String>,
    /// Everything that is wrong, where that is more than one field.
    pub(super) errors: Vec<FieldProblem>,
}

/// One of several fields that are wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldProblem {
    /// The field.
    field: String,
    /// What is wrong with it, in one word that never changes.
    code: &'static str,
    /// What can be done.
    detail: String,
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument {
    /// `urn:tillmesh:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// What the code means.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What went wrong, in one word that never changes.
    code: &'static str,
    /// What happened here, and what can be done.
    detail: String,
    /// The field that is wrong, as a path such as `lines[0].sku`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Every field that is wrong, where it is known; `code`, `detail` and `field` are the first
    /// one's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), field: None, errors: Vec::new() }
    }

    pub(crate) fn at(code: Code, field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), field: Some(field.into()), errors: Vec::new() }
    }

    pub(super) fn not_found(what: &str, id: &str) -> Self {
        let shown: String = id.chars().take(ID_SHOWN_MAX).collect();
        Self::new(Code::NotFound, format!("there is no {what} {shown}: it may not have reached this device yet"))
    }
}

/// An id that a caller made up may be of any length.
const ID_SHOWN_MAX: usize = 128;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let document = ProblemDocument {
            kind: format!("urn:tillmesh:problem:{}", self.code.text()),
            title: self.code.title(),
            status,
            code: self.code.text(),
            detail: self.detail,
            field: self.field,
            errors: self.errors,
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(document)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        Self::new(Code::NodeStopped, stopped.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "something stored can't be read");
        Self::new(Code::Unreadable, error.to_string())
    }
}

impl From<FactError> for Problem {
    fn from(error: FactError) -> Self {
        // More of something than one entry may hold; a text that is too long can be cut.
        let list = |field: &str| field == "lines" || field == "tenders";
        let code = if matches!(error, FactError::Money { .. }) {
            Code::AmountTooLarge
        } else if matches!(error, FactError::Unbalanced { .. }) {
            Code::Unbalanced
        } else if matches!(&error, FactError::TooLong { field, .. } if list(field)) {
            Code::TooLarge
        } else {
            Code::InvalidField
        };
        Self::at(code, error.field(), error.to_string())
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        let detail = error.to_string();
        match error {
            PlanError::Fact(error) => error.into(),
            PlanError::Field { field, .. } => Self::at(Code::InvalidField, field, detail),
            PlanError::WrongCurrency { .. } => Self::at(Code::WrongCurrency, "currency", detail),
            PlanError::Tender { field, .. } => Self::at(Code::UnsupportedTender, field, detail),
            PlanError::UnknownSku { field, .. } => Self::at(Code::UnknownSku, field, detail),
            PlanError::UnknownProvider { .. } => Self::at(Code::UnknownProvider, "provider", detail),
            PlanError::NotFound { what, id } => Self::not_found(what, &id),
            PlanError::State { state, .. } => Self::new(state_code(state), detail),
            PlanError::Handoff(error) => error.into(),
            PlanError::IdReused => Self::at(Code::OperationIdReused, "operation_id", detail),
            PlanError::Stopped(stopped) => stopped.into(),
            PlanError::Read(error) => error.into(),
        }
    }
}

const fn state_code(state: State) -> Code {
    match state {
        State::SaleVoided => Code::SaleVoided,
        State::ProductExists => Code::ProductExists,
        State::TicketClosed => Code::TicketClosed,
        State::ShiftOpen => Code::ShiftOpen,
        State::ShiftClosed => Code::ShiftClosed,
        State::PaymentNotOpen => Code::PaymentNotOpen,
        State::PromiseLimit => Code::PromiseLimit,
        State::PaymentNotDeclined => Code::PaymentNotDeclined,
        State::TooManyAttempts => Code::TooManyAttempts,
        State::CodeClaimed => Code::CodeClaimed,
        State::NothingToSettle => Code::NothingToSettle,
        State::SamePerson => Code::SamePerson,
        State::ProposalDecided => Code::ProposalDecided,
        State::LedgerMoved => Code::LedgerMoved,
        State::RefundTooLarge => Code::RefundTooLarge,
    }
}

impl From<HandoffError> for Problem {
    fn from(error: HandoffError) -> Self {
        let detail = error.to_string();
        let code = match error {
            HandoffError::ShiftOpen(_) => Code::ShiftOpen,
            HandoffError::ShiftFrozen { .. } => Code::ShiftFrozen,
            HandoffError::ShiftElsewhere { .. } => Code::ShiftElsewhere,
            HandoffError::ShiftClosed(_) => Code::ShiftClosed,
            HandoffError::NoShift(_) | HandoffError::NoHandoff(_) => Code::NotFound,
            HandoffError::WrongReceiver(_) => return Self::at(Code::InvalidField, "to", detail),
            HandoffError::NotYours { .. } => Code::HandoffNotYours,
            HandoffError::NotSafe(_) => Code::HandoffNotSafe,
            HandoffError::Incomplete { .. } => Code::HandoffIncomplete,
            HandoffError::CountDiffers { .. } => return Self::at(Code::CountDiffers, "counted_minor", detail),
            HandoffError::Waiting(_) => Code::HandoffWaiting,
            HandoffError::NotTheArbiter(_) => Code::NotAnOwner,
            HandoffError::TicketOffered { .. } => Code::TicketOffered,
            HandoffError::Past(_) | _ => Code::HandoffPast,
        };
        Self::new(code, detail)
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Stopped(stopped) => stopped.into(),
            RecordError::Refused(refused) => refused.into(),
        }
    }
}

impl From<ActError> for Problem {
    fn from(error: ActError) -> Self {
        let detail = error.to_string();
        if let ActError::Fact(error) = error {
            return error.into();
        }
        if let ActError::Handoff(error) = error {
            return (*error).into();
        }
        if let ActError::Edit(EditError::Field { field, .. }) = error {
            return Self::at(Code::InvalidField, field, detail);
        }
        if let ActError::PhoneMissing { tender } = error {
            return Self::at(Code::InvalidField, format!("tenders[{tender}].phone"), detail);
        }
        if matches!(error, ActError::WrongCurrency { .. }) {
            return Self::at(Code::WrongCurrency, "currency", detail);
        }
        if matches!(error, ActError::IdReused { .. }) {
            return Self::at(Code::OperationIdReused, "operation_id", detail);
        }
        if matches!(error, ActError::Edit(EditError::WrongDocument { .. } | EditError::Failed(_))) {
            return Self::new(Code::InvalidField, detail);
        }
        Self::new(Code::TooLarge, detail)
    }
}

impl From<OfflineRefused> for Problem {
    fn from(refused: OfflineRefused) -> Self {
        let code = match refused {
            OfflineRefused::Disabled => Code::OfflineDisabled,
            OfflineRefused::NotAllowed { .. } => Code::OfflineNotAllowed,
            OfflineRefused::QueueFull { .. } => Code::QueueFull,
        };
        Self::new(code, refused.to_string())
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Stopped(stopped) => stopped.into(),
            DeskError::Read(error) => error.into(),
            DeskError::Record(error) => error.into(),
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        let detail = error.to_string();
        match error {
            QueueError::Desk(error) => error.into(),
            QueueError::Offline(refused) => refused.into(),
            QueueError::Fact(error) | QueueError::Choice(ChoiceRefused::Fact(error)) => error.into(),
            QueueError::Choice(ChoiceRefused::FieldsWithoutMerge) => Self::at(Code::InvalidField, "fields", detail),
            QueueError::NotFound(_) => Self::new(Code::NotFound, detail),
            QueueError::Config(refused) => refused.into(),
            QueueError::CarrierGone | QueueError::BrokeOff(_) | QueueError::Randomness(_) => {
                Self::new(Code::NotReady, detail)
            }
        }
    }
}

impl From<BadHeader> for Problem {
    fn from(bad: BadHeader) -> Self {
        Self::at(Code::BadParameter, bad.name, bad.to_string())
    }
}

impl From<ConfigRefused> for Problem {
    fn from(ConfigRefused(refused): ConfigRefused) -> Self {
        let code = |wrong| match wrong {
            Wrong::Name => Code::UnknownField,
            Wrong::Type => Code::WrongType,
            Wrong::Value => Code::InvalidField,
        };
        let first = refused.first().map(|first| Self::at(code(first.wrong), &first.field, &first.detail));
        let errors = refused.into_iter().map(|refused| FieldProblem {
            field: refused.field,
            code: code(refused.wrong).text(),
            detail: refused.detail,
        });
        let problem = first.unwrap_or_else(|| Self::new(Code::InvalidField, "nothing of the config can be used"));
        Self { errors: errors.collect(), ..problem }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::NotAnOwner(_) => Code::NotAnOwner,
            ControlError::Unavailable(_) => Code::NotReady,
        };
        Self::new(code, error.to_string())
    }
}

/// An id in a path: what is no id names nothing.
pub(super) fn path_id<T: std::str::FromStr<Err = IdError>>(what: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::not_found(what, text))
}

/// An id in a body.
pub(super) fn body_id<T: std::str::FromStr<Err = IdError>>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: IdError| Problem::at(Code::InvalidField, field, format!("{field} is {error}")))
}
