//! Server-sent events: hints of what changes, for pages that show it.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use crdt_model::shop::Change;
use futures::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::state::ApiState;
use crate::queue::alerts::Alert;
use crate::queue::kind_word;

/// Proxies and phones drop a silent connection after half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Hints of what changes from now on: `fact`, `document`, `peer`, `quarantined`, `epoch`; `alert`
/// when a person should look at something; and `lagged` when some were missed.
#[utoipa::path(get, path = "/api/events", tag = "service",
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn events(State(state): State<ApiState>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let hints = stream::unfold(state.shop.changes(), next);
    let alerts = stream::unfold(state.desk.alerts(), next_alert);
    // When the shop ends, the stream does.
    let hints = hints.map(Some).chain(stream::once(async { None }));
    let both = stream::select(hints, alerts.map(Some));
    let both = both.take_while(|hint| std::future::ready(hint.is_some())).filter_map(std::future::ready);
    Sse::new(both).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn next(mut changes: Receiver<Change>) -> Option<(Result<Event, Infallible>, Receiver<Change>)> {
    let (name, data) = match changes.recv().await {
        Ok(change) => hint(&change),
        Err(RecvError::Lagged(missed)) => ("lagged", json!({ "missed": missed })),
        Err(RecvError::Closed) => return None,
    };
    Some((Ok(Event::default().event(name).data(data.to_string())), changes))
}

async fn next_alert(mut alerts: Receiver<Alert>) -> Option<(Result<Event, Infallible>, Receiver<Alert>)> {
    let (name, data) = match alerts.recv().await {
        Ok(Alert { kind, operation, detail }) => {
            let operation = operation.map(|id| id.to_string());
            ("alert", json!({ "kind": kind.word(), "operation": operation, "detail": detail }))
        }
        Err(RecvError::Lagged(missed)) => ("lagged", json!({ "missed": missed })),
        Err(RecvError::Closed) => return None,
    };
    Some((Ok(Event::default().event(name).data(data.to_string())), alerts))
}

fn hint(change: &Change) -> (&'static str, Value) {
    match change {
        Change::Fact { kind, record, device } => {
            ("fact", json!({ "kind": kind_word(*kind), "id": record.to_string(), "device": device.to_string() }))
        }
        Change::Document { document, keys } => ("document", json!({ "document": document.to_string(), "keys": keys })),
        Change::Peer { device, up } => ("peer", json!({ "device": device.to_string(), "up": up })),
        Change::Quarantined { place } => {
            ("quarantined", json!({ "journal": place.journal.to_string(), "seq": place.seq }))
        }
        Change::Epoch { epoch } => ("epoch", json!({ "epoch": epoch })),
    }
}
