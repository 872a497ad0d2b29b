//! The M-PESA client: Lipa na M-PESA Online (STK push) over the Daraja 3.0 protocol.
//! It asks at most once, and says "not sent" only when that is certain.

mod answer;
mod callback;
mod config;
mod push_body;
mod token;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Client, StatusCode, Url};
use tokio::net::TcpStream;
use tracing::Instrument;

use super::http::{self, BodyError};
use super::{
    CallbackError, CallbackReport, NotReady, NotSentReason, PaymentProvider, PushOutcome, PushRequest, Unsupported,
};
use answer::{PushAnswer, read_answer};
use token::TokenCache;

pub use config::{ConfigError, MpesaConfig, TransactionType};

pub(super) use config::{STK_PUSH_PATH, TOKEN_PATH};
pub(super) use push_body::{password, read_timestamp, timestamp};

const NAME: &str = "mpesa";
const CURRENCY: &str = "KES";
const MINOR_PER_SHILLING: i64 = 100;
const SHILLINGS_MAX: i64 = 250_000;

/// A client of one shortcode. Clones of its `Arc` share the access token, since a new token
/// makes the former one invalid.
#[derive(Debug)]
pub struct MpesaClient {
    config: MpesaConfig,
    http: Client,
    tokens: TokenCache,
}

/// Why the client can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MpesaClientError {
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS can't be set up.
    #[error("no secure connections can be made on this machine: install its CA certificates")]
    Tls(#[source] reqwest::Error),
}

impl MpesaClient {
    /// A client for a checked configuration. Nothing is sent yet.
    ///
    /// # Errors
    /// [`MpesaClientError`].
    pub fn new(config: MpesaConfig) -> Result<Self, MpesaClientError> {
        config.check()?;
        let loopback_only = config.base_url.scheme() == "http";
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        let timeout = Duration::from_millis(config.timeout_ms);
        let http = http::client(loopback_only, connect_timeout, timeout).map_err(MpesaClientError::Tls)?;
        let tokens = TokenCache::new(http.clone(), &config);
        Ok(Self { config, http, tokens })
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &MpesaConfig {
        &self.config
    }

    async fn push_once(&self, request: &PushRequest) -> PushOutcome {
        if let Err(unsupported) = self.supports(&request.currency, request.amount_minor) {
            return rejected(unsupported.to_string());
        }
        let Some(phone) = &request.phone else {
            return rejected("phone: M-PESA needs the customer's number".to_owned());
        };
        let body = push_body::push_body(&self.config, request, phone);
        let mut token = match self.tokens.current().await {
            Ok(token) => token,
            Err(error) => return error.into_outcome(),
        };
        let first = self.send(&body, token.text()).await;
        if !matches!(first, PushAnswer::TokenRefused(_)) {
            return first.into_outcome();
        }
        // Another user of these credentials fetched a token. Ours was refused, so nothing was
        // sent, and one more try can't ask the customer twice.
        tracing::warn!("the access token was refused; fetching a new one");
        token = match self.tokens.renew(token.generation()).await {
            Ok(token) => token,
            Err(error) => return error.into_outcome(),
        };
        self.send(&body, token.text()).await.into_outcome()
    }

    async fn send(&self, body: &serde_json::Value, token: &str) -> PushAnswer {
        let url = self.config.endpoint(STK_PUSH_PATH);
        let sent = self.http.post(url).bearer_auth(token).json(body).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_connect() || error.is_builder() => {
                return PushAnswer::NotSent {
                    reason: NotSentReason::Unreachable,
                    detail: describe(&error),
                    retry_after_ms: None,
                };
            }
            Err(error) => {
                return PushAnswer::Ambiguous { detail: describe(&error) };
            }
        };
        let status = response.status();
        match http::read_body(response).await {
            Ok(body) => read_answer(status, &body),
            Err(BodyError::TooLarge) => {
                PushAnswer::Ambiguous { detail: format!("an oversized answer, status {status}") }
            }
            // Neither status needs its body to be certain.
            Err(BodyError::Broken(error)) => match status {
                StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => read_answer(status, b""),
                _ => PushAnswer::Ambiguous { detail: describe(&error) },
            },
        }
    }

    async fn reach(&self) -> Result<(), NotReady> {
        let url = &self.config.base_url;
        let away = |detail: String| NotReady::Unreachable(detail);
        let host = url.host_str().ok_or_else(|| away("base_url has no host".to_owned()))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        match tokio::time::timeout(limit, TcpStream::connect((bare, port))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(away(format!("{host}: {error}"))),
            Err(_) => Err(away(format!("{host}: no connection within {} ms", limit.as_millis()))),
        }
    }
}

impl PaymentProvider for MpesaClient {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, currency: &str, amount_minor: i64) -> Result<(), Unsupported> {
        supports(currency, amount_minor)
    }

    /// Makes a connection and has a token at hand. A kept token says nothing about whether
    /// the network is there now, so the connection is tried every time.
    fn prepare(&self) -> BoxFuture<'_, Result<(), NotReady>> {
        async move {
            self.reach().await?;
            self.tokens.current().await.map(drop).map_err(token::TokenError::into_not_ready)
        }
        .boxed()
    }

    fn push<'a>(&'a self, request: &'a PushRequest) -> BoxFuture<'a, PushOutcome> {
        let span = tracing::info_span!(
            "mpesa_push",
            intent = %request.intent,
            attempt = request.attempt,
            reference = %request.account_reference,
        );
        async move {
            let outcome = self.push_once(request).await;
            log_outcome(&outcome);
            outcome
        }
        .instrument(span)
        .boxed()
    }

    fn parse_callback(&self, body: &[u8]) -> Result<CallbackReport, CallbackError> {
        callback::parse(body)
    }
}

/// Whether M-PESA can be asked for an amount: whole shillings, 1 to 250,000, in KES. Known
/// without a client, so that a till can say so at once.
///
/// # Errors
/// [`Unsupported`].
pub fn supports(currency: &str, amount_minor: i64) -> Result<(), Unsupported> {
    if currency != CURRENCY {
        let given = currency.chars().take(8).collect();
        return Err(Unsupported::Currency { provider: "M-PESA", wanted: CURRENCY, given });
    }
    if amount_minor % MINOR_PER_SHILLING != 0 {
        return Err(Unsupported::PartShillings(amount_minor));
    }
    if !(1..=SHILLINGS_MAX).contains(&(amount_minor / MINOR_PER_SHILLING)) {
        return Err(Unsupported::OutOfRange {
            provider: "M-PESA",
            min_minor: MINOR_PER_SHILLING,
            max_minor: SHILLINGS_MAX * MINOR_PER_SHILLING,
            given: amount_minor,
        });
    }
    Ok(())
}

fn rejected(detail: String) -> PushOutcome {
    PushOutcome::NotSent { reason: NotSentReason::Rejected, detail, retry_after_ms: None }
}

fn log_outcome(outcome: &PushOutcome) {
    match outcome {
        PushOutcome::Accepted(ids) => {
            tracing::info!(checkout = %ids.checkout_id, "the customer is being asked");
        }
        PushOutcome::Settled { .. } => tracing::info!("settled"),
        PushOutcome::NotSent { reason: NotSentReason::Credentials, detail, .. } => {
            tracing::error!(%detail, "the provider refuses our credentials or configuration");
        }
        PushOutcome::NotSent { reason, detail, .. } => {
            tracing::warn!(?reason, %detail, "not sent");
        }
        PushOutcome::Ambiguous { detail } => {
            tracing::warn!(%detail, "no certain answer; the attempt stays open");
        }
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

/// `path` below a base URL, whether or not that ends in a slash.
fn join(base: &Url, path: &str) -> String {
    format!("{}{path}", base.as_str().trim_end_matches('/'))
}
