//! Where the provider calls back: a listener of its own. A body is durable before it is
//! answered, and processed after.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use crdt_model::ids::RecordId;
use crdt_model::payment::{CallbackToken, callback_token};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

use super::StartError;
use super::inbox::{self, Body as MailBody, Mail, Subject};
use super::rows::Arrival;
use crate::payments::{CALLBACK_BYTES_MAX, CALLBACK_ROUTE};
use crate::shop_handle::ShopHandle;

/// Callbacks read at once; each may take `CALLBACK_BYTES_MAX` of memory.
const READERS_MAX: usize = 256;
/// A provider sends its few hundred bytes at once.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// Open connections get so long to end when the relay stops.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

pub(super) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Callbacks { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Lets callbacks in.
pub(super) struct Door {
    shop: ShopHandle,
    token_key: [u8; 32],
    readers: Semaphore,
    arrived: Arc<Notify>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    pub(super) fn new(shop: ShopHandle, token_key: [u8; 32], arrived: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { shop, token_key, readers: Semaphore::new(READERS_MAX), arrived })
    }

    /// Who is meant, if the token proves that the provider was told so.
    fn admit(&self, intent: &str, number: &str, token: &str) -> Option<(RecordId, u32)> {
        let intent = Uuid::try_parse(intent).ok()?;
        let number: u32 = number.parse().ok()?;
        callback_token(&self.token_key, intent, number).matches(token).then_some((RecordId(intent), number))
    }

    async fn keep(&self, intent: RecordId, number: u32, body: &[u8]) -> StatusCode {
        let arrival = Arrival::new(intent, number, body);
        let reader = self.shop.reader().as_ref();
        let stored = arrival.is_stored(reader).and_then(|stored| Ok((stored, arrival.is_crowded(reader)?)));
        match stored {
            Ok((true, _)) => return StatusCode::OK,
            Ok((false, false)) => {}
            Ok((false, true)) => {
                tracing::error!(%intent, attempt = number, "too many different callbacks for one attempt: look for who sends them");
                return StatusCode::TOO_MANY_REQUESTS;
            }
            Err(error) => {
                tracing::error!(%error, "a callback can't be kept: it is left to the provider to repeat it");
                return StatusCode::SERVICE_UNAVAILABLE;
            }
        }
        if self.shop.write_rows(vec![arrival.put(body)]).await.is_err() {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        self.arrived.notify_one();
        StatusCode::OK
    }
}

impl Door {
    /// Keeps what the provider reports by itself.
    async fn keep_mail(&self, mail: Mail) -> StatusCode {
        let reader = self.shop.reader().as_ref();
        match mail.is_stored(reader).and_then(|stored| Ok((stored, inbox::is_crowded(reader)?))) {
            Ok((true, _)) => return StatusCode::OK,
            Ok((false, false)) => {}
            Ok((false, true)) => {
                tracing::error!("too many reports wait to be taken in: look for who sends them");
                return StatusCode::TOO_MANY_REQUESTS;
            }
            Err(error) => {
                tracing::error!(%error, "a report can't be kept: it is left to the provider to repeat it");
                return StatusCode::SERVICE_UNAVAILABLE;
            }
        }
        if self.shop.write_rows(vec![mail.put()]).await.is_err() {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        self.arrived.notify_one();
        StatusCode::OK
    }

    async fn read(&self, request: Request) -> Result<Vec<u8>, StatusCode> {
        let Ok(_reading) = self.readers.try_acquire() else { return Err(StatusCode::SERVICE_UNAVAILABLE) };
        match tokio::time::timeout(BODY_WAIT, read(request.into_body())).await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        }
    }
}

/// Where payments made by hand are reported. One secret for the relay: only the provider learns it.
pub(super) fn confirmation_path(token_key: &[u8; 32]) -> String {
    format!("/confirmations/{}", confirmation_token(token_key).to_hex())
}

/// Where the result of a reversal is reported.
pub(super) fn result_path(proposal: RecordId, token_key: &[u8; 32]) -> String {
    format!("/results/{}/{}", proposal.0.as_simple(), result_token(proposal, token_key).to_hex())
}

fn confirmation_token(token_key: &[u8; 32]) -> CallbackToken {
    callback_token(&blake3::derive_key("tillmesh 2026 relay confirmations", token_key), Uuid::nil(), 0)
}

fn result_token(proposal: RecordId, token_key: &[u8; 32]) -> CallbackToken {
    callback_token(&blake3::derive_key("tillmesh 2026 relay results", token_key), proposal.0, 0)
}

/// What the provider may call.
pub(super) fn router(door: Arc<Door>) -> Router {
    Router::new()
        .route(CALLBACK_ROUTE, post(take))
        .route("/confirmations/{token}", post(confirm))
        .route("/validations/{token}", post(validate))
        .route("/results/{proposal}/{token}", post(result))
        .with_state(door)
}

async fn confirm(State(door): State<Arc<Door>>, Path(token): Path<String>, request: Request) -> Response {
    if !confirmation_token(&door.token_key).matches(&token) {
        return refused().into_response();
    }
    match door.read(request).await {
        Ok(body) => said(door.keep_mail(Mail::Confirmation(MailBody(body))).await),
        Err(status) => status.into_response(),
    }
}

/// Asked before a customer pays by hand: any payment is taken, and nothing is recorded.
async fn validate(State(door): State<Arc<Door>>, Path(token): Path<String>) -> Response {
    if confirmation_token(&door.token_key).matches(&token) { said(StatusCode::OK) } else { refused().into_response() }
}

async fn result(
    State(door): State<Arc<Door>>,
    Path((proposal, token)): Path<(String, String)>,
    request: Request,
) -> Response {
    let proposal = Uuid::try_parse(&proposal).map(RecordId);
    let Some(proposal) = proposal.ok().filter(|proposal| result_token(*proposal, &door.token_key).matches(&token))
    else {
        return refused().into_response();
    };
    match door.read(request).await {
        Ok(body) => said(door.keep_mail(Mail::Result(Subject::of(proposal), MailBody(body))).await),
        Err(status) => status.into_response(),
    }
}

fn refused() -> StatusCode {
    tracing::warn!("something called the callback address without a valid token");
    StatusCode::NOT_FOUND
}

/// The provider's own form of an answer.
fn said(status: StatusCode) -> Response {
    if status == StatusCode::OK {
        return Json(json!({ "ResultCode": 0, "ResultDesc": "Accepted" })).into_response();
    }
    status.into_response()
}

/// Takes callbacks until the relay stops.
pub(super) async fn serve(listener: TcpListener, door: Arc<Door>, mut stop: watch::Receiver<bool>) {
    let router = router(door);
    let mut stopping = stop.clone();
    // A sender that is gone means the same as being told.
    let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopped);
    let cut = async move {
        drop(stop.wait_for(|stop| *stop).await);
        tokio::time::sleep(CLOSE_WAIT).await;
    };
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                tracing::error!(%error, "callbacks are no longer taken: start the relay again");
            }
        }
        () = cut => tracing::debug!("a callback connection was cut"),
    }
}

async fn take(
    State(door): State<Arc<Door>>,
    Path((intent, number, token)): Path<(String, String, String)>,
    request: Request,
) -> StatusCode {
    let Some((intent, number)) = door.admit(&intent, &number, &token) else { return refused() };
    match door.read(request).await {
        Ok(body) => door.keep(intent, number, &body).await,
        Err(status) => status,
    }
}

async fn read(body: Body) -> Option<Vec<u8>> {
    axum::body::to_bytes(body, CALLBACK_BYTES_MAX).await.ok().map(Vec::from)
}
