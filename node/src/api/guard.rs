//! What every request has to pass: no other site may use the API through a browser (DNS
//! rebinding, cross-site requests), and what changes something says that it sends JSON. Every answer
//! goes with the capability headers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::capability::add_capabilities;
use super::problem::{Code, Problem};
use super::state::ApiState;

/// The methods that each path takes.
pub(super) type Methods = BTreeMap<String, Vec<Method>>;

/// What requests are checked against.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    pub(super) state: ApiState,
    pub(super) methods: Arc<Methods>,
}

/// Lets a request through, in a span of its own.
pub(super) async fn guard(State(guarded): State<Guarded>, request: Request, next: Next) -> Response {
    let Guarded { state, methods } = guarded;
    let span = tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        status = tracing::field::Empty
    );
    let work = async {
        if let Err(problem) = check(&state, &request) {
            return problem.into_response();
        }
        if let Some(taken) = other_methods(&methods, &request) {
            let detail = "this path does not take this method: see /openapi.json";
            let problem = Problem::new(Code::MethodNotAllowed, detail);
            return ([(header::ALLOW, taken)], problem).into_response();
        }
        if let Err(problem) = check_content_type(&request) {
            return problem.into_response();
        }
        match check_business(&state, request.uri().clone()).await {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    let mut response = work.instrument(span.clone()).await;
    add_capabilities(response.headers_mut(), &state.desk.offline().config());
    span.record("status", response.status().as_u16());
    response
}

fn check(state: &ApiState, request: &Request) -> Result<(), Problem> {
    let host = check_host(&state.hosts, request.headers(), request.uri())?;
    check_origin(request.headers(), &host)
}

/// What a path that does not take the method takes instead. Asked before anything is said of the
/// body, which it may not have.
fn other_methods(methods: &Methods, request: &Request) -> Option<String> {
    let path = request.extensions().get::<MatchedPath>()?;
    let taken = methods.get(path.as_str())?;
    if taken.contains(request.method()) {
        return None;
    }
    let words: Vec<&str> = taken.iter().map(Method::as_str).collect();
    Some(words.join(", "))
}

fn check_host(hosts: &[String], headers: &HeaderMap, uri: &Uri) -> Result<String, Problem> {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = named.map(str::to_owned).or_else(|| uri.authority().map(ToString::to_string));
    let refused = || {
        let detail = "the Host header must name this machine, such as localhost or 127.0.0.1: use that address";
        Problem::new(Code::HostNotAllowed, detail)
    };
    let authority = authority.ok_or_else(refused)?.to_ascii_lowercase();
    let name = host_name(&authority).ok_or_else(refused)?;
    if is_loopback(name) || hosts.iter().any(|host| host.eq_ignore_ascii_case(name)) {
        return Ok(authority);
    }
    Err(refused())
}

/// The name in `name`, `name:port`, `[v6]` or `[v6]:port`.
fn host_name(authority: &str) -> Option<&str> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            (name, port.strip_prefix(':').or_else(|| port.is_empty().then_some("0"))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "0")),
    };
    port.parse::<u16>().ok().map(|_| name)
}

fn is_loopback(name: &str) -> bool {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => address == Ipv6Addr::LOCALHOST,
        Err(_) => name == "localhost",
    }
}

/// An origin must be the very address that is asked.
fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let same = ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host));
    if same {
        return Ok(());
    }
    Err(Problem::new(Code::OriginNotAllowed, "pages of other sites may not use this API: open it from its own address"))
}

fn check_content_type(request: &Request) -> Result<(), Problem> {
    if ![Method::POST, Method::PUT, Method::PATCH].contains(request.method()) {
        return Ok(());
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType, "send JSON with the header Content-Type: application/json"))
}

async fn check_business(state: &ApiState, uri: Uri) -> Result<(), Problem> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut named = pairs.filter_map(|pair| pair.strip_prefix("businessId="));
    match named.next() {
        None => Ok(()),
        Some(business) => same_business(state, business).await,
    }
}

/// Another business's id answers as if it did not exist.
pub(super) async fn same_business(state: &ApiState, business: &str) -> Result<(), Problem> {
    let own = state.fixed().await?.business;
    if business.parse() == Ok(own) {
        return Ok(());
    }
    Err(Problem::at(Code::UnknownBusiness, "businessId", "there is no such business here: leave businessId out"))
}
