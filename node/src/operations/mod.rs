//! What a till's app, the command line and an import can do: each builds one [`Operation`] from
//! plain values and from what the shop knows, ready for [`ShopHandle::record`].

mod adjustment;
mod customer;
mod handoff;
mod ledger_move;
mod money_moved;
mod payment;
mod payment_care;
mod product;
pub(crate) mod promises;
mod sale;
mod shared_record;
mod shift;
mod ticket;
mod undo;

use crdt_model::entry::Place;
use crdt_model::ids::RecordId;
use crdt_model::record::{Fact, FactError, Source};
use crdt_model::shop::{HandoffError, Operation};

pub use adjustment::{Adjusted, NewAdjustment, adjustment};
pub use crdt_model::document::DELETED;
pub use customer::{CustomerFields, create_customer, delete_customer, edit_customer};
pub use handoff::{NewHandoff, accept_handoff, decide_handoff, offer_handoff, withdraw_handoff};
pub use ledger_move::{MoveWords, NewMove, plan_move, record_move};
pub use money_moved::{NewExpense, NewFinancialRecord, expense, financial_record};
pub use payment::{NewPayment, confirm_payment, payment};
pub use payment_care::{check_proposal, claim_code, give_up_payment, propose, retry_payment};
pub use product::{
    ProductFields, create_product, delete_product, edit_product, product_is_listed, product_record, replace_product,
};
pub use promises::check_promises;
pub use sale::{NewSale, NewTender, PreparedSale, prepare_sale, sale};
pub(crate) use shared_record::CREATED_FROM;
pub use shared_record::{Edit, SharedRecord};
pub use shift::{NewShift, close_shift, open_shift};
pub use ticket::{
    LINE_PREFIX, NewTicket, TicketEdit, TicketLine, close_ticket, create_ticket, edit_ticket, ticket_lines,
};
pub use undo::{NewRefund, RefundLimit, refund, void};

use crate::shop_handle::{ReadError, ShopHandle, Stopped};

/// An operation that is ready to be recorded.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// What to record.
    pub operation: Operation,
    /// What it is about, where that is not the operation's first fact: a shared record.
    pub record: Option<RecordId>,
    /// The same was asked before, so there may be nothing to record.
    pub repeated: bool,
    /// What people should know, although nothing is refused.
    pub warnings: Vec<Warning>,
    /// For a refund: what the refunds of its sale may add up to.
    pub limit: Option<RefundLimit>,
    /// What goes back to the customer, where the client said what was handed over.
    pub change_due_minor: Option<i64>,
}

/// What people should know, although nothing is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A product is sold that is not in the catalogue.
    UnknownSku {
        /// The field that names it.
        field: String,
        /// The product.
        sku: String,
    },
    /// A sale is voided whose customer has paid by M-PESA.
    SalePaid,
}

/// Why an operation can't be built. Nothing is recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A fact is wrong by itself.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// A field's value can't be used.
    #[error("{field} {reason}")]
    Field {
        /// The field.
        field: String,
        /// Why, and what would do.
        reason: String,
    },
    /// Amounts are not in the business's currency.
    #[error("currency must be {expected}, the business's own")]
    WrongCurrency {
        /// The business's currency.
        expected: String,
    },
    /// A provider can't be asked for this.
    #[error("{field} {reason}")]
    Tender {
        /// The field.
        field: String,
        /// Why, and what would do.
        reason: String,
    },
    /// The product is not known.
    #[error("{field}: product {sku} is not in the catalogue: add it, or correct the SKU")]
    UnknownSku {
        /// The field that names it.
        field: String,
        /// The product.
        sku: String,
    },
    /// No relay has named such a provider.
    #[error("provider: {provider} is none that the paying relay has: choose one of {known}")]
    UnknownProvider {
        /// What was given.
        provider: String,
        /// What would do.
        known: String,
    },
    /// There is no such record.
    #[error("there is no {what} {id}: it may not have reached this device yet")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The record is there, but not in a state that allows this.
    #[error("{reason}")]
    State {
        /// Which state.
        state: State,
        /// Why, and what can be done.
        reason: String,
    },
    /// A shift is changing hands, or is elsewhere.
    #[error(transparent)]
    Handoff(#[from] HandoffError),
    /// The client's id was used for something else.
    #[error("operation_id was used before for another body: use a new one, or send the same body")]
    IdReused,
    /// The node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Something stored can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A state that does not allow what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The sale was voided before.
    SaleVoided,
    /// The product exists with other fields.
    ProductExists,
    /// The ticket was closed before.
    TicketClosed,
    /// The till has an open shift.
    ShiftOpen,
    /// The shift was closed before.
    ShiftClosed,
    /// The payment is settled.
    PaymentNotOpen,
    /// So much of the sale was refunded already.
    RefundTooLarge,
    /// Too much is promised and not settled.
    PromiseLimit,
    /// The payment is not declined, so it is not asked for again.
    PaymentNotDeclined,
    /// Every attempt is used up.
    TooManyAttempts,
    /// The receipt number pays something else.
    CodeClaimed,
    /// There is nothing that could be settled like this.
    NothingToSettle,
    /// Whoever proposed can't decide.
    SamePerson,
    /// The proposal was decided before.
    ProposalDecided,
    /// These payments go to another ledger already, or their new one has let go of its own.
    LedgerMoved,
}

impl Planned {
    fn fact(fact: Fact) -> Result<Self, PlanError> {
        fact.check()?;
        Ok(Self { operation: Operation { facts: vec![fact], ..Operation::default() }, ..Self::default() })
    }
}

impl PlanError {
    fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }
}

/// The fact at an index of a committed entry.
///
/// # Errors
/// [`ReadError`].
pub async fn stored_fact(shop: &ShopHandle, place: Place, index: u32) -> Result<Option<Fact>, ReadError> {
    let Some(entry) = shop.entry(place)? else { return Ok(None) };
    let at = usize::try_from(index).unwrap_or(usize::MAX);
    Ok(entry.body()?.facts.into_iter().nth(at))
}

/// The counted copy of a record.
async fn counted_fact(shop: &ShopHandle, record: RecordId) -> Result<Option<Fact>, PlanError> {
    let at = shop.ask(move |shop| shop.books().record(record)).await?;
    let Some(at) = at else { return Ok(None) };
    Ok(stored_fact(shop, at.place, at.index).await?)
}

/// The record that a client's own id names.
async fn named_record(shop: &ShopHandle, source: &Source) -> Result<RecordId, Stopped> {
    let business = shop.ask(|shop| shop.business()).await?;
    Ok(RecordId::from_client(business, &source.instance, &source.key))
}
