//! What an answer to a push means: certain words of "not sent" are believed, all else is open.
//! Error codes are reused by the provider, so they are read together with their messages.

use crdt_model::payment::ProviderIds;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::super::{NotSentReason, PushOutcome};

const MINUTE_MS: u64 = 60_000;
const ID_BYTES_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PushAnswer {
    Accepted(ProviderIds),
    /// Certainly not sent, and a new token may help.
    TokenRefused(String),
    NotSent {
        reason: NotSentReason,
        detail: String,
        retry_after_ms: Option<u64>,
    },
    Ambiguous {
        detail: String,
    },
}

impl PushAnswer {
    pub(super) fn into_outcome(self) -> PushOutcome {
        match self {
            Self::Accepted(ids) => PushOutcome::Accepted(ids),
            Self::TokenRefused(detail) => {
                PushOutcome::NotSent { reason: NotSentReason::Credentials, detail, retry_after_ms: None }
            }
            Self::NotSent { reason, detail, retry_after_ms } => PushOutcome::NotSent { reason, detail, retry_after_ms },
            Self::Ambiguous { detail } => PushOutcome::Ambiguous { detail },
        }
    }
}

pub(super) fn read_answer(status: StatusCode, body: &[u8]) -> PushAnswer {
    if status.is_success() {
        return read_success(body);
    }
    let error: ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
    let code = plain(error.error_code.as_str().unwrap_or_default());
    let message = plain(error.error_message.as_str().unwrap_or_default());
    let detail = format!("status {}, {code} {message}", status.as_u16());
    let not_sent = |reason, retry_after_ms| PushAnswer::NotSent { reason, detail: detail.clone(), retry_after_ms };
    // A gateway's own words say nothing about what it passed on.
    if matches!(status.as_u16(), 502..=504) {
        return PushAnswer::Ambiguous { detail };
    }
    match status.as_u16() {
        401 => return PushAnswer::TokenRefused(detail),
        405 => return not_sent(NotSentReason::Rejected, None),
        429 => return not_sent(NotSentReason::RateLimited, Some(MINUTE_MS)),
        _ => {}
    }
    let said = message.to_ascii_lowercase();
    match code.as_str() {
        code if status.is_client_error() && code.starts_with("400.") => not_sent(NotSentReason::Rejected, None),
        code if status.is_client_error() && code.starts_with("404.001.") => PushAnswer::TokenRefused(detail),
        "500.003.02" if said.contains("spike arrest") => not_sent(NotSentReason::RateLimited, Some(MINUTE_MS)),
        "500.003.03" => not_sent(NotSentReason::RateLimited, Some(MINUTE_MS)),
        "500.001.1001" if said.contains("wrong credentials") || said.contains("merchant does not exist") => {
            not_sent(NotSentReason::Credentials, None)
        }
        // Among these "Unable to lock subscriber": the prompt in the way may be our own.
        _ => PushAnswer::Ambiguous { detail },
    }
}

fn read_success(body: &[u8]) -> PushAnswer {
    let open = |detail: &str| PushAnswer::Ambiguous { detail: detail.to_owned() };
    let Ok(answer) = serde_json::from_slice::<SuccessAnswer>(body) else {
        return open("an answer that can't be read");
    };
    let accepted = match &answer.response_code {
        Value::String(text) => text.trim() == "0",
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    };
    if !accepted {
        return open("an answer without ResponseCode 0");
    }
    match (id(&answer.merchant_request_id), id(&answer.checkout_request_id)) {
        (Some(request_id), Some(checkout_id)) => PushAnswer::Accepted(ProviderIds { request_id, checkout_id }),
        _ => open("an answer without its request ids"),
    }
}

/// An id as the provider writes them: short, visible ASCII.
pub(super) fn id(value: &str) -> Option<String> {
    let good = (1..=ID_BYTES_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| value.to_owned())
}

/// Text fit for a log line.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(160).collect()
}

#[derive(Deserialize)]
struct SuccessAnswer {
    #[serde(rename = "MerchantRequestID")]
    merchant_request_id: String,
    #[serde(rename = "CheckoutRequestID")]
    checkout_request_id: String,
    #[serde(rename = "ResponseCode")]
    response_code: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorAnswer {
    #[serde(rename = "errorCode")]
    error_code: Value,
    #[serde(rename = "errorMessage")]
    error_message: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, code: &str, message: &str) -> &'static str {
        let body = format!(r#"{{"requestId":"1","errorCode":"{code}","errorMessage":"{message}"}}"#);
        match read_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes()) {
            PushAnswer::Accepted(_) => "accepted",
            PushAnswer::TokenRefused(_) => "token",
            PushAnswer::NotSent { reason: NotSentReason::Rejected, .. } => "rejected",
            PushAnswer::NotSent { reason: NotSentReason::RateLimited, .. } => "rate",
            PushAnswer::NotSent { reason: NotSentReason::Credentials, .. } => "credentials",
            PushAnswer::NotSent { reason: NotSentReason::Unreachable, .. } => "unreachable",
            PushAnswer::Ambiguous { .. } => "open",
        }
    }

    #[test]
    fn only_what_is_certain_counts_as_not_sent() {
        for (status, code, message, expected) in [
            (400, "400.002.02", "Bad Request - Invalid Amount", "rejected"),
            (400, "", "", "open"),
            (401, "", "", "token"),
            (403, "", "Forbidden", "open"),
            (404, "404.001.03", "Invalid Access Token", "token"),
            (404, "", "", "open"),
            (405, "405.001", "Method Not Allowed", "rejected"),
            (429, "", "", "rate"),
            (500, "500.003.02", "Error Occurred: Spike Arrest Violation", "rate"),
            (500, "500.003.02", "System is busy. Please try again in few minutes.", "open"),
            (500, "500.003.03", "Quota Violation", "rate"),
            (500, "500.001.1001", "Wrong credentials", "credentials"),
            (500, "500.001.1001", "Merchant does not exist", "credentials"),
            (500, "500.001.1001", "Unable to lock subscriber", "open"),
            (500, "500.003.1001", "Internal Server Error", "open"),
            (500, "400.002.02", "Bad Request", "open"),
            (502, "", "", "open"),
            (503, "500.003.02", "Spike Arrest", "open"),
            (504, "", "", "open"),
            (302, "", "", "open"),
        ] {
            assert_eq!(kind(status, code, message), expected, "{status} {code} {message}");
        }
    }

    #[test]
    fn a_success_needs_its_code_and_both_ids() {
        let good = br#"{"MerchantRequestID":"m","CheckoutRequestID":"c","ResponseCode":"0",
            "ResponseDescription":"ok","CustomerMessage":"ok"}"#;
        let ids = ProviderIds { request_id: "m".into(), checkout_id: "c".into() };
        assert_eq!(read_answer(StatusCode::OK, good), PushAnswer::Accepted(ids));
        for body in [
            &b""[..],
            b"<html>",
            b"{}",
            br#"{"MerchantRequestID":"m","CheckoutRequestID":"c","ResponseCode":"1"}"#,
            br#"{"MerchantRequestID":"m","CheckoutRequestID":"","ResponseCode":"0"}"#,
            br#"{"errorCode":"400.002.02","errorMessage":"Bad Request"}"#,
        ] {
            let answer = read_answer(StatusCode::OK, body);
            assert!(matches!(answer, PushAnswer::Ambiguous { .. }), "{answer:?}");
        }
    }
}
