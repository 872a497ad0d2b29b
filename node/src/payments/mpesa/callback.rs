//! Reads an STK callback: tolerant of the shapes the provider is known to send, strict about
//! what money depends on.

use crdt_model::payment::{CallbackResult, ProviderIds};
use serde::Deserialize;
use serde_json::Value;

use super::super::{CALLBACK_BYTES_MAX, CallbackError, CallbackReport};
use super::MINOR_PER_SHILLING;
use super::answer::{id, plain};
use super::push_body::read_timestamp;

const ITEMS_MAX: usize = 64;
const CODE_BYTES_MAX: usize = 32;

pub(super) fn parse(body: &[u8]) -> Result<CallbackReport, CallbackError> {
    if body.len() > CALLBACK_BYTES_MAX {
        return Err(CallbackError::TooLarge);
    }
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|error| CallbackError::Malformed(error.to_string()))?;
    let callback = envelope.body.stk_callback;
    let request_id = id(&callback.merchant_request_id)
        .ok_or(CallbackError::Field { field: "MerchantRequestID", problem: "empty, too long or not plain text" })?;
    let checkout_id = id(&callback.checkout_request_id)
        .ok_or(CallbackError::Field { field: "CheckoutRequestID", problem: "empty, too long or not plain text" })?;
    let result_code = text(&callback.result_code)
        .filter(|code| (1..=CODE_BYTES_MAX).contains(&code.len()))
        .ok_or(CallbackError::Field { field: "ResultCode", problem: "neither a number nor a short text" })?;
    let items = callback.metadata.unwrap_or_default().items;
    if items.len() > ITEMS_MAX {
        return Err(CallbackError::Field { field: "CallbackMetadata.Item", problem: "too long" });
    }
    let item = |name: &str| items.iter().find(|item| item.name == name).and_then(|item| text(&item.value));
    let amount_minor = match item("Amount") {
        Some(amount) => Some(
            shillings(&amount)
                .ok_or(CallbackError::Field { field: "Amount", problem: "not an amount with at most two decimals" })?,
        ),
        None => None,
    };
    Ok(CallbackReport {
        result: CallbackResult {
            ids: ProviderIds { request_id, checkout_id },
            result_code,
            amount_minor,
            receipt_number: item("MpesaReceiptNumber").and_then(|number| id(&number)),
        },
        description: plain(callback.result_desc.as_deref().unwrap_or_default()),
        paid_at_ms: item("TransactionDate").and_then(|date| read_timestamp(&date)),
        phone: item("PhoneNumber").map(|phone| plain(&phone)),
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `1`, `1.0` or `1.50` shillings as cents, exactly.
pub(in super::super) fn shillings(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let cents = part.trim_end_matches('0');
    if !digits(whole) || !digits(part) || cents.len() > 2 {
        return None;
    }
    let cents: i64 = format!("{cents:0<2}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(MINOR_PER_SHILLING)?.checked_add(cents)
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Body")]
    body: Body,
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "stkCallback")]
    stk_callback: StkCallback,
}

#[derive(Deserialize)]
struct StkCallback {
    #[serde(rename = "MerchantRequestID")]
    merchant_request_id: String,
    #[serde(rename = "CheckoutRequestID")]
    checkout_request_id: String,
    #[serde(rename = "ResultCode")]
    result_code: Value,
    #[serde(rename = "ResultDesc", default)]
    result_desc: Option<String>,
    #[serde(rename = "CallbackMetadata", default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(rename = "Item", default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Value", default)]
    value: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callback(code: &str, metadata: &str) -> Vec<u8> {
        format!(
            r#"{{"Body":{{"stkCallback":{{"MerchantRequestID":"m-1","CheckoutRequestID":"ws_CO_1",
            "ResultCode":{code},"ResultDesc":"said"{metadata}}}}}}}"#
        )
        .into_bytes()
    }

    fn items(items: &str) -> String {
        format!(r#","CallbackMetadata":{{"Item":[{items}]}}"#)
    }

    #[test]
    fn a_paid_callback_is_read_whatever_the_order_and_shape_of_its_items() {
        for shape in [
            r#"{"Name":"Amount","Value":65.00},{"Name":"MpesaReceiptNumber","Value":"SFF6XYZ123"},
               {"Name":"Balance"},{"Name":"TransactionDate","Value":20191219102115},
               {"Name":"PhoneNumber","Value":254708374149}"#,
            r#"{"Name":"PhoneNumber","Value":"2547****149"},{"Name":"TransactionDate","Value":"20191219102115"},
               {"Name":"Balance","Value":null},{"Name":"Surprise","Value":{"a":1}},
               {"Name":"MpesaReceiptNumber","Value":"SFF6XYZ123"},{"Name":"Amount","Value":"65"}"#,
        ] {
            let report = parse(&callback("0", &items(shape))).unwrap();
            assert_eq!(report.result.result_code, "0");
            assert_eq!(report.result.amount_minor, Some(6500));
            assert_eq!(report.result.receipt_number.as_deref(), Some("SFF6XYZ123"));
            assert_eq!(report.paid_at_ms, Some(1_576_740_075_000));
            assert!(report.phone.is_some());
        }
    }

    #[test]
    fn result_codes_come_as_numbers_and_strings_and_metadata_may_be_missing() {
        for (code, read) in [("0", "0"), (r#""0""#, "0"), ("1032", "1032"), (r#""SFC_IC0003""#, "SFC_IC0003")] {
            let report = parse(&callback(code, "")).unwrap();
            assert_eq!(report.result.result_code, read);
            assert_eq!(report.result.amount_minor, None);
            assert_eq!(report.result.receipt_number, None);
        }
        assert!(parse(&callback("1", r#","CallbackMetadata":null"#)).is_ok());
        assert!(parse(&callback("1", r#","CallbackMetadata":{}"#)).is_ok());
    }

    #[test]
    fn what_money_depends_on_is_never_guessed() {
        for (body, field) in [
            (callback("null", ""), "ResultCode"),
            (callback("[0]", ""), "ResultCode"),
            (callback(r#""""#, ""), "ResultCode"),
            (callback("0", &items(r#"{"Name":"Amount","Value":"lots"}"#)), "Amount"),
            (callback("0", &items(r#"{"Name":"Amount","Value":1e30}"#)), "Amount"),
            (callback("0", &items(r#"{"Name":"Amount","Value":-65}"#)), "Amount"),
            (callback("0", &items(r#"{"Name":"Amount","Value":65.005}"#)), "Amount"),
            (callback("0", &items(&vec![r#"{"Name":"x"}"#; 65].join(","))), "CallbackMetadata.Item"),
        ] {
            let error = parse(&body).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
        let absent = parse(&callback("0", &items(r#"{"Name":"Amount"}"#))).unwrap();
        assert_eq!(absent.result.amount_minor, None);
        for body in [&b""[..], b"null", b"{}", br#"{"Body":{}}"#, b"\xff\xfe"] {
            assert!(matches!(parse(body), Err(CallbackError::Malformed(_))));
        }
        assert_eq!(parse(&vec![b' '; CALLBACK_BYTES_MAX + 1]), Err(CallbackError::TooLarge));
    }
}
