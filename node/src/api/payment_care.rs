//! What people do about payments: ask again, give up, show a receipt number, and settle in pairs
//! what only people can settle. And the provider's statement.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::books::{ProposalState, SuspenseEntry};
use crdt_model::ids::RecordId;
use crdt_model::record::{Instead, Settlement, suspense_id};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answer, Creates, record};
use super::body::Body;
use super::caller::{Caller, named};
use super::payments::{evidence_word, outcome_word, reason_word, settlement_json};
use super::problem::{Code, Problem, path_id};
use super::state::ApiState;
use super::values::{recorded_at, rfc3339};
use crate::operations;
use crate::relay::inbox::{Line, Mail};

/// A word about a payment that needs nothing else.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PaymentWord)]
pub(super) struct RetryBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
}

/// How a payment is given up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GiveUpBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// void or cash.
    instead: InsteadWord,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum InsteadWord {
    Void,
    Cash,
}

/// A receipt number that a customer shows.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CodeBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// Such as SFF6XYZ123.
    code: String,
}

/// How the first of two people would settle something.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProposalBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// The payment, the receipt, or the suspense.
    subject: String,
    settlement: SettlementBody,
    /// Why.
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum SettlementBody {
    /// The books are right; the review ends.
    AsBooked,
    /// The payment was not made: its receipts no longer count.
    NotPaid,
    /// Money in suspense pays this payment.
    Assign {
        /// Which.
        payment_id: String,
    },
    /// Money in suspense is the shop's, for no sale.
    Keep,
    /// The money goes back to whoever paid.
    Reverse,
}

/// The second person's word.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    agreed: bool,
    /// Why.
    #[serde(default)]
    reason: String,
}

/// Lines of the provider's statement.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StatementBody {
    lines: Vec<StatementLine>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StatementLine {
    receipt_number: String,
    amount_minor: i64,
    #[serde(default)]
    account: String,
    #[serde(default)]
    paid_at_ms: Option<u64>,
}

named!(RetryBody, GiveUpBody, CodeBody, ProposalBody, CheckBody);

/// What became of a statement's lines.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct StatementView {
    /// Receipts of payments.
    paid: SumView,
    /// Money that fits no payment.
    suspense: SumView,
    /// Not taken in yet: post the same lines again.
    unknown: SumView,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct SumView {
    lines: u64,
    amount_minor: i64,
}

/// Money that fits no payment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SuspenseView {
    id: String,
    provider: String,
    number: String,
    /// 0 while the provider has not told.
    amount_minor: i64,
    currency: String,
    paid_at: String,
    evidence: &'static str,
    /// Why it fits nothing; `null` for money that nobody asked for.
    reason: Option<&'static str>,
    /// The payment that it came for, as far as one can tell.
    payment_id: Option<String>,
    account: String,
    test: bool,
    booked_at: String,
    /// What two people agreed on; `null` while it is open.
    #[schema(value_type = Option<Object>)]
    settled: Option<serde_json::Value>,
    /// The payment that its receipt number pays by now: nothing is left to settle.
    pays: Option<String>,
}

/// A proposal with its history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProposalView {
    id: String,
    subject: String,
    #[schema(value_type = Object)]
    settlement: serde_json::Value,
    reason: String,
    /// The first person's device.
    maker: String,
    proposed_at: String,
    /// The second person's word; `null` while it is waited for.
    check: Option<CheckView>,
    /// What the relay did, the latest last.
    outcomes: Vec<OutcomeView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CheckView {
    checker: String,
    agreed: bool,
    reason: String,
    at: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct OutcomeView {
    /// asked, done, failed or unknown.
    state: &'static str,
    detail: String,
    at: String,
}

/// Everything of a kind.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct All<T> {
    pub(super) items: Vec<T>,
}

/// Asks a declined customer once more.
#[utoipa::path(post, path = "/api/payments/{id}/retry", tag = "payments", params(("id" = String, Path)),
    request_body = RetryBody, responses(Creates))]
pub(super) async fn retry(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<RetryBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let planned = operations::retry_payment(&state.shop, path_id("payment", &id)?).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Asks the relay to give a payment up; it refuses while the customer may still be charged.
#[utoipa::path(post, path = "/api/payments/{id}/give-up", tag = "payments", params(("id" = String, Path)),
    request_body = GiveUpBody, responses(Creates))]
pub(super) async fn give_up(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<GiveUpBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let instead = match body.instead {
        InsteadWord::Void => Instead::Void,
        InsteadWord::Cash => Instead::Cash,
    };
    let planned = operations::give_up_payment(&state.shop, path_id("payment", &id)?, instead).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// A customer who paid by hand shows the provider's receipt number.
#[utoipa::path(post, path = "/api/payments/{id}/code", tag = "payments", params(("id" = String, Path)),
    request_body = CodeBody, responses(Creates))]
pub(super) async fn code(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<CodeBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let planned = operations::claim_code(&state.shop, path_id("payment", &id)?, &body.code).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lists money that fits no payment.
#[utoipa::path(get, path = "/api/suspense", tag = "payments", responses((status = 200, body = All<SuspenseView>)))]
pub(super) async fn suspense(State(state): State<ApiState>) -> Result<Json<All<SuspenseView>>, Problem> {
    let entries = state.shop.ask(|shop| {
        let pays = |entry: &SuspenseEntry| shop.number_pays(&entry.provider, &entry.number);
        shop.books().suspense().map(|entry| (pays(&entry), entry)).collect::<Vec<_>>()
    });
    Ok(Json(All { items: entries.await?.into_iter().map(|(pays, entry)| suspense_view(entry, pays)).collect() }))
}

/// Lists proposals with their history.
#[utoipa::path(get, path = "/api/proposals", tag = "payments", responses((status = 200, body = All<ProposalView>)))]
pub(super) async fn proposals(State(state): State<ApiState>) -> Result<Json<All<ProposalView>>, Problem> {
    let all = state.shop.ask(|shop| shop.books().proposals().collect::<Vec<_>>()).await?;
    Ok(Json(All { items: all.into_iter().map(proposal_view).collect() }))
}

/// The first of two people says how to settle something.
#[utoipa::path(post, path = "/api/proposals", tag = "payments", request_body = ProposalBody, responses(Creates))]
pub(super) async fn propose(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<ProposalBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let settlement = match &body.settlement {
        SettlementBody::AsBooked => Settlement::AsBooked,
        SettlementBody::NotPaid => Settlement::NotPaid,
        SettlementBody::Assign { payment_id } => Settlement::Assign(path_id("payment", payment_id)?),
        SettlementBody::Keep => Settlement::Keep,
        SettlementBody::Reverse => Settlement::Reverse,
    };
    let subject: RecordId = path_id("record", &body.subject)?;
    let planned = operations::propose(&state.shop, subject, settlement, body.reason).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// The second of two people agrees, or does not.
#[utoipa::path(post, path = "/api/proposals/{id}/check", tag = "payments", params(("id" = String, Path)),
    request_body = CheckBody, responses(Creates))]
pub(super) async fn check(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<CheckBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let proposal = path_id("proposal", &id)?;
    let planned = operations::check_proposal(&state.shop, proposal, body.agreed, body.reason).await?;
    record(&state, &caller, source.as_ref(), planned, Answer::Created).await
}

/// Lines of one request.
const LINES_MAX: usize = 500;
const NUMBER_CHARS: std::ops::RangeInclusive<usize> = 6..=32;
const ACCOUNT_BYTES_MAX: usize = 256;
/// How long the relay gets to take the lines in, and how often one looks.
const TAKE_IN_LOOKS: u32 = 500;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const MPESA: &str = "mpesa";

/// Takes in lines of the provider's statement, on a relay. Posted again, nothing is added.
#[utoipa::path(post, path = "/api/payments/statement", tag = "payments", request_body = StatementBody,
    responses((status = 200, body = StatementView)))]
pub(super) async fn statement(
    State(state): State<ApiState>,
    Body(body): Body<StatementBody>,
) -> Result<Json<StatementView>, Problem> {
    if state.fixed().await?.role != crdt_model::record::Role::Relay {
        return Err(Problem::new(Code::NotARelay, "only the relay books payments: post the statement to it"));
    }
    if body.lines.len() > LINES_MAX {
        let detail = format!("lines holds more than {LINES_MAX}: post fewer at once");
        return Err(Problem::at(Code::InvalidField, "lines", detail));
    }
    let mut mails = Vec::new();
    for (at, line) in body.lines.iter().enumerate() {
        let number = line.receipt_number.trim();
        let good = NUMBER_CHARS.contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !good || line.amount_minor <= 0 || line.account.len() > ACCOUNT_BYTES_MAX {
            let field = format!("lines[{at}]");
            let detail = format!("{field} is no line of a statement: look at its receipt number and its amount");
            return Err(Problem::at(Code::InvalidField, field, detail));
        }
        mails.push(Mail::Line(Line {
            receipt_number: number.to_owned(),
            amount_minor: line.amount_minor,
            account: line.account.clone(),
            paid_at_ms: line.paid_at_ms,
        }));
    }
    state.shop.write_rows(mails.iter().map(Mail::put).collect()).await?;
    let lines: Vec<(String, i64)> =
        body.lines.iter().map(|line| (line.receipt_number.trim().to_owned(), line.amount_minor)).collect();
    for _ in 0..TAKE_IN_LOOKS {
        let view = look_up(&state, lines.clone()).await?;
        if view.unknown.lines == 0 {
            return Ok(Json(view));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(Json(look_up(&state, lines).await?))
}

async fn look_up(state: &ApiState, lines: Vec<(String, i64)>) -> Result<StatementView, Problem> {
    let view = state.shop.ask(move |shop| {
        let mut view = StatementView::default();
        for (number, amount_minor) in lines {
            let suspense = shop.books().suspense_entry(suspense_id(shop.business(), MPESA, &number));
            let sum = if shop.number_pays(MPESA, &number).is_some() {
                &mut view.paid
            } else if suspense.is_some_and(|entry| entry.amount.minor == amount_minor) {
                &mut view.suspense
            } else {
                &mut view.unknown
            };
            sum.lines += 1;
            sum.amount_minor = sum.amount_minor.saturating_add(amount_minor);
        }
        view
    });
    Ok(view.await?)
}

fn suspense_view(entry: SuspenseEntry, pays: Option<RecordId>) -> SuspenseView {
    SuspenseView {
        id: entry.record.to_string(),
        provider: entry.provider,
        number: entry.number,
        amount_minor: entry.amount.minor,
        currency: entry.amount.currency.to_string(),
        paid_at: rfc3339(entry.paid_at),
        evidence: evidence_word(entry.evidence),
        reason: entry.reason.map(reason_word),
        payment_id: entry.intent.map(|intent| intent.to_string()),
        account: entry.account,
        test: entry.test,
        booked_at: recorded_at(entry.time),
        settled: entry.settled.map(settlement_json),
        pays: pays.map(|payment| payment.to_string()),
    }
}

fn proposal_view(state: ProposalState) -> ProposalView {
    let outcomes = state.outcomes.into_iter().map(|(state, detail, at)| OutcomeView {
        state: outcome_word(state),
        detail,
        at: recorded_at(at),
    });
    ProposalView {
        id: state.proposal.to_string(),
        subject: state.subject.to_string(),
        settlement: settlement_json(state.settlement),
        reason: state.note,
        maker: state.maker.to_string(),
        proposed_at: recorded_at(state.time),
        check: state.checked.map(|(checker, agreed, reason, at)| CheckView {
            checker: checker.to_string(),
            agreed,
            reason,
            at: recorded_at(at),
        }),
        outcomes: outcomes.collect(),
    }
}
