//! The M-PESA client: Lipa na M-PESA Online (STK push) over the Daraja 3.0 protocol.
//! It asks at most once, and says "not sent" only when that is certain.

mod answer;
mod callback;
mod config;
mod listed;
mod push_body;
mod requests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use crdt_model::payment::ProviderIds;
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use tracing::Instrument;

use super::wire::{Auth, HttpWire, Wire, WireAnswer, WireError, WireRequest};
use super::{
    CallbackError, CallbackReport, NotReady, NotSentReason, PaymentProvider, PullOutcome, PullWindow, PushOutcome,
    PushRequest, QueryOutcome, Report, ReversalRequest, Unsupported,
};
use answer::{PushAnswer, read_answer};
use token::TokenCache;

pub use config::{ConfigError, MpesaConfig, TransactionType};

pub(super) use callback::shillings;
pub(super) use config::{
    C2B_REGISTER_PATH, PULL_QUERY_PATH, PULL_REGISTER_PATH, REVERSAL_PATH, STATUS_PATH, STK_PUSH_PATH, STK_QUERY_PATH,
    TOKEN_PATH,
};
pub(super) use push_body::{password, read_timestamp, timestamp};
pub(super) use requests::{plain_time, read_plain_time};

const NAME: &str = "mpesa";
const CURRENCY: &str = "KES";
const MINOR_PER_SHILLING: i64 = 100;
const SHILLINGS_MAX: i64 = 250_000;

/// A client of one shortcode. Clones of its `Arc` share the access token, since a new token
/// makes the former one invalid.
#[derive(Debug)]
pub struct MpesaClient {
    config: MpesaConfig,
    wire: Arc<dyn Wire>,
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
        let wire = HttpWire::new(loopback_only, connect_timeout, timeout).map_err(MpesaClientError::Tls)?;
        Ok(Self::over(config, Arc::new(wire)))
    }

    /// A client whose bytes go over `wire`; the configuration has been checked.
    pub(crate) fn over(config: MpesaConfig, wire: Arc<dyn Wire>) -> Self {
        let tokens = TokenCache::new(Arc::clone(&wire), &config);
        Self { config, wire, tokens }
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

    async fn send(&self, body: &Value, token: &str) -> PushAnswer {
        match self.post(STK_PUSH_PATH, body, token).await {
            Ok(answer) => read_answer(answer.status, &answer.body),
            Err(WireError::NotSent(detail)) => {
                PushAnswer::NotSent { reason: NotSentReason::Unreachable, detail, retry_after_ms: None }
            }
            // Neither status needs its body to be certain.
            Err(WireError::BodyBroken(status @ (StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS), _)) => {
                read_answer(status, b"")
            }
            Err(error) => PushAnswer::Ambiguous { detail: error.to_string() },
        }
    }

    async fn post(&self, path: &str, body: &Value, token: &str) -> Result<WireAnswer, WireError> {
        let request = WireRequest {
            method: Method::POST,
            url: self.config.endpoint(path),
            auth: Auth::Bearer(token.to_owned()),
            headers: Vec::new(),
            body: Some(serde_json::to_vec(body).unwrap_or_default()),
        };
        self.wire.send(request).await
    }

    /// Posts what may be sent again without harm; a refused token is renewed once.
    async fn ask(&self, path: &str, body: &Value) -> Result<WireAnswer, String> {
        let token = self.tokens.current().await.map_err(token::TokenError::into_words)?;
        let answer = self.post(path, body, token.text()).await.map_err(|error| error.to_string())?;
        if !matches!(read_answer(answer.status, &answer.body), PushAnswer::TokenRefused(_)) {
            return Ok(answer);
        }
        let token = self.tokens.renew(token.generation()).await.map_err(token::TokenError::into_words)?;
        self.post(path, body, token.text()).await.map_err(|error| error.to_string())
    }

    async fn reach(&self) -> Result<(), NotReady> {
        self.wire.reach(&self.config.base_url).await.map_err(NotReady::Unreachable)
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

    fn query<'a>(&'a self, ids: &'a ProviderIds, at_ms: u64) -> BoxFuture<'a, QueryOutcome> {
        async move {
            let body = requests::query_body(&self.config, &ids.checkout_id, at_ms);
            match self.ask(STK_QUERY_PATH, &body).await {
                Ok(answer) => requests::read_query(answer.status, &answer.body, ids),
                Err(detail) => QueryOutcome::Unavailable { detail, rate_limited: false },
            }
        }
        .boxed()
    }

    fn lists_references(&self) -> bool {
        self.config.transaction_type == TransactionType::PayBill && self.config.pull
    }

    fn pull(&self, window: PullWindow) -> BoxFuture<'_, PullOutcome> {
        async move {
            let body = requests::pull_body(&self.config, window);
            match self.ask(PULL_QUERY_PATH, &body).await {
                Ok(answer) => listed::read_pull(answer.status, &answer.body),
                Err(detail) => PullOutcome::Unavailable(detail),
            }
        }
        .boxed()
    }

    fn register<'a>(&'a self, confirmations: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            if self.config.pull {
                let body = requests::pull_register_body(&self.config, confirmations);
                requests::read_done(&self.ask(PULL_REGISTER_PATH, &body).await?)?;
            }
            let body = requests::c2b_register_body(&self.config, confirmations);
            requests::read_done(&self.ask(C2B_REGISTER_PATH, &body).await?)
        }
        .boxed()
    }

    fn parse_report(&self, body: &[u8]) -> Result<Report, CallbackError> {
        listed::read_report(body)
    }

    fn reverse<'a>(&'a self, request: &'a ReversalRequest) -> BoxFuture<'a, PushOutcome> {
        async move {
            let Some(body) = requests::reversal_body(&self.config, request) else {
                return rejected(
                    "initiator, security_credential: a reversal needs both in the credentials file".into(),
                );
            };
            self.once(REVERSAL_PATH, &body).await
        }
        .boxed()
    }

    fn is_own_account(&self, account: &str) -> bool {
        let number = account.split([' ', '-']).next().unwrap_or_default();
        number == self.config.shortcode || self.config.till_number.as_deref() == Some(number)
    }

    fn ask_status<'a>(&'a self, receipt_number: &'a str, results: &'a str) -> BoxFuture<'a, PushOutcome> {
        async move {
            let Some(body) = requests::status_body(&self.config, receipt_number, results) else {
                return rejected("initiator, security_credential: a status query needs both".into());
            };
            self.once(STATUS_PATH, &body).await
        }
        .boxed()
    }
}

impl MpesaClient {
    /// Posts what must not be sent twice: once more only if its token was refused.
    async fn once(&self, path: &str, body: &Value) -> PushOutcome {
        let token = match self.tokens.current().await {
            Ok(token) => token,
            Err(error) => return error.into_outcome(),
        };
        let first = requests::read_once(self.post(path, body, token.text()).await);
        if !matches!(first, PushAnswer::TokenRefused(_)) {
            return first.into_outcome();
        }
        match self.tokens.renew(token.generation()).await {
            Ok(token) => requests::read_once(self.post(path, body, token.text()).await).into_outcome(),
            Err(error) => error.into_outcome(),
        }
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

/// `path` below a base URL, whether or not that ends in a slash.
fn join(base: &Url, path: &str) -> String {
    format!("{}{path}", base.as_str().trim_end_matches('/'))
}
