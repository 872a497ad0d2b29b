//! What an answer of the server means. Pure.

use crdt_model::record::{ErrorClass, UpstreamConflict};
use serde_json::Value;

use crate::queue::TryError;

/// An answer, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The version's tag.
    pub etag: Option<String>,
    /// How long to wait.
    pub retry_after_ms: Option<u64>,
    /// Where the new record is.
    pub location: Option<String>,
    /// The server says that it had done this before.
    pub replayed: bool,
    /// The body, if it was JSON.
    pub body: Option<Value>,
    /// How many bytes it had.
    pub bytes: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// Nobody listens there.
    #[error("no connection: {0}")]
    Refused(String),
    /// The name is not known.
    #[error("the name can't be resolved: {0}")]
    Dns(String),
    /// The address is none that the carrier may speak to.
    #[error("{0}")]
    Forbidden(String),
    /// The server can't be reached.
    #[error("the server can't be reached: {0}")]
    Unreachable(String),
    /// It went silent.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke after something was sent.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The answer is larger than any real one.
    #[error("the answer is too large")]
    TooLarge,
}

impl NoAnswer {
    /// Nothing can have reached the server.
    #[must_use]
    pub fn nothing_was_sent(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Dns(_) | Self::Forbidden(_) | Self::Unreachable(_))
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Dns(_) => "dns",
            Self::Forbidden(_) => "address_not_allowed",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Broken(_) => "broken",
            Self::TooLarge => "answer_too_large",
        }
    }
}

/// What it means.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The server has it.
    Done {
        /// The server's own id for the record.
        server_id: Option<String>,
        /// The tag of its version.
        tag: Option<String>,
    },
    /// The server has something else.
    Conflict(Against),
    /// Not now; it may work later.
    Again {
        /// Why.
        error: TryError,
        /// Not before so many milliseconds, if the server said so.
        after_ms: Option<u64>,
        /// It uses up one of the tries.
        counts: bool,
        /// What it says of the server.
        server: Health,
    },
    /// The same again would be refused again.
    Refused(TryError),
}

/// What the server has instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Against {
    /// How it contradicts the operation.
    pub kind: UpstreamConflict,
    /// The server's version, as far as it told.
    pub server: Option<Value>,
    /// The tag of that.
    pub tag: Option<String>,
    /// The server's own id.
    pub server_id: Option<String>,
    /// For people.
    pub detail: String,
    /// The answer's status.
    pub http_status: u16,
}

/// What a call says of the server as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up,
    /// It fails, or is away.
    Down,
    /// It doesn't let the carrier in.
    Closed,
    /// It wants fewer calls.
    Busy,
}

/// What became of a call of `method`.
#[must_use]
pub fn classify(method: &str, answer: &Result<Answer, NoAnswer>) -> Verdict {
    let answer = match answer {
        Ok(answer) => answer,
        Err(none) => return no_answer(none),
    };
    match answer.status {
        200..=299 => Verdict::Done { server_id: server_id(answer), tag: tag(answer) },
        404 | 410 if method == "DELETE" => Verdict::Done { server_id: None, tag: None },
        404 | 410 if method == "PUT" || method == "PATCH" => against(answer, UpstreamConflict::Deleted),
        409 | 412 => against(answer, conflict_kind(answer)),
        401 | 403 => again(answer, ErrorClass::Auth, false, Health::Closed),
        429 => again(answer, ErrorClass::Rate, false, Health::Busy),
        503 if answer.retry_after_ms.is_some() => again(answer, ErrorClass::Rate, false, Health::Busy),
        408 | 425 => again(answer, ErrorClass::ServerError, true, Health::Up),
        300..=399 => Verdict::Refused(TryError {
            class: ErrorClass::Validation,
            code: "redirect".to_owned(),
            detail: "the server sends the carrier elsewhere, and it follows nobody: correct base_url or the path"
                .to_owned(),
            http_status: Some(answer.status),
        }),
        400..=499 => Verdict::Refused(error(answer, ErrorClass::Validation)),
        _ => again(answer, ErrorClass::ServerError, true, Health::Down),
    }
}

fn no_answer(none: &NoAnswer) -> Verdict {
    let error = |class| TryError { class, code: none.code().to_owned(), detail: none.to_string(), http_status: None };
    match none {
        NoAnswer::Forbidden(_) => {
            Verdict::Again { error: error(ErrorClass::Network), after_ms: None, counts: false, server: Health::Closed }
        }
        NoAnswer::Refused(_) | NoAnswer::Dns(_) | NoAnswer::Unreachable(_) => {
            Verdict::Again { error: error(ErrorClass::Network), after_ms: None, counts: false, server: Health::Down }
        }
        NoAnswer::Timeout | NoAnswer::Broken(_) => {
            Verdict::Again { error: error(ErrorClass::Network), after_ms: None, counts: true, server: Health::Down }
        }
        NoAnswer::TooLarge => {
            Verdict::Again { error: error(ErrorClass::ServerError), after_ms: None, counts: true, server: Health::Up }
        }
    }
}

fn again(answer: &Answer, class: ErrorClass, counts: bool, server: Health) -> Verdict {
    Verdict::Again { error: error(answer, class), after_ms: answer.retry_after_ms, counts, server }
}

fn against(answer: &Answer, kind: UpstreamConflict) -> Verdict {
    let server = answer.body.as_ref().and_then(version_in).cloned();
    Verdict::Conflict(Against {
        kind,
        server_id: server_id(answer),
        tag: tag(answer),
        detail: detail(answer),
        http_status: answer.status,
        server,
    })
}

/// The version that a conflict's answer carries, by the names that servers give it.
fn version_in(body: &Value) -> Option<&Value> {
    ["current", "server", "server_data", "existing", "latest"]
        .iter()
        .find_map(|name| body.get(name))
        .filter(|one| one.is_object())
}

fn conflict_kind(answer: &Answer) -> UpstreamConflict {
    let word = word(answer).unwrap_or_default().to_ascii_uppercase();
    if word.contains("DUPLICATE") || word.contains("EXISTS") {
        UpstreamConflict::Duplicate
    } else if word.contains("DELETED") || word.contains("GONE") {
        UpstreamConflict::Deleted
    } else if answer.status == 412
        || word.contains("VERSION")
        || word.contains("STALE")
        || word.contains("PRECONDITION")
    {
        UpstreamConflict::VersionMismatch
    } else {
        UpstreamConflict::Manual
    }
}

fn word(answer: &Answer) -> Option<String> {
    let body = answer.body.as_ref()?;
    let names = ["conflict_type", "code", "error_code", "error", "type"];
    let found = names.iter().filter_map(|name| body.get(name)).find_map(|value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(inner) => inner.get("code").and_then(Value::as_str).map(str::to_owned),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    });
    found.map(|text| text.chars().take(CODE_CHARS_MAX).collect())
}

fn detail(answer: &Answer) -> String {
    let body = answer.body.as_ref();
    let names = ["detail", "message", "title", "error"];
    let said = body.and_then(|body| names.iter().find_map(|name| body.get(name)?.as_str()));
    let said: String = said.unwrap_or("the server gave no reason").chars().take(DETAIL_CHARS_MAX).collect();
    format!("status {}: {said}", answer.status)
}

fn error(answer: &Answer, class: ErrorClass) -> TryError {
    let code = word(answer).unwrap_or_else(|| format!("http_{}", answer.status));
    TryError { class, code, detail: detail(answer), http_status: Some(answer.status) }
}

fn tag(answer: &Answer) -> Option<String> {
    let version = || {
        let body = answer.body.as_ref()?;
        let version = version_in(body).unwrap_or(body).get("version")?;
        version.as_str().map(str::to_owned).or_else(|| version.as_i64().map(|number| format!("\"{number}\"")))
    };
    answer.etag.clone().or_else(version).filter(|tag| tag.len() <= TAG_BYTES_MAX)
}

/// The id in an answer, by the names that servers give it, or from where it says the record is.
fn server_id(answer: &Answer) -> Option<String> {
    let of = |body: &Value| {
        let names = ["server_id", "serverId", "existing_id", "id", "_id"];
        names.iter().find_map(|name| match body.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        })
    };
    let body = answer.body.as_ref();
    let inner = ["data", "current", "existing", "server"];
    let found = body.and_then(|body| of(body).or_else(|| inner.iter().find_map(|name| of(body.get(name)?))));
    let located = || answer.location.as_deref()?.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
    found.or_else(located).filter(|id| !id.is_empty() && id.len() <= TAG_BYTES_MAX)
}

const CODE_CHARS_MAX: usize = 60;
const DETAIL_CHARS_MAX: usize = 400;
const TAG_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: Value) -> Result<Answer, NoAnswer> {
        Ok(Answer { status, body: Some(body), ..Answer::default() })
    }

    #[test]
    fn ids_are_found_where_servers_put_them() {
        for body in [json!({"id": "s-1"}), json!({"data": {"id": "s-1"}}), json!({"server_id": "s-1", "id": 3})] {
            let verdict = classify("POST", &answer(201, body));
            assert_eq!(verdict, Verdict::Done { server_id: Some("s-1".to_owned()), tag: None });
        }
        let located = Ok(Answer { status: 201, location: Some("/api/sales/77/".to_owned()), ..Answer::default() });
        assert_eq!(classify("POST", &located), Verdict::Done { server_id: Some("77".to_owned()), tag: None });
    }

    #[test]
    fn each_conflict_is_told_from_the_others() {
        let kind = |status, body| match classify("PATCH", &answer(status, body)) {
            Verdict::Conflict(against) => Some(against.kind),
            Verdict::Done { .. } | Verdict::Again { .. } | Verdict::Refused(_) => None,
        };
        assert_eq!(kind(409, json!({"code": "duplicate"})), Some(UpstreamConflict::Duplicate));
        assert_eq!(kind(409, json!({"conflict_type": "VERSION_MISMATCH"})), Some(UpstreamConflict::VersionMismatch));
        assert_eq!(kind(412, json!({})), Some(UpstreamConflict::VersionMismatch));
        assert_eq!(kind(409, json!({"message": "no"})), Some(UpstreamConflict::Manual));
        assert_eq!(kind(410, json!({})), Some(UpstreamConflict::Deleted));
        assert_eq!(kind(422, json!({})), None);
        assert!(matches!(classify("DELETE", &answer(404, json!({}))), Verdict::Done { .. }));
        assert!(matches!(classify("POST", &answer(404, json!({}))), Verdict::Refused(_)));
    }

    #[test]
    fn what_is_nobodys_fault_uses_up_no_try() {
        let counts = |call: &Result<Answer, NoAnswer>| match classify("POST", call) {
            Verdict::Again { counts, server, error, .. } => Some((counts, server, error.class)),
            Verdict::Done { .. } | Verdict::Conflict(_) | Verdict::Refused(_) => None,
        };
        let refused = Err(NoAnswer::Refused(String::new()));
        assert_eq!(counts(&refused), Some((false, Health::Down, ErrorClass::Network)));
        assert_eq!(counts(&Err(NoAnswer::Timeout)), Some((true, Health::Down, ErrorClass::Network)));
        assert_eq!(counts(&answer(500, json!({}))), Some((true, Health::Down, ErrorClass::ServerError)));
        assert_eq!(counts(&answer(429, json!({}))), Some((false, Health::Busy, ErrorClass::Rate)));
        assert_eq!(counts(&answer(401, json!({}))), Some((false, Health::Closed, ErrorClass::Auth)));
        assert_eq!(counts(&answer(422, json!({}))), None);
        assert!(
            matches!(classify("POST", &answer(302, json!({}))), Verdict::Refused(error) if error.code == "redirect")
        );
    }
}
