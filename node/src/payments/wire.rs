//! One HTTP exchange with a provider, as bytes. The real wire is reqwest; the payment simulation
//! brings its own, so that the same client runs in virtual time.

use std::fmt;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Client, Method, StatusCode, Url};
use tokio::net::TcpStream;

use super::http::{self, BodyError};

/// What is sent.
#[derive(Clone)]
pub struct WireRequest {
    /// GET or POST.
    pub method: Method,
    /// The whole address.
    pub url: String,
    /// How the sender shows who it is.
    pub auth: Auth,
    /// Further headers, such as a signature.
    pub headers: Vec<(&'static str, String)>,
    /// A JSON body.
    pub body: Option<Vec<u8>>,
}

/// How the sender shows who it is.
#[derive(Clone)]
pub enum Auth {
    /// Not by a header of its own.
    None,
    /// Name and password.
    Basic(String, String),
    /// An access token.
    Bearer(String),
}

impl fmt::Debug for WireRequest {
    /// Bodies and credentials hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(secret)")
    }
}

/// What came back, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireAnswer {
    /// The status.
    pub status: StatusCode,
    /// The body, at most 1 MiB.
    pub body: Vec<u8>,
}

/// Why nothing whole came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// No connection was made, so nothing was sent.
    NotSent(String),
    /// It may have been sent; nothing is known of an answer.
    Broken(String),
    /// The status arrived, the body did not.
    BodyBroken(StatusCode, String),
    /// The body is larger than any real one.
    TooLarge(StatusCode),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(detail) | Self::Broken(detail) | Self::BodyBroken(_, detail) => f.write_str(detail),
            Self::TooLarge(status) => write!(f, "an oversized answer, status {status}"),
        }
    }
}

/// The way to a provider. The contract:
///
/// - [`send`](Self::send) sends once, follows no redirect, and says `NotSent` only when that is certain.
/// - Dropping its future leaves in doubt whether it was sent.
pub trait Wire: fmt::Debug + Send + Sync {
    /// One exchange.
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>>;

    /// Whether a connection to `base` can be made now.
    fn reach<'a>(&'a self, base: &'a Url) -> BoxFuture<'a, Result<(), String>>;
}

/// The real network.
#[derive(Debug)]
pub(super) struct HttpWire {
    client: Client,
    connect_timeout: Duration,
}

impl HttpWire {
    pub(super) fn new(
        loopback_only: bool,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self { client: http::client(loopback_only, connect_timeout, timeout)?, connect_timeout })
    }
}

impl Wire for HttpWire {
    fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
        async move {
            let mut building = self.client.request(request.method, request.url);
            building = match request.auth {
                Auth::None => building,
                Auth::Basic(name, password) => building.basic_auth(name, Some(password)),
                Auth::Bearer(token) => building.bearer_auth(token),
            };
            for (name, value) in request.headers {
                building = building.header(name, value);
            }
            if let Some(body) = request.body {
                building = building.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
            }
            let response = building.send().await.map_err(|error| {
                let detail = describe(&error);
                if error.is_connect() || error.is_builder() {
                    WireError::NotSent(detail)
                } else {
                    WireError::Broken(detail)
                }
            })?;
            let status = response.status();
            match http::read_body(response).await {
                Ok(body) => Ok(WireAnswer { status, body }),
                Err(BodyError::TooLarge) => Err(WireError::TooLarge(status)),
                Err(BodyError::Broken(error)) => Err(WireError::BodyBroken(status, describe(&error))),
            }
        }
        .boxed()
    }

    fn reach<'a>(&'a self, base: &'a Url) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let host = base.host_str().ok_or_else(|| "the address has no host".to_owned())?;
            let port = base.port_or_known_default().unwrap_or(443);
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            match tokio::time::timeout(self.connect_timeout, TcpStream::connect((bare, port))).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("{host}: {error}")),
                Err(_) => Err(format!("{host}: no connection within {} ms", self.connect_timeout.as_millis())),
            }
        }
        .boxed()
    }
}

/// An error without its URL, and in words for each kind that matters.
fn describe(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_builder() {
        "the request could not be made"
    } else {
        "the connection broke"
    };
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("{kind}: {}", cause.to_string().chars().take(200).collect::<String>())
}
