//! Recording a batch: facts under ids that come from the source's keys, so that a second import
//! adds nothing, and products and customers where there are none yet.

use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::{BusinessId, RecordId};
use crdt_model::money::Currency;
use crdt_model::record::{Fact, FactError, Line, NAME_BYTES_MAX, Refund, Sale, Source, Tender, TenderKind};
use crdt_model::shop::{ActError, Operation};
use crdt_model::time::Timestamp;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::batch::{Batch, BatchCustomer, BatchInvoice, BatchLine, BatchProduct};
use crate::operations::{SharedRecord, product_record};
use crate::shop_handle::{RecordError, ShopHandle, Stopped};

/// What a batch added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Added {
    /// Sales and returns that were added.
    pub facts: u64,
    /// Sales and returns that had been recorded before.
    pub already_there: u64,
    /// Products that were added.
    pub products: u64,
    /// Customers that were added.
    pub customers: u64,
    /// The keys of invoices that were recorded before with other lines; they stay as they were.
    pub differing: Vec<String>,
}

/// Why a batch is refused. Nothing of it is recorded, unless the node stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Amounts are not in the business's currency.
    #[error("currency must be {expected}, the business's own: import into a business in the file's currency")]
    WrongCurrency {
        /// The business's currency.
        expected: Currency,
    },
    /// A field's value can't be used.
    #[error("{field} {reason}")]
    Field {
        /// The field.
        field: String,
        /// Why.
        reason: String,
    },
    /// It can't be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Records a batch: all of it is durable when this answers.
///
/// # Errors
/// [`BatchError`], naming the field.
pub async fn record(shop: &ShopHandle, batch: Batch) -> Result<Added, BatchError> {
    let (business, expected, utc_offset_minutes) =
        shop.ask(|shop| (shop.business(), shop.genesis().currency, shop.genesis().utc_offset_minutes)).await?;
    if batch.currency != expected.code() {
        return Err(BatchError::WrongCurrency { expected });
    }
    let source = Origin { business, instance: batch.instance, currency: expected, utc_offset_minutes };
    // Everything is checked before anything is recorded.
    let invoices = batch.invoices.iter().enumerate().map(|(index, invoice)| source.operation(index, invoice));
    let invoices = invoices.collect::<Result<Vec<_>, _>>()?;
    let products = batch.products.into_iter().enumerate().map(|(index, product)| source.product(index, product));
    let products = products.collect::<Result<Vec<_>, _>>()?;
    let customers = batch.customers.into_iter().enumerate().map(|(index, customer)| source.customer(index, customer));
    let customers = customers.collect::<Result<Vec<_>, _>>()?;

    let mut added = Added {
        products: add_missing(shop, products).await?,
        customers: add_missing(shop, customers).await?,
        ..Added::default()
    };
    // All at once, so that they share their commits.
    let recorded = try_join_all(invoices.into_iter().map(|operation| record_one(shop, operation))).await?;
    for (invoice, (outcome, facts)) in batch.invoices.iter().zip(recorded) {
        match outcome {
            Outcome::Added => added.facts += facts,
            Outcome::Repeated => added.already_there += facts,
            Outcome::Differs => added.differing.push(invoice.key.clone()),
        }
    }
    Ok(added)
}

/// How an invoice went.
enum Outcome {
    Added,
    Repeated,
    Differs,
}

async fn record_one(shop: &ShopHandle, operation: Operation) -> Result<(Outcome, u64), RecordError> {
    let facts = u64::try_from(operation.facts.len()).unwrap_or_default();
    match shop.record(operation).await {
        Ok(acted) if acted.repeated => Ok((Outcome::Repeated, facts)),
        Ok(_) => Ok((Outcome::Added, facts)),
        Err(RecordError::Refused(ActError::IdReused { .. })) => Ok((Outcome::Differs, facts)),
        Err(error) => Err(error),
    }
}

/// A record of a shared document, with the fields that it begins with.
struct Fresh {
    document: DocumentId,
    record: RecordId,
    fields: Vec<(&'static str, FieldValue)>,
}

/// Adds the records that were never there: what people corrected or deleted stays as it is.
async fn add_missing(shop: &ShopHandle, mut records: Vec<Fresh>) -> Result<u64, BatchError> {
    let asked: Vec<(DocumentId, RecordId)> = records.iter().map(|fresh| (fresh.document, fresh.record)).collect();
    let there: Vec<bool> = shop
        .ask(move |shop| {
            asked
                .iter()
                .map(|(document, record)| !SharedRecord::read(shop, *document, *record).fields.is_empty())
                .collect()
        })
        .await?;
    let mut known = there.into_iter();
    records.retain(|_| !known.next().unwrap_or_default());
    // Those of one document together make fewer, larger changes.
    records.sort_by_key(|fresh| (fresh.document, fresh.record));
    records.dedup_by_key(|fresh| fresh.record);
    let count = u64::try_from(records.len()).unwrap_or_default();
    let operations = records.chunks(RECORDS_IN_AN_ENTRY).map(|chunk| {
        let edits = chunk.iter().flat_map(|fresh| {
            fresh.fields.iter().map(|(field, value)| {
                let edit = FieldEdit { record: fresh.record, field: (*field).to_owned(), value: Some(value.clone()) };
                (fresh.document, edit)
            })
        });
        Operation { edits: edits.collect(), ..Operation::default() }
    });
    try_join_all(operations.map(|operation| shop.record(operation))).await?;
    Ok(count)
}

/// Where a batch comes from, and where it goes.
struct Origin {
    business: BusinessId,
    instance: String,
    currency: Currency,
    utc_offset_minutes: i32,
}

impl Origin {
    fn operation(&self, index: usize, invoice: &BatchInvoice) -> Result<Operation, BatchError> {
        let at = |field: &str| format!("invoices[{index}].{field}");
        if invoice.sold.is_empty() && invoice.returned.is_empty() {
            return Err(BatchError::Field { field: at("sold"), reason: "and returned are both empty".to_owned() });
        }
        let offset_ms = i64::from(self.utc_offset_minutes) * 60_000;
        let occurred = Some(Timestamp(invoice.local_ms.saturating_add_signed(-offset_ms)));
        let customer = invoice.customer.as_deref().map(|key| self.customer_record(key));
        let mut facts = Vec::new();
        if !invoice.sold.is_empty() {
            let mut sale = Sale {
                source: Some(self.source(invoice.key.clone())),
                occurred,
                currency: self.currency,
                lines: invoice.sold.iter().map(BatchLine::line).collect(),
                tenders: Vec::new(),
                customer,
                note: None,
                ticket: None,
            };
            sale.tenders = in_cash(sale.total_minor().map_err(|error| wrong(&at("sold"), &error))?);
            facts.push(Fact::Sale(sale));
        }
        if !invoice.returned.is_empty() {
            let mut refund = Refund {
                source: Some(self.source(format!("{}/return", invoice.key))),
                occurred,
                sale: None,
                currency: self.currency,
                lines: invoice.returned.iter().map(BatchLine::line).collect(),
                tenders: Vec::new(),
                reason: invoice.reason.clone().unwrap_or_default(),
                customer,
            };
            refund.tenders = in_cash(refund.total_minor().map_err(|error| wrong(&at("returned"), &error))?);
            facts.push(Fact::Refund(refund));
        }
        for fact in &facts {
            fact.check().map_err(|error| wrong(&at(""), &error))?;
        }
        Ok(Operation { facts, ..Operation::default() })
    }

    fn product(&self, index: usize, product: BatchProduct) -> Result<Fresh, BatchError> {
        let at = |field: &str| format!("products[{index}].{field}");
        check_text(at("sku"), &product.sku, NAME_BYTES_MAX)?;
        let record = product_record(self.business, &product.sku);
        let mut fields = vec![("sku", FieldValue::Text(product.sku))];
        if let Some(name) = product.name {
            check_text(at("name"), &name, NAME_BYTES_MAX)?;
            fields.push(("name", FieldValue::Text(name)));
        }
        if let Some(price_minor) = product.price_minor {
            if price_minor < 0 {
                return Err(BatchError::Field { field: at("price_minor"), reason: "must not be negative".to_owned() });
            }
            fields.push(("price_minor", FieldValue::Int(price_minor)));
        }
        Ok(Fresh { document: DocumentId::catalogue(record), record, fields })
    }

    fn customer(&self, index: usize, customer: BatchCustomer) -> Result<Fresh, BatchError> {
        let at = |field: &str| format!("customers[{index}].{field}");
        check_text(at("key"), &customer.key, NAME_BYTES_MAX)?;
        check_text(at("name"), &customer.name, NAME_BYTES_MAX)?;
        let record = self.customer_record(&customer.key);
        let mut fields = vec![("name", FieldValue::Text(customer.name))];
        if let Some(note) = customer.note {
            check_text(at("note"), &note, NAME_BYTES_MAX)?;
            fields.push(("note", FieldValue::Text(note)));
        }
        Ok(Fresh { document: DocumentId::customers(record), record, fields })
    }

    fn source(&self, key: String) -> Source {
        Source { instance: self.instance.clone(), key }
    }

    fn customer_record(&self, key: &str) -> RecordId {
        RecordId::from_client(self.business, &self.instance, &format!("customer/{key}"))
    }
}

impl BatchLine {
    fn line(&self) -> Line {
        Line {
            sku: self.sku.clone(),
            quantity_milli: self.quantity_milli,
            unit_price_minor: self.unit_price_minor,
            discount_minor: self.discount_minor,
            tax_rate_bp: None,
        }
    }
}

/// What is free is not paid for.
fn in_cash(total_minor: i64) -> Vec<Tender> {
    if total_minor == 0 { Vec::new() } else { vec![Tender { kind: TenderKind::Cash, amount_minor: total_minor }] }
}

fn wrong(field: &str, error: &FactError) -> BatchError {
    BatchError::Field { field: field.trim_end_matches('.').to_owned(), reason: format!("can't be used: {error}") }
}

fn check_text(field: String, text: &str, bytes_max: usize) -> Result<(), BatchError> {
    let reason = match text.len() {
        0 => "is empty: give it a value".to_owned(),
        bytes if bytes > bytes_max => format!("is too long: keep it to {bytes_max} bytes"),
        _ => return Ok(()),
    };
    Err(BatchError::Field { field, reason })
}

/// Even if all of them fall into one document and have long names, they stay below its limit of
/// 8,192 operations a change.
const RECORDS_IN_AN_ENTRY: usize = 24;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn origin(utc_offset_minutes: i32) -> Origin {
        Origin {
            business: BusinessId(Uuid::from_u128(7)),
            instance: "elsewhere".to_owned(),
            currency: Currency::GBP,
            utc_offset_minutes,
        }
    }

    fn line(quantity_milli: i64, unit_price_minor: i64) -> BatchLine {
        BatchLine { sku: "A".to_owned(), quantity_milli, unit_price_minor, discount_minor: 0 }
    }

    fn invoice(sold: Vec<BatchLine>, returned: Vec<BatchLine>) -> BatchInvoice {
        BatchInvoice { key: "1".to_owned(), local_ms: 10_800_000, customer: None, sold, returned, reason: None }
    }

    #[test]
    fn an_invoice_is_a_sale_and_a_return_each_paid_in_cash() {
        let made = origin(180).operation(0, &invoice(vec![line(2_000, 65)], vec![line(1_000, 65)])).unwrap();
        let [Fact::Sale(sale), Fact::Refund(refund)] = made.facts.as_slice() else { panic!("{made:?}") };
        assert_eq!(sale.tenders, [Tender { kind: TenderKind::Cash, amount_minor: 130 }]);
        assert_eq!(refund.tenders, [Tender { kind: TenderKind::Cash, amount_minor: 65 }]);
        assert_eq!(sale.occurred, Some(Timestamp(0)), "three hours after midnight, three hours ahead of UTC");
        assert_ne!(sale.source, refund.source);
    }

    #[test]
    fn what_is_free_is_not_paid_for() {
        let made = origin(0).operation(0, &invoice(vec![line(1_000, 0)], Vec::new())).unwrap();
        assert!(matches!(made.facts.as_slice(), [Fact::Sale(sale)] if sale.tenders.is_empty()));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place_in_the_batch() {
        let refused = |invoice: &BatchInvoice| origin(0).operation(3, invoice).unwrap_err().to_string();
        assert!(refused(&invoice(Vec::new(), Vec::new())).starts_with("invoices[3].sold "));
        let negative = refused(&invoice(vec![line(1_000, 1), line(-1_000, 1)], Vec::new()));
        assert!(
            negative.starts_with("invoices[3].sold ") && negative.contains("lines[1].quantity_milli"),
            "{negative}"
        );
        let overflow = refused(&invoice(Vec::new(), vec![line(i64::MAX, i64::MAX)]));
        assert!(overflow.starts_with("invoices[3].returned "), "{overflow}");
        let keyless = BatchInvoice { key: String::new(), ..invoice(vec![line(1_000, 1)], Vec::new()) };
        assert!(refused(&keyless).starts_with("invoices[3] "), "{}", refused(&keyless));
        let product = |sku: &str, price_minor| {
            let product = BatchProduct { sku: sku.to_owned(), name: None, price_minor };
            origin(0).product(2, product).map(|_| ()).unwrap_err().to_string()
        };
        assert!(product("", None).starts_with("products[2].sku "));
        assert!(product(&"A".repeat(200), None).starts_with("products[2].sku "));
        assert!(product("A", Some(-1)).starts_with("products[2].price_minor "));
    }
}
