//! What the provider lists or reports by itself: recent transactions, payments made by hand, and
//! the results of reversals and status queries.

use reqwest::StatusCode;
use serde_json::Value;

use super::super::{CALLBACK_BYTES_MAX, CallbackError, Listed, PullOutcome, Report};
use super::answer::{id, plain};
use super::callback::shillings;
use super::push_body::read_timestamp;
use super::requests::{read_plain_time, text};

const LINES_MAX: usize = 10_000;
const ACCOUNT_CHARS_MAX: usize = 64;

/// A page of recent transactions. Only an answer that is understood whole counts: absence is
/// concluded from it.
pub(super) fn read_pull(status: StatusCode, body: &[u8]) -> PullOutcome {
    let unavailable = |detail: &str| PullOutcome::Unavailable(format!("status {}, {detail}", status.as_u16()));
    if !status.is_success() {
        return unavailable(&plain(&String::from_utf8_lossy(body)));
    }
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return unavailable("an answer that can't be read") };
    if answer.get("ResponseCode").and_then(text).as_deref() != Some("1000") {
        return unavailable("an answer without ResponseCode 1000");
    }
    let Some(lists) = answer.get("Response").and_then(Value::as_array) else {
        return unavailable("an answer without its list");
    };
    // The list comes inside another one.
    let lines = lists.iter().flat_map(|list| match list {
        Value::Array(lines) => lines.iter().collect(),
        Value::Object(_) => vec![list],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    });
    let mut read = Vec::new();
    for line in lines.take(LINES_MAX) {
        let Some(line) = read_line(line) else { return unavailable("a line that can't be read") };
        read.push(line);
    }
    PullOutcome::Listed(read)
}

fn read_line(line: &Value) -> Option<Listed> {
    let field = |name: &str| line.get(name).and_then(text);
    Some(Listed {
        receipt_number: id(&field("transactionId")?)?,
        amount_minor: shillings(&field("amount")?.replace(',', ""))?,
        account: field("billreference").unwrap_or_default().chars().take(ACCOUNT_CHARS_MAX).collect(),
        paid_at_ms: field("trxDate").and_then(|date| read_plain_time(&date)),
    })
}

/// A payment made by hand, or the result of a reversal or a status query.
pub(super) fn read_report(body: &[u8]) -> Result<Report, CallbackError> {
    if body.len() > CALLBACK_BYTES_MAX {
        return Err(CallbackError::TooLarge);
    }
    let read: Value = serde_json::from_slice(body).map_err(|error| CallbackError::Malformed(error.to_string()))?;
    if let Some(result) = read.get("Result") {
        return read_result(result);
    }
    let wrong = |field, problem| CallbackError::Field { field, problem };
    let field = |name: &str| read.get(name).and_then(text);
    let receipt_number = field("TransID").and_then(|number| id(&number));
    Ok(Report::Paid(Listed {
        receipt_number: receipt_number.ok_or(wrong("TransID", "missing or not plain text"))?,
        amount_minor: field("TransAmount")
            .and_then(|amount| shillings(&amount))
            .ok_or(wrong("TransAmount", "not an amount with at most two decimals"))?,
        account: plain(&field("BillRefNumber").unwrap_or_default()).chars().take(ACCOUNT_CHARS_MAX).collect(),
        paid_at_ms: field("TransTime").and_then(|time| read_timestamp(&time)),
    }))
}

fn read_result(result: &Value) -> Result<Report, CallbackError> {
    let field = |name: &str| result.get(name).and_then(text);
    let wrong = |field, problem| CallbackError::Field { field, problem };
    let code = field("ResultCode").filter(|code| (1..=32).contains(&code.len()));
    let code = code.ok_or(wrong("ResultCode", "neither a number nor a short text"))?;
    let parameters = result.get("ResultParameters").and_then(|all| all.get("ResultParameter"));
    let parameters: Vec<&Value> = match parameters {
        Some(Value::Array(all)) => all.iter().take(64).collect(),
        Some(one @ Value::Object(_)) => vec![one],
        _ => Vec::new(),
    };
    let parameter = |name: &str| {
        let found = parameters.iter().find(|one| one.get("Key").and_then(Value::as_str) == Some(name));
        found.and_then(|one| one.get("Value")).and_then(text)
    };
    Ok(Report::Result {
        code,
        detail: plain(&field("ResultDesc").unwrap_or_default()),
        conversation: field("ConversationID").and_then(|text| id(&text)),
        receipt_number: parameter("ReceiptNo").and_then(|number| id(&number)),
        amount_minor: parameter("Amount").and_then(|amount| shillings(&amount)),
        status: parameter("TransactionStatus").map(|status| plain(&status)),
        credited: parameter("CreditPartyName").map(|party| plain(&party)),
        at_ms: parameter("FinalisedTime").or_else(|| parameter("InitiatedTime")).and_then(|at| read_timestamp(&at)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        let line = r#"{"transactionId":"SFF6XYZ123","trxDate":"2020-08-05T10:13:00Z","msisdn":722000000,
            "sender":"MPESA","transactiontype":"c2b-pay-bill-debit","billreference":"ABCDEFGH2345",
            "amount":"1,168.00","organizationname":"Duka"}"#;
        let page = |lines: &str| format!(r#"{{"ResponseRefID":"1","ResponseCode":"1000","Response":[[{lines}]]}}"#);
        let PullOutcome::Listed(lines) = read_pull(StatusCode::OK, page(line).as_bytes()) else { panic!() };
        assert_eq!((lines[0].receipt_number.as_str(), lines[0].amount_minor), ("SFF6XYZ123", 116_800));
        assert_eq!(lines[0].account, "ABCDEFGH2345");
        assert_eq!(read_pull(StatusCode::OK, page("").as_bytes()), PullOutcome::Listed(Vec::new()));
        for (status, body) in [
            (200, page(r#"{"transactionId":"SFF6XYZ123","amount":"much"}"#)),
            (200, page(line).replace("1000", "1001")),
            (200, "{}".to_owned()),
            (500, page(line)),
        ] {
            let read = read_pull(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert!(matches!(read, PullOutcome::Unavailable(_)), "{body}");
        }
    }

    #[test]
    fn a_confirmation_and_a_result_are_told_apart() {
        let paid = br#"{"TransactionType":"Pay Bill","TransID":"SFF6XYZ123","TransTime":"20191219102115",
            "TransAmount":"65.00","BusinessShortCode":"174379","BillRefNumber":"ABC","MSISDN":"2547 ***** 149"}"#;
        let Ok(Report::Paid(line)) = read_report(paid) else { panic!() };
        assert_eq!((line.amount_minor, line.paid_at_ms), (6_500, Some(1_576_740_075_000)));
        let result = br#"{"Result":{"ResultType":0,"ResultCode":"R000001","ResultDesc":"already reversed",
            "ConversationID":"AG_1","ResultParameters":{"ResultParameter":{"Key":"Amount","Value":65}}}}"#;
        let Ok(Report::Result { code, amount_minor, .. }) = read_report(result) else { panic!() };
        assert_eq!((code.as_str(), amount_minor), ("R000001", Some(6_500)));
        for body in [&b"{}"[..], br#"{"TransID":"A","TransAmount":"-1"}"#, br#"{"Result":{}}"#, b"x"] {
            assert!(read_report(body).is_err());
        }
    }
}
