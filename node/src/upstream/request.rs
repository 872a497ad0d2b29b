//! An operation as a request: paths by type, the server's ids for temporary ones, the version it
//! builds on, and only what changed where the server takes a PATCH.

use std::collections::BTreeMap;
use std::io::Write;

use crdt_model::ids::RecordId;
use crdt_model::record::{Custom, ErrorClass, Fact, Source};
use crdt_model::shop::QueueConfig;
use reqwest::Url;
use serde_json::Value;

use super::config::UpstreamConfig;
use super::fields::changed;
use super::guard;
use super::resolve::{Instead, Sent};
use crate::queue::corrections::INSTANCE;
use crate::queue::{Desk, DeskError, SALE_PLACE, Shown, TryError};

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// What it says.
    pub(super) sent: Sent,
    /// Where to.
    pub(super) url: Url,
    /// The body's bytes.
    pub(super) body: Option<Vec<u8>>,
    /// The body is compressed.
    pub(super) compressed: bool,
    /// Only if the server's version still has this tag.
    pub(super) if_match: Option<String>,
    /// The idempotency key.
    pub(super) key: String,
    /// The client's own id.
    pub(super) operation_id: Option<String>,
    /// The device that recorded it.
    pub(super) device: String,
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NotReady {
    /// Another operation has to be done first.
    WaitsFor(RecordId),
    /// It can't be sent at all.
    Refused(TryError),
    /// There is nothing to be sent.
    Nothing,
}

/// A body of this size is worth compressing.
const COMPRESS_BYTES_MIN: usize = 1_024;

/// Makes a request of an operation.
///
/// # Errors
/// [`DeskError`].
pub(super) fn prepare(
    shown: &Shown,
    desk: &Desk,
    config: &UpstreamConfig,
    queue: &QueueConfig,
) -> Result<Result<Prepared, NotReady>, DeskError> {
    let (Some(recorded), Some(described)) = (&shown.row.recorded, shown.described()) else {
        return Ok(Err(NotReady::Nothing));
    };
    let custom = match &shown.fact {
        Some(Fact::Custom(custom)) => Some(custom),
        _ => None,
    };
    let mut path = described.path;
    let mut body = described.body;
    let ours = is_ours(shown);
    if ours && let Some(own) = config.paths.get(&described.operation_type) {
        path = path.replacen(default_path(&described.operation_type), own.trim_end_matches('/'), 1);
    }
    if let Some(about) = described.about {
        let Some(server) = desk.mapping(about)?.filter(|mapping| mapping.synced) else {
            return Ok(Err(NotReady::WaitsFor(about)));
        };
        let server_id = server.server_id.unwrap_or_else(|| about.to_string());
        path = path.replace(SALE_PLACE, &encoded(&server_id));
        if let Some(object) = body.as_object_mut() {
            object.insert("sale_id".to_owned(), server_id.into());
        }
    }
    if custom.is_some()
        && let Some(source) = &recorded.source
    {
        let mut known =
            Temporary { desk, instance: &source.instance, own: shown.id, seen: BTreeMap::new(), waits: None };
        path = known.in_path(&path)?;
        known.in_body(&mut body, 0)?;
        if let Some(other) = known.waits {
            return Ok(Err(NotReady::WaitsFor(other)));
        }
    }
    let sent = Sent {
        method: described.method,
        path,
        body,
        base: custom.and_then(|custom| serde_json::from_str(custom.base.as_deref()?).ok()),
        in_doubt: shown.row.tries.in_doubt,
    };
    let if_match = tag(shown, desk, custom, &sent.method)?;
    Ok(finish(shown, sent, if_match, None, config, queue))
}

/// Whether a request names something by a client's own id that was queued.
///
/// # Errors
/// [`DeskError`].
pub(crate) fn refers_to_queued(desk: &Desk, source: &Source, path: &str, body: &Value) -> Result<bool, DeskError> {
    let own = desk.named(source)?.unwrap_or(RecordId(uuid::Uuid::nil()));
    let mut known = Temporary { desk, instance: &source.instance, own, seen: BTreeMap::new(), waits: None };
    known.in_path(path)?;
    known.in_body(&mut body.clone(), 0)?;
    Ok(known.waits.is_some() || known.seen.values().any(Option::is_some))
}

/// The request that follows a conflict.
pub(super) fn instead(
    shown: &Shown,
    before: &Sent,
    instead: Instead,
    config: &UpstreamConfig,
    queue: &QueueConfig,
) -> Result<Prepared, NotReady> {
    let suffix = instead.strategy.word();
    let sent = Sent { method: instead.method, path: instead.path, body: instead.body, ..before.clone() };
    finish(shown, sent, instead.if_match, Some(suffix), config, queue)
}

fn finish(
    shown: &Shown,
    sent: Sent,
    if_match: Option<String>,
    suffix: Option<&str>,
    config: &UpstreamConfig,
    queue: &QueueConfig,
) -> Result<Prepared, NotReady> {
    let recorded = shown.row.recorded.as_ref().ok_or(NotReady::Nothing)?;
    let own = config.paths.values().cloned();
    let prefixes: Vec<String> = match is_ours(shown) {
        false => config.allowed_paths.clone(),
        true => own.chain(["/api/".to_owned()]).collect(),
    };
    let url = guard::address(&config.base_url, &sent.path, &prefixes).map_err(|detail| {
        let code = "path_not_allowed".to_owned();
        NotReady::Refused(TryError { class: ErrorClass::Validation, code, detail, http_status: None })
    })?;
    let said = match (&sent.base, sent.method.as_str()) {
        (Some(base), "PATCH") if queue.delta_sync && suffix.is_none() => changed(base, &sent.body),
        _ => sent.body.clone(),
    };
    let plain = (sent.method != "DELETE" || !said.is_null()).then(|| said.to_string().into_bytes());
    let small = plain.as_ref().is_none_or(|bytes| bytes.len() < COMPRESS_BYTES_MIN);
    let packed = if queue.compress && !small { plain.as_deref().and_then(compressed) } else { None };
    let key = match suffix {
        None => shown.id.to_string(),
        // Another version is another request: an upstream would give the answer of the first again.
        Some(suffix) => format!("{}-{}-{suffix}", shown.id, shown.row.next_ordinal()),
    };
    Ok(Prepared {
        url,
        compressed: packed.is_some(),
        body: packed.or(plain),
        if_match,
        key,
        operation_id: recorded.source.as_ref().map(|source| source.key.clone()),
        device: recorded.device.to_string(),
        sent,
    })
}

/// Whether tillmesh itself knows the path, and not only the app.
fn is_ours(shown: &Shown) -> bool {
    match &shown.fact {
        Some(Fact::Custom(custom)) => custom.source.as_ref().is_some_and(|source| source.instance == INSTANCE),
        _ => true,
    }
}

/// The version that a change builds on: what the client saw, or what we ourselves made of it since.
fn tag(shown: &Shown, desk: &Desk, custom: Option<&Custom>, method: &str) -> Result<Option<String>, DeskError> {
    let Some(recorded) = shown.row.recorded.as_ref().filter(|_| method != "POST") else { return Ok(None) };
    let mapping = desk.mapping(recorded.lane)?;
    let seen = custom.and_then(|custom| custom.base_tag.clone());
    Ok(match mapping {
        Some(mapping) if mapping.time > recorded.time => mapping.tag.or(seen),
        mapping => seen.or_else(|| mapping?.tag),
    })
}

/// The client's own ids of earlier operations, for which the server has others.
struct Temporary<'d> {
    desk: &'d Desk,
    instance: &'d str,
    own: RecordId,
    seen: BTreeMap<String, Option<String>>,
    waits: Option<RecordId>,
}

impl Temporary<'_> {
    fn in_path(&mut self, path: &str) -> Result<String, DeskError> {
        let (bare, query) = path.split_once('?').map_or((path, None), |(bare, query)| (bare, Some(query)));
        let mut pieces = Vec::new();
        for piece in bare.split('/') {
            let server = if piece.is_empty() { None } else { self.server_id(piece)? };
            pieces.push(server.map_or_else(|| piece.to_owned(), |id| encoded(&id)));
        }
        let bare = pieces.join("/");
        Ok(query.map_or_else(|| bare.clone(), |query| format!("{bare}?{query}")))
    }

    /// In fields whose names say that they hold ids, and nowhere else: a client's own id may well
    /// be an ordinary word.
    fn in_body(&mut self, value: &mut Value, depth: usize) -> Result<(), DeskError> {
        if depth > DEPTH_MAX {
            return Ok(());
        }
        match value {
            Value::Object(object) => {
                for (key, inner) in object {
                    if let (true, Value::String(text)) = (names_an_id(key), &mut *inner) {
                        self.in_text(text)?;
                    } else if let (true, Value::Array(items)) = (names_ids(key), &mut *inner) {
                        for item in items.iter_mut() {
                            if let Value::String(text) = item {
                                self.in_text(text)?;
                            }
                        }
                    } else {
                        self.in_body(inner, depth + 1)?;
                    }
                }
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.in_body(item, depth + 1)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    fn in_text(&mut self, text: &mut String) -> Result<(), DeskError> {
        if let Some(server) = self.server_id(text)? {
            *text = server;
        }
        Ok(())
    }

    fn server_id(&mut self, word: &str) -> Result<Option<String>, DeskError> {
        if let Some(known) = self.seen.get(word) {
            return Ok(known.clone());
        }
        let source = Source { instance: self.instance.to_owned(), key: word.to_owned() };
        let named = self.desk.named(&source)?.filter(|id| *id != self.own);
        // A record's own id stands for what the server calls it too.
        let itself = || word.parse::<RecordId>().ok().filter(|id| *id != self.own);
        let named = match named.or_else(itself) {
            Some(id) if self.desk.row(id)?.is_some() || self.desk.mapping(id)?.is_some() => Some(id),
            Some(_) | None => None,
        };
        let found = match named {
            None => None,
            Some(id) => match self.desk.mapping(id)?.filter(|mapping| mapping.synced) {
                Some(mapping) => Some(mapping.server_id.unwrap_or_else(|| id.to_string())),
                None => {
                    self.waits.get_or_insert(id);
                    None
                }
            },
        };
        self.seen.insert(word.to_owned(), found.clone());
        Ok(found)
    }
}

const DEPTH_MAX: usize = 16;

fn names_an_id(key: &str) -> bool {
    key == "id" || key.ends_with("_id") || key.ends_with("Id")
}

fn names_ids(key: &str) -> bool {
    key == "ids" || key.ends_with("_ids") || key.ends_with("Ids")
}

/// Where tillmesh itself has a type.
fn default_path(operation_type: &str) -> &'static str {
    match operation_type {
        "sale" => "/api/sales",
        "expense" => "/api/expenses",
        "record" => "/api/records",
        "payment" => "/api/payments",
        "product" => "/api/products",
        "customer" => "/api/customers",
        _ => "/api/stock/adjustments",
    }
}

/// An id as a piece of a path: an id may hold anything.
pub(crate) fn encoded(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).ok()
}
