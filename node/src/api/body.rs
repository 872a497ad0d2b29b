//! Bodies and queries: bounded, then parsed, with the field that is wrong by its path.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Number, Value};

use super::problem::{Code, Problem};
use super::state::ApiState;

/// The largest body that is read.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

/// A query string.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if let BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) = rejection {
                let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes: send less at once");
                return Problem::new(Code::BodyTooLarge, detail);
            }
            Problem::new(Code::MalformedJson, format!("the body broke off: {}", rejection.body_text()))
        })?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| Problem::new(Code::BadParameter, rejection.body_text()))
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        // Fields without their names would do for serde.
        let error = serde_json::from_slice::<IgnoredAny>(bytes).err();
        return Err(error.map_or_else(
            || Problem::new(Code::WrongType, "the body must be a JSON object: name its fields"),
            |error| refused(".", &error),
        ));
    }
    // Keeping track of the path costs as much again, so it is done only for what is refused.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    if let Some(value) = with_whole_numbers(bytes) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        refused(&path, error.inner())
    })?;
    deserializer.end().map_err(|error| refused(".", &error))?;
    Ok(value)
}

/// To JSON 5.0 is as good a whole number as 5, and some clients have no other.
fn with_whole_numbers<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    make_whole(&mut value);
    T::deserialize(value).ok()
}

fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole_number(number).filter(|_| number.is_f64()) {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(fields) => fields.values_mut().for_each(make_whole),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A whole number, however it is written; one beyond 64 bits is the largest there is.
pub(super) fn whole_number(number: &Number) -> Option<i64> {
    if number.is_u64() || number.is_i64() {
        return Some(number.as_i64().unwrap_or(i64::MAX));
    }
    let float = number.as_f64().filter(|float| float.abs() <= WHOLE_MAX && float.fract() == 0.0)?;
    format!("{float:.0}").parse().ok()
}

/// Up to here every whole number is a float of its own.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

fn refused(path: &str, error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        let at = format!("line {}, column {}", error.line(), error.column());
        return Problem::new(Code::MalformedJson, format!("the body is not JSON: {at}: {}", reason(error)));
    }
    let reason = reason(error);
    let parent = if path == "." { "" } else { path };
    let named = reason.split('`').nth(1).unwrap_or_default();
    let (code, field) = if reason.starts_with("unknown field") {
        (Code::UnknownField, join(parent, named))
    } else if reason.starts_with("missing field") {
        (Code::MissingField, join(parent, named))
    } else if reason.starts_with("invalid value") || reason.starts_with("unknown variant") {
        (Code::InvalidField, parent.to_owned())
    } else {
        (Code::WrongType, parent.to_owned())
    };
    let shown = if field.is_empty() { "the body" } else { &field };
    let detail = format!("{shown}: {reason}");
    match field.is_empty() {
        true => Problem::new(code, detail),
        false => Problem::at(code, field, detail),
    }
}

/// The path of a field that an error names; the path may name it already.
fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        return name.to_owned();
    }
    if parent == name || parent.ends_with(&format!(".{name}")) {
        return parent.to_owned();
    }
    format!("{parent}.{name}")
}

/// The error without its place, which is only useful for what is no JSON at all.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Line {
        sku: String,
        amount_minor: i64,
    }

    fn read(text: &str) -> Result<Line, &'static str> {
        parse(text.as_bytes()).map_err(|problem| problem.code.text())
    }

    #[test]
    fn whole_numbers_may_be_written_as_json_has_them_and_nothing_is_rounded() {
        let line = |amount_minor| Ok(Line { sku: "BREAD".to_owned(), amount_minor });
        assert_eq!(read(r#"{"sku": "BREAD", "amount_minor": 5.0}"#), line(5));
        assert_eq!(read(r#" {"sku": "BREAD", "amount_minor": -1.2e3}"#), line(-1_200));
        for wrong in ["5.5", "1e300", "9007199254740993.0e1", "\"5\""] {
            let text = format!("{{\"sku\": \"BREAD\", \"amount_minor\": {wrong}}}");
            assert_eq!(read(&text), Err("wrong_type"), "{wrong}");
        }
    }

    #[test]
    fn a_body_is_an_object() {
        assert_eq!(read(r#"["BREAD", 5]"#), Err("wrong_type"));
        assert_eq!(read(r#"["BREAD", 5"#), Err("malformed_json"));
        assert_eq!(read("5"), Err("wrong_type"));
        assert_eq!(read(""), Err("malformed_json"));
    }
}
