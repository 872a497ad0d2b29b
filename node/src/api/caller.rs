//! Who asks, under which id, and how long they wait.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use crdt_model::record::Source;
use serde::Deserialize;

use super::body::Query;
use super::guard::same_business;
use super::problem::{Code, Problem};
use super::state::ApiState;
use crate::layers::{DeviceStatus, text};

/// The longest that a request waits for the relay.
pub(super) const WAIT_MS_MAX: u64 = 30_000;
/// The client instance of callers that don't name themselves.
const INSTANCE: &str = "api";

/// Who asks, under which id, and how long they wait.
#[derive(Debug)]
pub(super) struct Caller {
    instance: String,
    key: Option<String>,
    /// The network that the app is on.
    pub(super) network: Option<String>,
    pub(super) wait: Duration,
}

/// What bodies have in common.
pub(super) trait Named {
    /// The client's own id for the operation.
    fn operation_id(&self) -> Option<&str>;
    /// The business it is for.
    fn business_id(&self) -> Option<&str>;
}

/// Implements [`Named`] for bodies with these two fields.
macro_rules! named {
    ($($body:ty),* $(,)?) => {$(
        impl $crate::api::caller::Named for $body {
            fn operation_id(&self) -> Option<&str> {
                self.operation_id.as_deref()
            }

            fn business_id(&self) -> Option<&str> {
                self.business_id.as_deref()
            }
        }
    )*};
}
pub(super) use named;

#[derive(Debug, Deserialize)]
struct Waiting {
    wait: Option<u64>,
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let Query(Waiting { wait }) = Query::from_request_parts(parts, state).await?;
        let wait = wait.unwrap_or_default();
        if wait > WAIT_MS_MAX {
            let detail = format!("wait is at most {WAIT_MS_MAX} milliseconds");
            return Err(Problem::at(Code::BadParameter, "wait", detail));
        }
        let said = DeviceStatus::of(&parts.headers)?;
        if let Some(network) = &said.network_type {
            state.desk.hear_network(network);
        }
        if parts.headers.contains_key("x-is-online") {
            state.desk.hear_online(said.online);
        }
        // Who knows that there is no network waits for nobody.
        let wait = if said.online { wait } else { 0 };
        Ok(Self {
            network: said.network_type,
            instance: said.device.unwrap_or_else(|| INSTANCE.to_owned()),
            key: text(&parts.headers, "idempotency-key")?.map(str::to_owned),
            wait: Duration::from_millis(wait),
        })
    }
}

impl Caller {
    /// Whose ids its own are.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// The name that the caller gave the operation.
    pub(super) async fn source(&self, state: &ApiState, body: &impl Named) -> Result<Option<Source>, Problem> {
        if let Some(business) = body.business_id() {
            same_business(state, business).await?;
        }
        let key = match (self.key.as_deref(), body.operation_id()) {
            (Some(header), Some(field)) if header != field => {
                let detail = "the Idempotency-Key header and operation_id differ: send one of them";
                return Err(Problem::at(Code::OperationIdMismatch, "operation_id", detail));
            }
            (header, field) => field.or(header),
        };
        Ok(key.map(|key| Source { instance: self.instance.clone(), key: key.to_owned() }))
    }
}
