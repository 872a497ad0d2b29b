//! What can't reach the shop's server becomes an operation in the queue, durable before it is
//! answered with 202. Requests carry the key that the queue would use, so a server that took one
//! whose answer was lost does not take it again.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, body};
use bytes::Bytes;
use crdt_model::ids::RecordId;
use crdt_model::record::{CUSTOM_BODY_BYTES_MAX, Custom, Source};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt};

use super::device::{DeviceStatus, text};
use super::{Answering, is_the_networks};
use crate::api::{Code, Problem};
use crate::queue::{Filter, Queue, QueueError, QueueStatus, Shown};

/// Queues what can't reach the shop's server.
///
/// - It is for services that pass requests on to the server: an error of the network, an answer of
///   502, 503 or 504, or no answer in time, and the request is queued instead.
/// - Requests of devices that say `X-Is-Online: false` are queued at once, and so is what has to
///   come behind something that is queued: of the same record, or with an id that the server does
///   not know yet.
/// - What is passed on carries `Idempotency-Key` (and `X-Operation-Id`, the client's own id): pass
///   them on too.
/// - A request with a key that was queued before is answered again, and not passed on.
/// - Only JSON in POST, PUT, PATCH and DELETE can be queued; whatever else fails is answered 503.
#[derive(Clone)]
pub struct QueueOnFailure {
    queue: Queue,
    operation_type: String,
    path: Option<PathMap>,
    timeout: Duration,
    /// The last request that was passed on found no server.
    away: Arc<AtomicBool>,
}

/// The path at the server of a request's.
type PathMap = Arc<dyn Fn(&Uri) -> String + Send + Sync>;

/// The service of [`QueueOnFailure`].
#[derive(Debug, Clone)]
pub struct QueueingOnFailure<S> {
    inner: S,
    layer: QueueOnFailure,
}

/// A request that can be queued.
#[derive(Debug)]
struct Queueable {
    operation: Custom,
    source: Source,
    id: RecordId,
    /// The client named it itself.
    named: bool,
    body: Value,
}

/// No answer came in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer in time")]
struct TimedOut(#[source] tokio::time::error::Elapsed);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const OPERATION_ID: HeaderName = HeaderName::from_static("x-operation-id");
/// The client instance of callers that don't name themselves.
const INSTANCE: &str = "service";
/// As long as a carrier waits by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most waiting operations that a request is compared with; behind more it is queued too.
const COMPARED_MAX: usize = 256;

impl std::fmt::Debug for QueueOnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueOnFailure").field("operation_type", &self.operation_type).finish_non_exhaustive()
    }
}

impl QueueOnFailure {
    /// Queues operations of this type: `sale`, `expense`, …, or a word of the app's own.
    #[must_use]
    pub fn new(queue: Queue, operation_type: impl Into<String>) -> Self {
        Self { queue, operation_type: operation_type.into(), path: None, timeout: TIMEOUT, away: Arc::default() }
    }

    /// How a request's path is called at the server, if not the same. It has to lie below a path
    /// that the carrier's config allows.
    #[must_use]
    pub fn with_path(mut self, path: impl Fn(&Uri) -> String + Send + Sync + 'static) -> Self {
        self.path = Some(Arc::new(path));
        self
    }

    /// How long an answer is waited for; ten seconds if not given.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn answer<S>(self, inner: S, request: Request) -> Result<Response, Problem>
    where
        S: Service<Request, Response = Response> + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let status = DeviceStatus::of_request(&request)?;
        if ![Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(request.method()) {
            return match self.pass_on(inner, request).await? {
                Ok(answer) => Ok(answer),
                Err(why) => Err(Problem::new(Code::Offline, format!("the server can't be reached ({why}): try again"))),
            };
        }
        let (request, bytes) = buffered(request).await?;
        let Some(queueable) = self.queueable(&request, &status, &bytes).await? else {
            let request = request.map(|()| Body::from(bytes));
            return self.pass_on(inner, request).await?.map_err(|why| {
                let detail = format!("the server can't be reached ({why}), and only JSON can be queued: try again");
                Problem::new(Code::Offline, detail)
            });
        };
        if queueable.named
            && let Some(before) = self.before(&queueable).await?
        {
            return Ok(told_again(&queueable, &before));
        }
        if !status.online || self.has_to_wait(&queueable).await? {
            return self.queued(queueable).await;
        }
        let mut request = request.map(|()| Body::from(bytes));
        let mut put = |name, value: &str| {
            HeaderValue::from_str(value).is_ok_and(|value| request.headers_mut().insert(name, value).is_some())
        };
        put(IDEMPOTENCY_KEY, &queueable.id.to_string());
        put(OPERATION_ID, &queueable.source.key);
        match self.pass_on(inner, request).await? {
            Ok(answer) => Ok(answer),
            Err(why) => {
                tracing::info!(operation = %queueable.id, %why, "the server can't be reached: the operation is queued");
                self.queued(queueable).await
            }
        }
    }

    /// The answer from below, or why the network gave none.
    async fn pass_on<S>(&self, inner: S, request: Request) -> Result<Result<Response, String>, Problem>
    where
        S: Service<Request, Response = Response> + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let error = match tokio::time::timeout(self.timeout, inner.oneshot(request)).await {
            Ok(Ok(answer)) if is_a_gateways(answer.status()) => {
                self.away.store(true, Ordering::Relaxed);
                return Ok(Err(format!("status {}", answer.status())));
            }
            Ok(Ok(answer)) => {
                // Who gets through tells the carrier, which may be waiting for its next try.
                if self.away.swap(false, Ordering::Relaxed) {
                    self.queue.desk().network_is_back();
                }
                return Ok(Ok(answer));
            }
            Ok(Err(error)) => error.into(),
            Err(elapsed) => TimedOut(elapsed).into(),
        };
        if is_the_networks(error.as_ref()) {
            self.away.store(true, Ordering::Relaxed);
            return Ok(Err(error.to_string()));
        }
        tracing::error!(%error, "a request could not be passed on, and trying again would not help");
        Err(Problem::new(Code::UpstreamFailed, "the request could not be passed on: see the service's log"))
    }

    async fn queueable(
        &self,
        request: &Request<()>,
        status: &DeviceStatus,
        bytes: &Bytes,
    ) -> Result<Option<Queueable>, Problem> {
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => match serde_json::from_slice(bytes) {
                Ok(body) => body,
                Err(_) => return Ok(None),
            },
        };
        let given = match text(request.headers(), "idempotency-key")? {
            Some(key) => Some(key),
            None => text(request.headers(), "x-operation-id")?,
        };
        let key = match given {
            Some(key) => key.to_owned(),
            None => {
                crate::folder::random::<16>().map(|bytes| uuid::Uuid::new_v8(bytes).to_string()).map_err(|error| {
                    Problem::new(Code::NotReady, format!("the system gives no random number ({error}): try again"))
                })?
            }
        };
        let source = Source { instance: status.device.clone().unwrap_or_else(|| INSTANCE.to_owned()), key };
        let path = match &self.path {
            Some(path) => path(request.uri()),
            None => request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        };
        let operation = Custom {
            source: Some(source.clone()),
            operation_type: self.operation_type.clone(),
            method: request.method().to_string(),
            path,
            body: body.to_string(),
            base_tag: text(request.headers(), header::IF_MATCH.as_str())?.map(str::to_owned),
            network_type: status.network_type.clone(),
            ..Custom::default()
        };
        let id = self.queue.operation_id(&source).await?;
        Ok(Some(Queueable { operation, source, id, named: given.is_some(), body }))
    }

    async fn before(&self, queueable: &Queueable) -> Result<Option<Shown>, Problem> {
        match self.queue.find(&queueable.source.instance, &queueable.id.to_string()).await {
            Ok(before) => Ok(Some(before)),
            Err(QueueError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has to come behind something that is queued.
    async fn has_to_wait(&self, queueable: &Queueable) -> Result<bool, Problem> {
        let operation = &queueable.operation;
        if self.queue.refers_to_queued(&queueable.source, &operation.path, &queueable.body)? {
            return Ok(true);
        }
        let waits = [QueueStatus::Pending, QueueStatus::Syncing, QueueStatus::Conflict, QueueStatus::Failed];
        let filter = Filter { statuses: waits.to_vec(), ..Filter::default() };
        let listing = self.queue.operations(&filter, COMPARED_MAX, None).await?.unwrap_or_default();
        let of_one_record = |shown: &Shown| {
            let Some(described) = shown.described() else { return false };
            let both_create = described.method == "POST" && operation.method == "POST";
            !both_create && are_of_one_record(&described.path, &operation.path)
        };
        Ok(listing.next.is_some() || listing.items.iter().any(of_one_record))
    }

    async fn queued(self, queueable: Queueable) -> Result<Response, Problem> {
        // The device is cut off from the server, whatever links the node has.
        self.queue.may_record_offline(&self.operation_type).await?;
        let acted = self.queue.add(queueable.operation, None).await?;
        let body = json!({
            "success": true,
            "queued": true,
            "queueId": acted.place.map(|place| place.seq),
            "operationId": queueable.source.key,
            "message": "recorded on this device; it goes to the server when that can be reached",
            "id": queueable.id.to_string(),
            "repeated": acted.repeated,
        });
        Ok((StatusCode::ACCEPTED, Json(body)).into_response())
    }
}

/// An answer for a request that was queued before.
fn told_again(queueable: &Queueable, before: &Shown) -> Response {
    let synced = before.status == Some(QueueStatus::Synced);
    let server = before.row.outcome.as_ref().and_then(|(.., outcome)| outcome.server_id.clone());
    let body = json!({
        "success": true,
        "queued": !synced,
        "queueId": before.row.recorded.as_ref().map(|recorded| recorded.place.seq),
        "operationId": queueable.source.key,
        "message": "recorded before",
        "id": queueable.id.to_string(),
        "repeated": true,
        "status": before.status.map(QueueStatus::word),
        "server_id": server,
    });
    (if synced { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(body)).into_response()
}

/// Whether a path is the other's, or lies below it.
fn are_of_one_record(one: &str, other: &str) -> bool {
    let bare = |path: &str| path.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
    let (one, other) = (bare(one), bare(other));
    let below = |longer: &str, shorter: &str| {
        longer.strip_prefix(shorter).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(&one, &other) || below(&other, &one)
}

/// What a service answers that could not reach what is behind it.
fn is_a_gateways(status: StatusCode) -> bool {
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&status)
}

async fn buffered(request: Request) -> Result<(Request<()>, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let bytes = body::to_bytes(body, CUSTOM_BODY_BYTES_MAX).await.map_err(|error| {
        let detail = format!("the body broke off, or is larger than {CUSTOM_BODY_BYTES_MAX} bytes ({error})");
        Problem::new(Code::BodyTooLarge, detail)
    })?;
    Ok((Request::from_parts(parts, ()), bytes))
}

impl<S> Layer<S> for QueueOnFailure {
    type Service = QueueingOnFailure<S>;

    fn layer(&self, inner: S) -> Self::Service {
        QueueingOnFailure { inner, layer: self.clone() }
    }
}

impl<S> Service<Request> for QueueingOnFailure<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>> + Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (inner, layer) = (self.inner.clone(), self.layer.clone());
        Box::pin(async move { Ok(layer.answer(inner, request).await.unwrap_or_else(IntoResponse::into_response)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_waits_for_what_is_queued_of_the_same_record() {
        assert!(are_of_one_record("/api/products/7", "/api/products/7/"));
        assert!(are_of_one_record("/api/products/7/price?x=1", "/api/products/7"));
        assert!(are_of_one_record("/api/products", "/api/products/7"), "it may be what creates it");
        assert!(!are_of_one_record("/api/products/70", "/api/products/7"));
        assert!(!are_of_one_record("/api/products/8", "/api/products/7"));
    }
}
