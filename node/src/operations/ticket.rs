//! Tickets: open carts that several tills may fill at once, until one closes them with a sale.
//! A line is one field, so that lines added on two tills are both there.

use std::collections::BTreeMap;

use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::RecordId;
use crdt_model::money::Currency;
use crdt_model::record::{LINES_MAX, Line, NAME_BYTES_MAX, Source};
use serde::{Deserialize, Serialize};

use super::shared_record::{self, Edit, SharedRecord};
use super::{NewSale, NewTender, PlanError, Planned, State, counted_fact};
use crate::shop_handle::ShopHandle;

/// What the names of fields that hold a line begin with.
pub const LINE_PREFIX: &str = "line:";
pub(super) const STATUS: &str = "status";

/// A ticket to open.
#[derive(Debug, Clone, Default)]
pub struct NewTicket {
    /// The client's own id.
    pub source: Option<Source>,
    /// What people call it, such as a table.
    pub name: Option<String>,
    /// What is on it already.
    pub lines: Vec<TicketLine>,
}

/// Changes to an open ticket.
#[derive(Debug, Clone, Default)]
pub struct TicketEdit {
    /// What people call it.
    pub name: Edit<String>,
    /// Lines to add, under keys of their own.
    pub add_lines: Vec<TicketLine>,
    /// Lines to replace, or to take away, by key.
    pub set_lines: BTreeMap<String, Option<TicketLine>>,
}

/// A line of a ticket, in the form of its field: JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketLine {
    /// The product.
    pub sku: String,
    /// Thousandths of a unit; more than zero.
    pub quantity_milli: i64,
    /// The price of one unit, in minor units.
    pub unit_price_minor: i64,
    /// What is taken off the whole line, in minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount_minor: Option<i64>,
    /// The tax that the price includes, in hundredths of a per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_rate_bp: Option<u32>,
}

/// Opens a ticket.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn create_ticket(shop: &ShopHandle, new: &NewTicket) -> Result<Planned, PlanError> {
    check_name(new.name.as_deref())?;
    check_lines("lines", new.lines.iter())?;
    let lines: BTreeMap<_, _> =
        (1..).zip(&new.lines).map(|(number, line): (u32, _)| (format!("{number:04}"), line)).collect();
    shared_record::create(shop, "ticket", new.source.as_ref(), DocumentId::tickets, |record| {
        let text = |field: &str, text: String| FieldEdit {
            record,
            field: field.to_owned(),
            value: Some(FieldValue::Text(text)),
        };
        let mut edits = vec![text(STATUS, "open".to_owned())];
        edits.extend(new.name.iter().map(|name| text("name", name.clone())));
        edits.extend(lines.into_iter().map(|(key, line)| text(&format!("{LINE_PREFIX}{key}"), line.text())));
        edits
    })
    .await
}

/// Changes an open ticket.
///
/// # Errors
/// [`PlanError`]; [`State::TicketClosed`] once it was closed.
pub async fn edit_ticket(shop: &ShopHandle, ticket: RecordId, edit: &TicketEdit) -> Result<Planned, PlanError> {
    let now = stored(shop, ticket).await?;
    if is_closed(&now) {
        return Err(closed(ticket));
    }
    if let Edit::Set(name) = &edit.name {
        check_name(Some(name))?;
    }
    check_lines("add_lines", edit.add_lines.iter())?;
    let mut edits: Vec<FieldEdit> =
        edit.name.of(ticket, "name", |name| FieldValue::Text(name.clone())).into_iter().collect();
    for (key, line) in &edit.set_lines {
        let field = format!("{LINE_PREFIX}{key}");
        if !now.fields.contains_key(&field) {
            return Err(PlanError::field(format!("set_lines.{key}"), "is no line of this ticket: use add_lines"));
        }
        if let Some(line) = line {
            line.check(&format!("set_lines.{key}"))?;
        }
        edits.push(FieldEdit { record: ticket, field, value: line.as_ref().map(|line| FieldValue::Text(line.text())) });
    }
    let taken = now.fields.keys().filter(|field| field.starts_with(LINE_PREFIX)).count();
    if taken + edit.add_lines.len() > LINES_MAX {
        return Err(PlanError::field("add_lines", format!("makes too many lines: keep it to {LINES_MAX}")));
    }
    let author = shop.ask(|shop| shop.own_journal().to_string()).await?;
    let author = author.get(..8).unwrap_or_default();
    for (line, number) in edit.add_lines.iter().zip(next_number(&now)..) {
        // Two tills that add a line at the same time must not write one field.
        let field = format!("{LINE_PREFIX}{number:04}-{author}");
        edits.push(FieldEdit { record: ticket, field, value: Some(FieldValue::Text(line.text())) });
    }
    Ok(shared_record::edited(DocumentId::tickets(ticket), ticket, edits))
}

/// Closes a ticket with a sale of what is on it.
///
/// # Errors
/// [`PlanError`], naming the field. A ticket closed twice with different sales is refused when
/// the second is recorded here, and a conflict when two tills did it apart.
pub async fn close_ticket(
    shop: &ShopHandle,
    ticket: RecordId,
    source: Option<Source>,
    currency: Currency,
    tenders: Vec<NewTender>,
    note: Option<String>,
) -> Result<Planned, PlanError> {
    let now = stored(shop, ticket).await?;
    let lines: Vec<Line> = ticket_lines(&now).into_iter().map(|(_, line)| line.into_line()).collect();
    if lines.is_empty() {
        return Err(PlanError::field("lines", "is empty: put something on the ticket first"));
    }
    let new = NewSale { source, occurred: None, currency, lines, tenders, customer: None, note, ticket: Some(ticket) };
    let mut planned = super::sale(shop, new).await?;
    let before = counted_fact(shop, ticket.derived("sale", 0)).await?;
    if before.is_some() && before.as_ref() != planned.operation.facts.first() {
        return Err(closed(ticket));
    }
    let status =
        FieldEdit { record: ticket, field: STATUS.to_owned(), value: Some(FieldValue::Text("closed".to_owned())) };
    planned.operation.edits.push((DocumentId::tickets(ticket), status));
    Ok(planned)
}

/// The lines of a ticket by key, in the order they were added. What is no line is left out.
#[must_use]
pub fn ticket_lines(ticket: &SharedRecord) -> Vec<(String, TicketLine)> {
    ticket
        .fields
        .iter()
        .filter_map(|(field, value)| {
            let key = field.strip_prefix(LINE_PREFIX)?;
            let FieldValue::Text(text) = value else { return None };
            Some((key.to_owned(), serde_json::from_str(text).ok()?))
        })
        .collect()
}

async fn stored(shop: &ShopHandle, ticket: RecordId) -> Result<SharedRecord, PlanError> {
    let now = shared_record::read(shop, DocumentId::tickets(ticket), ticket).await?;
    if !now.exists() {
        return Err(PlanError::NotFound { what: "ticket", id: ticket.to_string() });
    }
    Ok(now)
}

fn is_closed(ticket: &SharedRecord) -> bool {
    ticket.text(STATUS).as_deref() == Some("closed")
}

fn closed(ticket: RecordId) -> PlanError {
    let reason = format!("ticket {ticket} was closed before: open a new one");
    PlanError::State { state: State::TicketClosed, reason }
}

fn next_number(ticket: &SharedRecord) -> u32 {
    let numbers = ticket.fields.keys().filter_map(|field| field.strip_prefix(LINE_PREFIX)?.get(..4)?.parse().ok());
    numbers.max().unwrap_or(0_u32).saturating_add(1)
}

fn check_name(name: Option<&str>) -> Result<(), PlanError> {
    if name.is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        return Err(PlanError::field("name", format!("is too long: keep it to {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn check_lines<'l>(list: &str, lines: impl Iterator<Item = &'l TicketLine>) -> Result<(), PlanError> {
    for (index, line) in lines.enumerate() {
        if index >= LINES_MAX {
            return Err(PlanError::field(list, format!("is too long: keep it to {LINES_MAX}")));
        }
        line.check(&format!("{list}[{index}]"))?;
    }
    Ok(())
}

impl TicketLine {
    /// The line of a sale.
    #[must_use]
    pub fn into_line(self) -> Line {
        Line {
            sku: self.sku,
            quantity_milli: self.quantity_milli,
            unit_price_minor: self.unit_price_minor,
            discount_minor: self.discount_minor.unwrap_or_default(),
            tax_rate_bp: self.tax_rate_bp,
        }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn check(&self, path: &str) -> Result<(), PlanError> {
        let refused = |name: &str, reason: &str| Err(PlanError::field(format!("{path}.{name}"), reason));
        if self.sku.is_empty() {
            return refused("sku", "is empty: give it a value");
        }
        if self.sku.len() > NAME_BYTES_MAX {
            return refused("sku", "is too long: keep it to 128 bytes");
        }
        if self.quantity_milli <= 0 {
            return refused("quantity_milli", "must be more than zero");
        }
        if self.unit_price_minor < 0 {
            return refused("unit_price_minor", "must not be negative");
        }
        match self.clone().into_line().amount_minor() {
            Err(error) => refused("unit_price_minor", &error.to_string()),
            Ok(amount) if amount < 0 || self.discount_minor.is_some_and(|discount| discount < 0) => {
                refused("discount_minor", "must be between zero and the line's amount")
            }
            Ok(_) if self.tax_rate_bp.is_some_and(|rate| rate > 10_000) => {
                refused("tax_rate_bp", "must be at most 10000 (100 %)")
            }
            Ok(_) => Ok(()),
        }
    }
}
