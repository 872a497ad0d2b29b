//! Every request beside the push: its body, and how its answer is read.

use crdt_model::payment::ProviderIds;
use crdt_model::time::{Day, Timestamp};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::wire::{WireAnswer, WireError};
use super::super::{NotSentReason, PullWindow, QueryOutcome, ReversalRequest};
use super::answer::{PushAnswer, id, plain, read_answer};
use super::push_body::{UTC_OFFSET_MINUTES, UTC_OFFSET_MS, password, timestamp};
use super::{MINOR_PER_SHILLING, MpesaConfig};

const TEXT_CHARS_MAX: usize = 100;

pub(super) fn query_body(config: &MpesaConfig, checkout_id: &str, at_ms: u64) -> Value {
    let timestamp = timestamp(at_ms);
    json!({
        "BusinessShortCode": config.shortcode,
        "Password": password(&config.shortcode, &config.passkey, &timestamp),
        "Timestamp": timestamp,
        "CheckoutRequestID": checkout_id,
    })
}

pub(super) fn pull_body(config: &MpesaConfig, window: PullWindow) -> Value {
    json!({
        "ShortCode": config.shortcode,
        "StartDate": plain_time(window.from_ms),
        "EndDate": plain_time(window.until_ms),
        "OffSetValue": window.offset.to_string(),
    })
}

pub(super) fn pull_register_body(config: &MpesaConfig, confirmations: &str) -> Value {
    json!({
        "ShortCode": config.shortcode,
        "RequestType": "Pull",
        "NominatedNumber": config.pull_phone.clone().unwrap_or_default(),
        "CallBackURL": config.callback_url(confirmations),
    })
}

pub(super) fn c2b_register_body(config: &MpesaConfig, confirmations: &str) -> Value {
    json!({
        "ShortCode": config.shortcode,
        "ResponseType": "Completed",
        "ConfirmationURL": config.callback_url(confirmations),
        // A payment that is asked about is not made yet: that must never look like a confirmation.
        "ValidationURL": config.callback_url(&confirmations.replace("/confirmations/", "/validations/")),
    })
}

pub(super) fn reversal_body(config: &MpesaConfig, request: &ReversalRequest) -> Option<Value> {
    Some(json!({
        "Initiator": config.initiator.as_ref()?,
        "SecurityCredential": config.security_credential.as_ref()?,
        "CommandID": "TransactionReversal",
        "TransactionID": request.receipt_number,
        "Amount": request.amount_minor / MINOR_PER_SHILLING,
        "ReceiverParty": config.shortcode,
        // The provider's own spelling.
        "RecieverIdentifierType": "11",
        "ResultURL": config.callback_url(&request.results),
        "QueueTimeOutURL": config.callback_url(&request.results),
        "Remarks": request.reason.chars().take(TEXT_CHARS_MAX).collect::<String>(),
        "Occasion": "",
    }))
}

pub(super) fn status_body(config: &MpesaConfig, receipt_number: &str, results: &str) -> Option<Value> {
    Some(json!({
        "Initiator": config.initiator.as_ref()?,
        "SecurityCredential": config.security_credential.as_ref()?,
        "CommandID": "TransactionStatusQuery",
        "TransactionID": receipt_number,
        "PartyA": config.shortcode,
        "IdentifierType": "4",
        "ResultURL": config.callback_url(results),
        "QueueTimeOutURL": config.callback_url(results),
        "Remarks": "status",
        "Occasion": "",
    }))
}

/// `YYYY-MM-DD HH:mm:ss` in East Africa Time.
pub(in super::super) fn plain_time(at_ms: u64) -> String {
    let (year, month, day) = Day::of(Timestamp(at_ms), UTC_OFFSET_MINUTES).civil();
    let seconds = at_ms.saturating_add(UTC_OFFSET_MS) / 1000 % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Reads what the provider's lists write: year or day first, `T` or a blank, seconds or none, in
/// East Africa Time.
pub(in super::super) fn read_plain_time(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches('Z');
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let parts: Vec<&str> = date.split(['-', '/']).collect();
    let [first, month, last] = parts.as_slice() else { return None };
    let (year, day) = if first.len() == 4 { (first, last) } else { (last, first) };
    let day = Day::from_civil(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    let clock = clock.trim().split('.').next()?;
    let mut seconds = 0_u64;
    let mut count = 0;
    for (part, limit) in clock.split(':').zip([24, 60, 60]) {
        let part: u64 = part.parse().ok().filter(|part| *part < limit)?;
        seconds = seconds * 60 + part;
        count += 1;
    }
    let seconds = if count == 2 { seconds * 60 } else { seconds };
    if !(2..=3).contains(&count) {
        return None;
    }
    let day_ms = u64::try_from(day.0).ok()?.checked_mul(86_400_000)?;
    (day_ms + seconds * 1000).checked_sub(UTC_OFFSET_MS)
}

pub(super) fn read_query(status: StatusCode, body: &[u8], ids: &ProviderIds) -> QueryOutcome {
    if !status.is_success() {
        let error: ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
        let words = format!("{} {}", error.code(), error.message());
        if words.contains("being processed") {
            return QueryOutcome::Pending;
        }
        let rate_limited =
            status == StatusCode::TOO_MANY_REQUESTS || error.code() == "500.003.02" || error.code() == "500.003.03";
        return QueryOutcome::Unavailable {
            detail: format!("status {}, {}", status.as_u16(), plain(&words)),
            rate_limited,
        };
    }
    let Ok(answer) = serde_json::from_slice::<QueryAnswer>(body) else {
        return QueryOutcome::Unavailable { detail: "an answer that can't be read".to_owned(), rate_limited: false };
    };
    let same = answer.checkout_request_id.as_deref() == Some(ids.checkout_id.as_str());
    match text(&answer.result_code) {
        Some(code) if same && text(&answer.response_code).as_deref() == Some("0") => {
            QueryOutcome::Result { code, detail: plain(answer.result_desc.as_deref().unwrap_or_default()) }
        }
        _ => QueryOutcome::Unavailable { detail: "an answer about something else".to_owned(), rate_limited: false },
    }
}

/// An answer of which only "done" matters.
pub(super) fn read_done(answer: &WireAnswer) -> Result<(), String> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = body.get("ResponseCode").and_then(text);
    if answer.status.is_success() && code.is_some_and(|code| code.trim_start_matches('0').is_empty() || code == "1000")
    {
        return Ok(());
    }
    Err(format!("status {}, {}", answer.status.as_u16(), plain(&String::from_utf8_lossy(&answer.body))))
}

/// The answer to a request that is carried out later: it is taken, refused, or in doubt.
pub(super) fn read_once(answer: Result<WireAnswer, WireError>) -> PushAnswer {
    let answer = match answer {
        Ok(answer) => answer,
        Err(WireError::NotSent(detail)) => {
            return PushAnswer::NotSent { reason: NotSentReason::Unreachable, detail, retry_after_ms: None };
        }
        Err(error) => return PushAnswer::Ambiguous { detail: error.to_string() },
    };
    if !answer.status.is_success() {
        return read_answer(answer.status, &answer.body);
    }
    let read: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let field = |name: &str| read.get(name).and_then(text).and_then(|text| id(&text));
    match (field("ResponseCode").as_deref(), field("OriginatorConversationID"), field("ConversationID")) {
        (Some("0"), Some(request_id), Some(checkout_id)) => {
            PushAnswer::Accepted(ProviderIds { request_id, checkout_id })
        }
        _ => PushAnswer::Ambiguous { detail: "an answer that can't be read".to_owned() },
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorAnswer {
    #[serde(rename = "errorCode")]
    error_code: Value,
    #[serde(rename = "errorMessage")]
    error_message: Value,
}

impl ErrorAnswer {
    fn code(&self) -> &str {
        self.error_code.as_str().unwrap_or_default()
    }

    fn message(&self) -> &str {
        self.error_message.as_str().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct QueryAnswer {
    #[serde(rename = "ResponseCode", default)]
    response_code: Value,
    #[serde(rename = "ResultCode", default)]
    result_code: Value,
    #[serde(rename = "ResultDesc", default)]
    result_desc: Option<String>,
    #[serde(rename = "CheckoutRequestID", default)]
    checkout_request_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_spelling_of_the_provider() {
        let at = 1_576_740_075_000;
        assert_eq!(plain_time(at), "2019-12-19 10:21:15");
        for text in ["2019-12-19 10:21:15", "2019-12-19T10:21:15Z", "19-12-2019 10:21:15", "19/12/2019 10:21:15.000"] {
            assert_eq!(read_plain_time(text), Some(at), "{text}");
        }
        assert_eq!(read_plain_time("19-12-2019 10:21"), Some(at - 15_000));
        for text in ["", "today", "2019-13-19 10:21:15", "2019-12-19 25:00:00", "2019-12-19 10"] {
            assert_eq!(read_plain_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_query_answers_for_its_own_checkout_alone() {
        let ids = ProviderIds { request_id: "m".into(), checkout_id: "c".into() };
        let good = br#"{"ResponseCode":"0","CheckoutRequestID":"c","ResultCode":"1032","ResultDesc":"no"}"#;
        let read = |status: u16, body: &[u8]| read_query(StatusCode::from_u16(status).unwrap(), body, &ids);
        assert_eq!(read(200, good), QueryOutcome::Result { code: "1032".into(), detail: "no".into() });
        let processing = br#"{"errorCode":"500.001.1001","errorMessage":"The transaction is being processed"}"#;
        assert_eq!(read(500, processing), QueryOutcome::Pending);
        for (status, body, limited) in [
            (200, &br#"{"ResponseCode":"0","CheckoutRequestID":"other","ResultCode":"0"}"#[..], false),
            (200, b"<html>", false),
            (429, b"", true),
            (500, br#"{"errorCode":"500.003.02","errorMessage":"Spike Arrest"}"#, true),
            (503, b"", false),
        ] {
            assert!(
                matches!(read(status, body), QueryOutcome::Unavailable { rate_limited, .. } if rate_limited == limited)
            );
        }
    }

    #[test]
    fn what_is_carried_out_later_is_taken_only_with_its_ids() {
        let answer = |status: u16, body: &str| {
            read_once(Ok(WireAnswer { status: StatusCode::from_u16(status).unwrap(), body: body.into() }))
        };
        let taken = r#"{"OriginatorConversationID":"o","ConversationID":"c","ResponseCode":"0"}"#;
        assert!(matches!(answer(200, taken), PushAnswer::Accepted(_)));
        for (status, body) in [(200, "{}"), (200, ""), (504, ""), (500, "")] {
            assert!(matches!(answer(status, body), PushAnswer::Ambiguous { .. }), "{status} {body}");
        }
        assert!(matches!(answer(400, r#"{"errorCode":"400.002.02"}"#), PushAnswer::NotSent { .. }));
    }
}
