//! The whole books of the business, as this device has them, to be compared with another's.

use axum::Json;
use axum::extract::State;
use crdt_model::books::{Figure, IntentState};
use crdt_model::ids::domain_hash;
use crdt_model::record::Kind;
use crdt_model::shop::Shop;
use data_encoding::HEXLOWER;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::state::ApiState;
use super::values::Sum;

/// The whole books. Two devices with equal digests agree, to the cent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BooksView {
    /// A hash over every figure: totals, stock, payments.
    digest: String,
    /// A hash over the heads of every shared Automerge document.
    documents: String,
    /// A hash over how far each journal is held.
    frontier: String,
    /// How many sales count, voided ones included.
    sales: usize,
    /// How many refunds count.
    refunds: usize,
    /// In the business's currency.
    currency: String,
    /// Sales less discounts, voids and refunds, in minor units.
    total_minor: Sum,
    /// Conflicts that wait for a person.
    conflicts: u64,
    payments: PaymentsView,
}

/// Payment intents by their state.
#[derive(Debug, Serialize, ToSchema)]
struct PaymentsView {
    intents: u64,
    paid: u64,
    declined: u64,
    /// Neither paid nor refused yet, or waiting for a person.
    open: u64,
    /// What receipts say arrived, in minor units.
    paid_minor: Sum,
}

/// The whole books of the business, as this device has them.
#[utoipa::path(get, path = "/api/books", tag = "reports", responses((status = 200, body = BooksView)))]
pub(super) async fn books(State(state): State<ApiState>) -> Result<Json<BooksView>, Problem> {
    Ok(Json(state.shop.ask(view).await?))
}

fn view(shop: &Shop) -> BooksView {
    let books = shop.books();
    let currency = shop.genesis().currency;
    let tally = books.business().currency(currency);
    let mut heads = Vec::new();
    for (id, document) in shop.documents() {
        heads.extend_from_slice(id.to_string().as_bytes());
        heads.extend(document.heads().into_iter().flatten());
    }
    let count = |state| books.intent_count(state);
    let paid = books.payment_sums().get(&(IntentState::Paid, currency)).map_or(0, |sum| sum.amount_minor);
    let refunds = tally.of(Figure::Refunds);
    BooksView {
        digest: HEXLOWER.encode(&books.digest()),
        documents: HEXLOWER.encode(&domain_hash("tillmesh 2026 document heads", &[&heads])),
        frontier: shop.frontier().digest().to_string(),
        sales: books.count_of(Kind::Sale),
        refunds: usize::try_from(refunds).unwrap_or(usize::MAX),
        currency: currency.to_string(),
        total_minor: Sum(tally.net_minor()),
        conflicts: shop.conflict_count(),
        payments: PaymentsView {
            intents: [
                IntentState::Open,
                IntentState::Paid,
                IntentState::Declined,
                IntentState::Void,
                IntentState::Review,
            ]
            .into_iter()
            .map(count)
            .sum(),
            paid: count(IntentState::Paid),
            declined: count(IntentState::Declined),
            open: count(IntentState::Open) + count(IntentState::Review),
            paid_minor: Sum(paid),
        },
    }
}
