//! Payments: money that customers are asked for through M-PESA, of sales and by themselves.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::books::{IntentState, Payment};
use crdt_model::ids::RecordId;
use crdt_model::payment::{Attempt, AttemptState, ReviewReason, account_reference};
use crdt_model::record::{Evidence, Instead, Kind, Ledger, OutcomeState, Settlement, Stage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Creates, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::list::{Listed, Page, cursor};
use super::problem::{Problem, body_id, path_id};
use super::sales::currency;
use super::state::ApiState;
use super::values::{recorded_at, rfc3339};
use crate::operations::{self, NewPayment};

/// Money to ask a customer for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPaymentBody {
    /// The client's own id: the same id and body is one payment.
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// The sale that it pays: one on account, or whose own payment was given up.
    sale_id: Option<String>,
    /// How much, in minor units; whole shillings for M-PESA.
    amount_minor: i64,
    /// ISO 4217; the business's own.
    currency: String,
    /// Who asks the customer: `mpesa` if not given, or one of the settings' `payment_providers`.
    provider: Option<String>,
    /// The payer's phone number; M-PESA needs it.
    phone: Option<String>,
}

/// A word that the customer is there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
}

named!(NewPaymentBody, ConfirmBody);

/// A payment and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PaymentView {
    id: String,
    /// open, paid, declined, void or review.
    state: &'static str,
    amount_minor: i64,
    currency: String,
    provider: String,
    /// The sale and the index of its tender that this pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    sale_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tender: Option<u32>,
    /// The relay that asks the customer, and its epoch; `null` while none is named.
    ledger: Option<LedgerView>,
    /// The relay that is to ask instead, once the payment is let go.
    #[serde(skip_serializing_if = "Option::is_none")]
    moving_to: Option<LedgerView>,
    /// The device that recorded it.
    device: String,
    recorded_at: String,
    /// When a cashier last said that the customer is there.
    confirmed_at: Option<String>,
    /// Its sale was voided.
    voided: bool,
    receipts: Vec<ReceiptView>,
    declines: Vec<DeclineView>,
    /// pending, asked, paid, failed, unknown, in_review or given_up.
    shown: &'static str,
    /// What a cashier can say to the customer.
    say: &'static str,
    /// outstanding, received, not_received or in_review.
    counts_as: &'static str,
    /// Why people must, or had to, look at it.
    reviews: Vec<ReviewView>,
    /// The latest wish to give it up, and the relay's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    given_up: Option<GivenUpView>,
    /// Receipt numbers that customers showed for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    codes: Vec<String>,
    /// On the relay that asks: every attempt, as its machine has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PaymentAttempt)]
struct AttemptView {
    number: u32,
    /// ready, calling, accepted, paid, unknown, failed, quarantine or late_paid.
    state: &'static str,
    /// What the provider shows as the account.
    account_reference: String,
    /// The provider's last result code.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_code: Option<String>,
    /// The provider's own list has its receipt number.
    listed: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReviewView {
    attempt: u32,
    reason: &'static str,
    at: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct GivenUpView {
    /// void or cash.
    instead: &'static str,
    asked_at: String,
    /// `false` while the customer may still be charged; `null` until the relay answers.
    granted: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LedgerView {
    relay: String,
    epoch: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReceiptView {
    id: String,
    /// The provider's own receipt number.
    number: String,
    amount_minor: i64,
    currency: String,
    paid_at: String,
    /// How the relay knows: callback, query, pull, statement or immediate.
    evidence: &'static str,
    /// No real money: the simulator's.
    test: bool,
    /// It is the paying relay's, and pays nothing else.
    accepted: bool,
    /// The relay took it back.
    revoked: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct DeclineView {
    attempt: u32,
    /// The provider's code.
    code: String,
    at: String,
}

/// Asks a customer for money.
#[utoipa::path(post, path = "/api/payments", tag = "payments", request_body = NewPaymentBody, responses(Creates))]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<NewPaymentBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let new = NewPayment {
        source: source.clone(),
        sale: body.sale_id.as_deref().map(|id| body_id("sale_id", id)).transpose()?,
        amount_minor: body.amount_minor,
        currency: currency(&body.currency)?,
        provider: body.provider,
        phone: body.phone,
    };
    let planned = operations::payment(&state.shop, new).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists payments, the newest first.
#[utoipa::path(get, path = "/api/payments", tag = "payments", params(Page),
    responses((status = 200, body = Listed<PaymentView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
) -> Result<Json<Listed<PaymentView>>, Problem> {
    let (limit, before) = (page.limit()?, page.before()?);
    let found: Vec<Payment> = state
        .shop
        .ask(move |shop| {
            let intents = shop.books().list(Kind::Intent, before).take(limit + 1);
            intents.filter_map(|intent| shop.books().payment(intent.id)).collect()
        })
        .await?;
    let listed = Listed::of(found, limit, |payment| cursor(payment.time, payment.intent));
    Ok(Json(listed.map(view)))
}

/// One payment.
#[utoipa::path(get, path = "/api/payments/{id}", tag = "payments", params(("id" = String, Path)),
    responses((status = 200, body = PaymentView)))]
pub(super) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<PaymentView>, Problem> {
    let intent: RecordId = path_id("payment", &id)?;
    let payment = state.shop.ask(move |shop| shop.books().payment(intent)).await?;
    let mut view = payment.map(view).ok_or_else(|| Problem::not_found("payment", &id))?;
    match crate::relay::attempts(&state.shop, intent) {
        Ok(attempts) => view.attempts = attempts.iter().map(attempt_view).collect(),
        Err(error) => tracing::error!(%error, "a payment is shown without its attempts"),
    }
    Ok(Json(view))
}

/// Says that the customer of an old payment is there, so that it may be asked for.
#[utoipa::path(post, path = "/api/payments/{id}/confirm", tag = "payments", params(("id" = String, Path)),
    request_body = ConfirmBody, responses(Creates))]
pub(super) async fn confirm(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<ConfirmBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let planned = operations::confirm_payment(&state.shop, path_id("payment", &id)?).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

pub(super) const fn state_word(state: IntentState) -> &'static str {
    match state {
        IntentState::Open => "open",
        IntentState::Paid => "paid",
        IntentState::Declined => "declined",
        IntentState::Void => "void",
        IntentState::Review => "review",
    }
}

pub(super) const fn evidence_word(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Callback => "callback",
        Evidence::Query => "query",
        Evidence::Pull => "pull",
        Evidence::Statement => "statement",
        Evidence::Immediate => "immediate",
    }
}

pub(super) const fn reason_word(reason: ReviewReason) -> &'static str {
    match reason {
        ReviewReason::WrongAmount => "wrong_amount",
        ReviewReason::OtherCheckout => "other_checkout",
        ReviewReason::NoReceiptNumber => "no_receipt_number",
        ReviewReason::SecondReceipt => "second_receipt",
        ReviewReason::PaidAfterFailure => "paid_after_failure",
        ReviewReason::ProofDisputed => "proof_disputed",
        ReviewReason::OpenTooLong => "open_too_long",
    }
}

pub(super) const fn instead_word(instead: Instead) -> &'static str {
    match instead {
        Instead::Void => "void",
        Instead::Cash => "cash",
    }
}

pub(super) const fn outcome_word(state: OutcomeState) -> &'static str {
    match state {
        OutcomeState::Asked => "asked",
        OutcomeState::Done => "done",
        OutcomeState::Failed => "failed",
        OutcomeState::Unknown => "unknown",
    }
}

pub(super) fn settlement_json(settlement: Settlement) -> serde_json::Value {
    match settlement {
        Settlement::AsBooked => serde_json::json!({ "kind": "as_booked" }),
        Settlement::NotPaid => serde_json::json!({ "kind": "not_paid" }),
        Settlement::Assign(intent) => serde_json::json!({ "kind": "assign", "payment_id": intent.to_string() }),
        Settlement::Keep => serde_json::json!({ "kind": "keep" }),
        Settlement::Reverse => serde_json::json!({ "kind": "reverse" }),
    }
}

fn attempt_view(attempt: &Attempt) -> AttemptView {
    AttemptView {
        number: attempt.number(),
        state: match attempt.state() {
            AttemptState::Ready => "ready",
            AttemptState::Calling => "calling",
            AttemptState::Accepted => "accepted",
            AttemptState::Paid => "paid",
            AttemptState::Unknown => "unknown",
            AttemptState::Failed => "failed",
            AttemptState::Quarantine => "quarantine",
            AttemptState::LatePaid => "late_paid",
        },
        account_reference: account_reference(attempt.intent(), attempt.number()).to_string(),
        result_code: attempt.result_code().map(str::to_owned),
        listed: attempt.is_listed(),
    }
}

pub(super) const fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Asked => "asked",
        Stage::Unknown => "unknown",
    }
}

fn ledger_view(ledger: Ledger) -> LedgerView {
    LedgerView { relay: ledger.relay.to_string(), epoch: ledger.epoch }
}

fn view(payment: Payment) -> PaymentView {
    let shown = payment.shown();
    let reviews = payment.reviews.iter().map(|review| ReviewView {
        attempt: review.attempt,
        reason: reason_word(review.reason),
        at: recorded_at(review.time),
    });
    let reviews = reviews.collect();
    let given_up = payment.given_up.map(|wish| GivenUpView {
        instead: instead_word(wish.instead),
        asked_at: recorded_at(wish.time),
        granted: wish.granted,
    });
    let receipts = payment.receipts.into_iter().map(|receipt| ReceiptView {
        id: receipt.record.to_string(),
        number: receipt.number,
        amount_minor: receipt.amount.minor,
        currency: receipt.amount.currency.to_string(),
        paid_at: rfc3339(receipt.paid_at),
        evidence: evidence_word(receipt.evidence),
        test: receipt.test,
        accepted: receipt.accepted,
        revoked: receipt.revoked,
    });
    let declines = payment.declines.into_iter().map(|decline| DeclineView {
        attempt: decline.attempt,
        code: decline.code,
        at: recorded_at(decline.time),
    });
    PaymentView {
        id: payment.intent.to_string(),
        state: state_word(payment.state),
        amount_minor: payment.amount.minor,
        currency: payment.amount.currency.to_string(),
        provider: payment.provider,
        sale_id: payment.sale.map(|(sale, _)| sale.to_string()),
        tender: payment.sale.map(|(_, tender)| tender),
        ledger: payment.ledger.map(ledger_view),
        moving_to: payment.moving.map(|moving| ledger_view(moving.to)),
        device: payment.device.to_string(),
        recorded_at: recorded_at(payment.time),
        confirmed_at: payment.confirmed.map(recorded_at),
        voided: payment.voided,
        receipts: receipts.collect(),
        declines: declines.collect(),
        shown: shown.word(),
        say: shown.sentence(),
        counts_as: shown.counts_as().word(),
        reviews,
        given_up,
        codes: payment.codes,
        attempts: Vec::new(),
    }
}
