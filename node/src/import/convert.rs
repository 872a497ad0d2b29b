//! The online-retail format as batches: what an invoice, a product and a customer become.

use crdt_model::record::NAME_BYTES_MAX;

use super::batch::{BatchCustomer, BatchInvoice, BatchLine, BatchProduct};
use super::catalogue::CatalogueItem;
use super::reader::{Invoice, InvoiceKind, RetailLine};

/// The source of everything in this format.
pub const ONLINE_RETAIL: &str = "online-retail";

/// An invoice as entries of the journal: one, unless its lines don't fit.
#[must_use]
pub fn invoices(invoice: &Invoice) -> Vec<BatchInvoice> {
    let whole = match invoice.part {
        0 => invoice.number.clone(),
        part => format!("{}#{part}", invoice.number),
    };
    let mut pieces: Vec<BatchInvoice> = Vec::new();
    let mut bytes = 0;
    for line in &invoice.lines {
        let line_bytes = line.stock_code.len() + LINE_BYTES;
        if pieces.is_empty() || bytes + line_bytes > INVOICE_BYTES_MAX {
            let key = match pieces.len() {
                0 => whole.clone(),
                further => format!("{whole}+{further}"),
            };
            pieces.push(empty(invoice, key));
            bytes = 0;
        }
        bytes += line_bytes;
        if let Some(piece) = pieces.last_mut() {
            let side = if line.quantity_milli > 0 { &mut piece.sold } else { &mut piece.returned };
            side.push(batch_line(line));
        }
    }
    for piece in &mut pieces {
        piece.reason = (!piece.returned.is_empty()).then(|| reason(invoice.kind).to_owned());
    }
    pieces
}

/// A product of the catalogue.
#[must_use]
pub fn product(stock_code: &str, item: &CatalogueItem) -> BatchProduct {
    let name = if item.description.is_empty() { stock_code } else { &item.description };
    BatchProduct {
        sku: stock_code.to_owned(),
        name: Some(within(name, NAME_BYTES_MAX)),
        price_minor: (item.unit_price_minor > 0).then_some(item.unit_price_minor),
    }
}

/// A customer, of whom the format tells a number and a country.
#[must_use]
pub fn customer(number: &str, country: &str) -> BatchCustomer {
    BatchCustomer {
        key: number.to_owned(),
        name: format!("Customer {number}"),
        note: (!country.is_empty()).then(|| country.to_owned()),
    }
}

fn empty(invoice: &Invoice, key: String) -> BatchInvoice {
    BatchInvoice {
        key,
        local_ms: u64::try_from(invoice.at_ms).unwrap_or_default(),
        customer: invoice.customer.clone(),
        sold: Vec::new(),
        returned: Vec::new(),
        reason: None,
    }
}

fn batch_line(line: &RetailLine) -> BatchLine {
    BatchLine {
        sku: line.stock_code.clone(),
        quantity_milli: line.quantity_milli.abs(),
        unit_price_minor: line.unit_price_minor,
        discount_minor: line.discount_minor(),
    }
}

const fn reason(kind: InvoiceKind) -> &'static str {
    match kind {
        InvoiceKind::Sale => "returned",
        InvoiceKind::Cancellation => "cancelled",
    }
}

/// `text` cut to so many bytes, between letters, the last an ellipsis if anything was cut.
fn within(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let kept_bytes_max = bytes_max.saturating_sub('…'.len_utf8());
    let ends = text.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let cut = ends.take_while(|end| *end <= kept_bytes_max).last().unwrap_or_default();
    format!("{}…", text.get(..cut).unwrap_or_default())
}

/// What a line takes in an entry beside its stock code, at most.
const LINE_BYTES: usize = 40;
/// An entry holds 96 KiB of facts; a request, with its JSON, 256 KiB.
const INVOICE_BYTES_MAX: usize = 80_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn invoice(kind: InvoiceKind, part: u32, quantities: &[i64]) -> Invoice {
        let line = |(number, quantity): (u64, &i64)| RetailLine {
            line_number: number,
            stock_code: "85123A".to_owned(),
            description: "A HOLDER".to_owned(),
            quantity_milli: *quantity,
            unit_price_micro: 2_550_000,
            unit_price_minor: 255,
            amount_minor: quantity * 255 / 1_000,
        };
        Invoice {
            number: "536365".to_owned(),
            part,
            kind,
            customer: Some("17850".to_owned()),
            country: "United Kingdom".to_owned(),
            at_ms: 1_291_191_960_000,
            lines: (2..).zip(quantities).map(line).collect(),
        }
    }

    #[test]
    fn a_sale_with_a_return_in_it_is_one_entry_of_two_sides() {
        let made = invoices(&invoice(InvoiceKind::Sale, 0, &[6_000, -1_000]));
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].key, "536365");
        assert_eq!(made[0].sold[0].quantity_milli, 6_000);
        assert_eq!(made[0].returned[0].quantity_milli, 1_000);
        assert_eq!(made[0].reason.as_deref(), Some("returned"));
    }

    #[test]
    fn a_cancellation_is_a_return_alone_and_a_later_part_has_its_own_key() {
        let made = invoices(&invoice(InvoiceKind::Cancellation, 2, &[-1_000]));
        assert_eq!(made[0].key, "536365#2");
        assert!(made[0].sold.is_empty());
        assert_eq!(made[0].reason.as_deref(), Some("cancelled"));
    }

    #[test]
    fn lines_that_fit_in_no_entry_go_on_in_the_next() {
        let mut long = invoice(InvoiceKind::Sale, 0, &[1_000; 1_500]);
        for line in &mut long.lines {
            line.stock_code = "X".repeat(64);
        }
        let made = invoices(&long);
        assert_eq!(made.iter().map(|piece| piece.key.as_str()).collect::<Vec<_>>(), ["536365", "536365+1"]);
        assert_eq!(made.iter().map(|piece| piece.sold.len()).sum::<usize>(), 1_500);
    }

    #[test]
    fn names_are_cut_between_letters() {
        let mut item = CatalogueItem::default();
        item.description = "é".repeat(100);
        let product = product("X", &item);
        assert!(product.name.as_ref().is_some_and(|name| name.len() <= NAME_BYTES_MAX && name.ends_with("é…")));
        assert_eq!(product.price_minor, None, "a price of nothing is unknown");
    }
}
