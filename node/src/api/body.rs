//! Bodies and queries: bounded, then parsed, with the field that is wrong by its path.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

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
    // Keeping track of the path costs as much again, so it is done only for what is refused.
    if let Ok(value) = serde_json::from_slice(bytes) {
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
