//! A shop's own server that misbehaves when told to: duplicates, stale versions, deletions, 5xx,
//! timeouts after the commit, slow answers, rate limits, redirects into the network. It listens on
//! loopback, and keeps what it was given.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What it does instead of behaving.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Whim {
    /// Answers so, and does nothing.
    Status(u16, Value),
    /// Answers so with `Retry-After`, and does nothing.
    RetryAfter(u16, u64),
    /// Does it, and never answers.
    SilentAfterCommit,
    /// Does it after a while.
    Slow(Duration),
    /// Sends the caller elsewhere.
    Redirect(&'static str),
}

/// One record, as the server has it.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) value: Value,
    pub(crate) version: u64,
    pub(crate) deleted: bool,
}

#[derive(Debug, Default)]
struct World {
    honours_key: bool,
    pause: Duration,
    records: BTreeMap<String, Kept>,
    answers: BTreeMap<String, (u16, Value, Option<String>)>,
    /// How often something was done for a client's own id.
    taken: BTreeMap<String, u64>,
    /// The order in which things were done.
    order: Vec<String>,
    whims: Vec<(String, VecDeque<Whim>)>,
    last_id: u64,
    seen: Vec<(String, String)>,
}

/// The server; it ends with the test.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    world: Arc<Mutex<World>>,
    steps: watch::Sender<u64>,
    serving: Arc<tokio::sync::Mutex<Option<Serving>>>,
    pub(crate) address: SocketAddr,
}

/// It listens, until it is told to stop.
#[derive(Debug)]
struct Serving {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// What a call needs.
#[derive(Debug, Clone)]
struct Shared {
    world: Arc<Mutex<World>>,
    /// Goes up when a call arrives, and again when it is done.
    steps: watch::Sender<u64>,
}

impl Upstream {
    pub(crate) async fn start(honours_key: bool) -> Self {
        let world = Arc::new(Mutex::new(World { honours_key, ..World::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let steps = watch::Sender::new(0);
        let server = Self { world, steps, serving: Arc::default(), address };
        server.listen(listener).await;
        server
    }

    async fn listen(&self, listener: tokio::net::TcpListener) {
        let shared = Shared { world: Arc::clone(&self.world), steps: self.steps.clone() };
        let router = Router::new().fallback(serve).with_state(shared);
        let stop = watch::Sender::new(false);
        let mut told = stop.subscribe();
        let task = tokio::spawn(async move {
            let stopped = async move { drop(told.wait_for(|stop| *stop).await) };
            axum::serve(listener, router).with_graceful_shutdown(stopped).await.unwrap();
        });
        *self.serving.lock().await = Some(Serving { stop, task });
    }

    /// Listens no more; what it has, it keeps. Calls under way are answered first.
    pub(crate) async fn go_away(&self) {
        let serving = self.serving.lock().await.take().unwrap();
        serving.stop.send_replace(true);
        serving.task.await.unwrap();
    }

    /// Listens again where it did.
    pub(crate) async fn come_back(&self) {
        self.listen(tokio::net::TcpListener::bind(self.address).await.unwrap()).await;
    }

    /// Waits until calls have arrived or were done so many more times.
    pub(crate) async fn after_steps(&self, steps: u64) {
        let wanted = *self.steps.borrow() + steps;
        drop(self.steps.subscribe().wait_for(|seen| *seen >= wanted).await);
    }

    /// Takes its time with every call, before and after it is done.
    pub(crate) fn take_time(&self, pause: Duration) {
        self.world.lock().unwrap().pause = pause;
    }

    /// The upstream file that leads here.
    pub(crate) fn file(&self, more: &str) -> String {
        format!(
            "base_url = 'http://{}'\nallow_loopback = true\nbackoff_base_ms = 20\nbackoff_cap_ms = 200\n\
             claim_quiet_ms = 50\ntimeout_ms = 3000\nconnect_timeout_ms = 2000\n{more}",
            self.address
        )
    }

    /// Misbehaves for the next calls of a client's own id, or of a path that contains it.
    pub(crate) fn misbehave(&self, of: &str, whims: impl IntoIterator<Item = Whim>) {
        self.world.lock().unwrap().whims.push((of.to_owned(), whims.into_iter().collect()));
    }

    /// Somebody else changes a record.
    pub(crate) fn change(&self, id: &str, field: &str, value: Value) {
        let mut world = self.world.lock().unwrap();
        let kept = world.records.get_mut(id).unwrap();
        kept.value[field] = value;
        kept.version += 1;
    }

    /// Somebody else deletes a record.
    pub(crate) fn delete(&self, id: &str) {
        self.world.lock().unwrap().records.get_mut(id).unwrap().deleted = true;
    }

    pub(crate) fn put(&self, id: &str, value: Value) {
        let kept = Kept { value, version: 1, deleted: false };
        self.world.lock().unwrap().records.insert(id.to_owned(), kept);
    }

    pub(crate) fn record(&self, id: &str) -> Kept {
        self.world.lock().unwrap().records[id].clone()
    }

    /// How often something was done for a client's own id.
    pub(crate) fn taken(&self, operation: &str) -> u64 {
        self.world.lock().unwrap().taken.get(operation).copied().unwrap_or_default()
    }

    pub(crate) fn taken_all(&self) -> BTreeMap<String, u64> {
        self.world.lock().unwrap().taken.clone()
    }

    pub(crate) fn order(&self) -> Vec<String> {
        self.world.lock().unwrap().order.clone()
    }

    /// Method and path of each call.
    pub(crate) fn seen(&self) -> Vec<(String, String)> {
        self.world.lock().unwrap().seen.clone()
    }
}

async fn serve(
    State(Shared { world, steps }): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (key, operation, if_match) = (text("idempotency-key"), text("x-operation-id"), text("if-match"));
    let path = uri.path().to_owned();
    steps.send_modify(|steps| *steps += 1);
    let (pause, whim) = {
        let mut world = world.lock().unwrap();
        world.seen.push((method.to_string(), path.clone()));
        let of_this = |of: &String| *of == operation || path.contains(of.as_str());
        let found = world.whims.iter_mut().find(|(of, whims)| of_this(of) && !whims.is_empty());
        let whim = found.and_then(|(_, whims)| whims.pop_front());
        (world.pause, whim)
    };
    tokio::time::sleep(pause).await;
    match whim {
        Some(Whim::Status(status, body)) => return answer(status, &body, None),
        Some(Whim::RetryAfter(status, seconds)) => {
            let mut answer = answer(status, &json!({}), None);
            answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return answer;
        }
        Some(Whim::Redirect(to)) => return (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Some(Whim::Slow(pause)) => tokio::time::sleep(pause).await,
        Some(Whim::SilentAfterCommit) => {
            drop(act(&world, &method, &path, &key, &operation, &if_match, &body));
            std::future::pending::<()>().await;
        }
        None => {}
    }
    let (status, value, tag) = act(&world, &method, &path, &key, &operation, &if_match, &body);
    steps.send_modify(|steps| *steps += 1);
    tokio::time::sleep(pause).await;
    answer(status, &value, tag.as_deref())
}

fn act(
    world: &Mutex<World>,
    method: &Method,
    path: &str,
    key: &str,
    operation: &str,
    if_match: &str,
    body: &[u8],
) -> (u16, Value, Option<String>) {
    let mut world = world.lock().unwrap();
    if world.honours_key
        && let Some(before) = world.answers.get(key)
    {
        return before.clone();
    }
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let done = perform(&mut world, method, path, if_match, body);
    if done.0 < 300 && *method != Method::GET {
        *world.taken.entry(operation.to_owned()).or_default() += 1;
        world.order.push(operation.to_owned());
        world.answers.insert(key.to_owned(), done.clone());
    }
    done
}

fn perform(
    world: &mut World,
    method: &Method,
    path: &str,
    if_match: &str,
    body: Value,
) -> (u16, Value, Option<String>) {
    let tag = |kept: &Kept| Some(format!("\"{}\"", kept.version));
    if *method == Method::POST {
        world.last_id += 1;
        let id = format!("s-{}", world.last_id);
        let mut value = body;
        value["id"] = json!(id);
        let kept = Kept { value: value.clone(), version: 1, deleted: false };
        let tag = tag(&kept);
        world.records.insert(id, kept);
        return (201, value, tag);
    }
    let id = path.rsplit('/').next().unwrap_or_default().to_owned();
    let Some(kept) = world.records.get_mut(&id) else { return (404, json!({ "code": "not_found" }), None) };
    if kept.deleted {
        return (410, json!({ "code": "deleted" }), None);
    }
    if *method == Method::GET {
        return (200, kept.value.clone(), tag(kept));
    }
    if !if_match.is_empty() && Some(if_match.to_owned()) != tag(kept) {
        return (412, json!({ "code": "version_mismatch", "current": kept.value }), tag(kept));
    }
    kept.version += 1;
    match *method {
        Method::DELETE => kept.deleted = true,
        Method::PATCH => {
            for (field, value) in body.as_object().into_iter().flatten() {
                kept.value[field] = value.clone();
            }
        }
        _ => {
            kept.value = body;
            kept.value["id"] = json!(id);
        }
    }
    (200, kept.value.clone(), tag(kept))
}

fn answer(status: u16, body: &Value, tag: Option<&str>) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let mut response = (status, axum::Json(body.clone())).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag.parse().unwrap());
    }
    response
}
