//! How lines and tenders are typed: SKU:QTY:PRICE[:DISCOUNT] and cash[:AMOUNT] or
//! mpesa:PHONE[:AMOUNT], in decimals, which become whole minor units here.

use std::str::FromStr;

use crdt_model::money::{Currency, MoneyError, line_amount_minor, parse_decimal};
use serde_json::{Value, json};

use super::failure::Failure;

/// A line as it was typed. Amounts are read once the business's currency is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TypedLine {
    sku: String,
    quantity_milli: i64,
    price: String,
    discount: Option<String>,
}

/// A tender as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TypedTender {
    way: Way,
    /// The rest if not given.
    amount: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Cash,
    Other,
    Mpesa { phone: String },
}

/// A word that is neither a line nor a tender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TypingError {
    #[error("write SKU:QTY:PRICE or SKU:QTY:PRICE:DISCOUNT, such as BREAD:2:65.00")]
    Line,
    #[error("the quantity must be above zero with at most 3 decimals, such as 2 or 0.5")]
    Quantity,
    #[error("write cash, other or mpesa:PHONE, each with :AMOUNT if it does not pay the rest")]
    Tender,
}

impl FromStr for TypedLine {
    type Err = TypingError;

    fn from_str(text: &str) -> Result<Self, TypingError> {
        let mut words = text.split(':');
        let (Some(sku), Some(quantity), Some(price)) = (words.next(), words.next(), words.next()) else {
            return Err(TypingError::Line);
        };
        let discount = words.next().map(str::to_owned);
        if sku.is_empty() || price.is_empty() || words.next().is_some() {
            return Err(TypingError::Line);
        }
        let quantity_milli = parse_decimal(quantity, QUANTITY_DECIMALS).map_err(|_| TypingError::Quantity)?;
        if quantity_milli <= 0 {
            return Err(TypingError::Quantity);
        }
        Ok(Self { sku: sku.to_owned(), quantity_milli, price: price.to_owned(), discount })
    }
}

impl FromStr for TypedTender {
    type Err = TypingError;

    fn from_str(text: &str) -> Result<Self, TypingError> {
        let mut words = text.split(':');
        let way = match words.next() {
            Some("cash") => Way::Cash,
            Some("other") => Way::Other,
            Some("mpesa") => {
                let phone = words.next().filter(|phone| !phone.is_empty()).ok_or(TypingError::Tender)?;
                Way::Mpesa { phone: phone.to_owned() }
            }
            Some(_) | None => return Err(TypingError::Tender),
        };
        let amount = words.next().map(str::to_owned);
        if words.next().is_some() {
            return Err(TypingError::Tender);
        }
        Ok(Self { way, amount })
    }
}

/// A sale's lines and tenders, as the API takes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rung {
    pub(super) lines: Vec<Value>,
    pub(super) tenders: Vec<Value>,
    pub(super) total_minor: i64,
}

/// Adds up what was typed. Without any tender, the whole is paid in cash.
pub(super) fn ring_up(currency: Currency, lines: &[TypedLine], tenders: &[TypedTender]) -> Result<Rung, Failure> {
    let mut total_minor: i64 = 0;
    let mut rung = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let price = amount(currency, &format!("lines[{index}].unit_price_minor"), &line.price)?;
        let field = format!("lines[{index}].discount_minor");
        let discount = line.discount.as_deref().map_or(Ok(0), |text| amount(currency, &field, text))?;
        let line_minor = line_amount_minor(price, line.quantity_milli)
            .and_then(|whole| whole.checked_sub(discount).ok_or(MoneyError::TooLarge));
        total_minor = line_minor
            .and_then(|minor| total_minor.checked_add(minor).ok_or(MoneyError::TooLarge))
            .map_err(|error| wrong(format!("lines[{index}].unit_price_minor"), &error))?;
        rung.push(json!({
            "sku": line.sku,
            "quantity_milli": line.quantity_milli,
            "unit_price_minor": price,
            "discount_minor": discount,
        }));
    }
    let whole_in_cash = [TypedTender { way: Way::Cash, amount: None }];
    let tenders = match tenders {
        // What costs nothing is not paid for.
        [] if total_minor == 0 => &[],
        [] => whole_in_cash.as_slice(),
        given => given,
    };
    Ok(Rung { lines: rung, tenders: tendered(currency, total_minor, tenders)?, total_minor })
}

fn tendered(currency: Currency, total_minor: i64, tenders: &[TypedTender]) -> Result<Vec<Value>, Failure> {
    let mut rest_minor = total_minor;
    let mut given = Vec::with_capacity(tenders.len());
    for (index, tender) in tenders.iter().enumerate() {
        let field = format!("tenders[{index}].amount_minor");
        let minor = tender.amount.as_deref().map(|text| amount(currency, &field, text)).transpose()?;
        rest_minor =
            rest_minor.checked_sub(minor.unwrap_or_default()).ok_or_else(|| wrong(field, &MoneyError::TooLarge))?;
        given.push(minor);
    }
    let mut open = given.iter().filter(|minor| minor.is_none());
    let (pays_the_rest, another) = (open.next().is_some(), open.next().is_some());
    if another {
        return Err(Failure::usage("only one --pay can pay the rest: give the others an amount"));
    }
    if pays_the_rest && rest_minor <= 0 && total_minor > 0 {
        return Err(Failure::usage("nothing is left to pay for the --pay without an amount: leave it out"));
    }
    let amounts = given.into_iter().map(|minor| minor.unwrap_or(rest_minor));
    Ok(tenders.iter().zip(amounts).map(|(tender, minor)| tender.way.tender(minor)).collect())
}

impl Way {
    fn tender(&self, amount_minor: i64) -> Value {
        match self {
            Self::Cash => json!({"kind": "cash", "amount_minor": amount_minor}),
            Self::Other => json!({"kind": "other", "amount_minor": amount_minor}),
            Self::Mpesa { phone } => json!({"kind": "mpesa", "amount_minor": amount_minor, "phone": phone}),
        }
    }
}

/// Reads an amount that was typed.
pub(super) fn amount(currency: Currency, field: &str, text: &str) -> Result<i64, Failure> {
    currency.parse_minor(text).map_err(|error| wrong(field.to_owned(), &error))
}

fn wrong(field: String, error: &MoneyError) -> Failure {
    Failure::usage(format!("{field}: {error}")).at(Some(field))
}

const QUANTITY_DECIMALS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<TypedLine> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn tenders(texts: &[&str]) -> Vec<TypedTender> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn rung(line: &[&str], pay: &[&str]) -> Result<Rung, String> {
        ring_up(Currency::KES, &lines(line), &tenders(pay)).map_err(|error| error.to_string())
    }

    #[test]
    fn two_loaves_are_paid_in_cash_unless_said_otherwise() {
        let sale = rung(&["BREAD:2:65.00"], &[]).unwrap();
        assert_eq!(sale.total_minor, 13_000);
        assert_eq!(sale.tenders, [json!({"kind": "cash", "amount_minor": 13_000})]);
        let line = json!({"sku": "BREAD", "quantity_milli": 2_000, "unit_price_minor": 6_500, "discount_minor": 0});
        assert_eq!(sale.lines, [line]);
    }

    #[test]
    fn the_tender_without_an_amount_pays_the_rest() {
        let sale = rung(&["BREAD:2:65.00:5", "SUGAR:0.5:200"], &["mpesa:0708374149", "cash:25"]).unwrap();
        assert_eq!(sale.total_minor, 22_500);
        let mpesa = json!({"kind": "mpesa", "amount_minor": 20_000, "phone": "0708374149"});
        assert_eq!(sale.tenders, [mpesa, json!({"kind": "cash", "amount_minor": 2_500})]);
    }

    #[test]
    fn what_is_free_needs_no_tender() {
        assert_eq!(rung(&["BAG:1:0"], &[]).unwrap().tenders, Vec::<Value>::new());
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        for (pay, word) in [(["cash", "mpesa:0708374149"], "only one"), (["cash:130", "mpesa:0708374149"], "nothing")] {
            let error = rung(&["BREAD:2:65.00"], &pay).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        for line in ["BREAD:2:65.001", "BREAD:2:x", "BREAD:2:65:x", "BREAD:2:92233720368547758.07"] {
            let error = rung(&[line], &[]).unwrap_err();
            assert!(error.contains("lines[0]"), "{error}");
        }
    }

    #[test]
    fn what_is_no_line_or_tender_says_what_is() {
        for text in ["", "BREAD", "BREAD:2", ":2:65", "BREAD:2:", "BREAD:2:65:5:1"] {
            assert_eq!(text.parse::<TypedLine>(), Err(TypingError::Line), "{text}");
        }
        for text in ["BREAD:0:65", "BREAD:-1:65", "BREAD:x:65", "BREAD:0.0001:65"] {
            assert_eq!(text.parse::<TypedLine>(), Err(TypingError::Quantity), "{text}");
        }
        for text in ["", "gold", "mpesa", "mpesa:", "cash:1:2", "mpesa:07:1:2"] {
            assert_eq!(text.parse::<TypedTender>(), Err(TypingError::Tender), "{text}");
        }
    }
}
