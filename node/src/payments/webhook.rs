//! Any other provider, behind an HTTP service of the shop's own: a signed request with an
//! idempotency key asks for a payment, and a signed callback says what came of it.
//! docs/payments.md specifies both.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crdt_model::payment::{CallbackResult, ProviderIds};
use data_encoding::HEXLOWER;
use futures::FutureExt;
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

use super::wire::{Auth, HttpWire, Wire, WireAnswer, WireError, WireRequest};
use super::{
    CALLBACK_BYTES_MAX, CallbackError, CallbackReport, NotReady, NotSentReason, PaymentProvider, PushOutcome,
    PushRequest, QueryOutcome, Unsupported, callback_path, http,
};

const NAME: &str = "webhook";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=512;
const CONFIG_BYTES_MAX: u64 = 64 * 1024;
const TEXT_CHARS_MAX: usize = 128;
const SIGNATURE_HEADER: &str = "X-Signature";
const KEY_HEADER: &str = "Idempotency-Key";

/// The words of the protocol as the codes of the attempt machine.
const CODES: [(&str, &str); 5] =
    [("paid", "0"), ("declined", "1032"), ("failed", "1037"), ("pending", "4999"), ("unknown", "unknown")];

/// How to reach one service.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// What payments name as their provider, such as `bank`.
    pub name: String,
    /// Where payments are asked for: https, or plain http on this machine.
    pub url: String,
    /// Signs both directions; at least 32 bytes. Secret.
    pub secret: String,
    /// Where the service finds the relay's callback listener.
    pub callback_base_url: String,
    /// ISO 4217.
    pub currency: String,
    /// The most it takes at once, in minor units.
    pub amount_max_minor: i64,
    /// How long a whole request may take, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_timeout_ms() -> u64 {
    30_000
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why a service's configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The file.
    #[error("the payment service's file can't be read ({0}): check its path and permissions")]
    Unreadable(#[from] std::io::Error),
    /// Not TOML with the right keys. The text is not repeated, it holds a secret.
    #[error(
        "the payment service's file can't be used: write name, url, secret, callback_base_url, currency and amount_max_minor"
    )]
    Syntax,
    /// A key's value.
    #[error("{key}: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What would do.
        problem: &'static str,
    },
    /// TLS.
    #[error("no secure connections can be made on this machine: install its CA certificates")]
    Tls(#[source] reqwest::Error),
}

impl WebhookConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub fn load(path: &Path) -> Result<Self, WebhookError> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)?.take(CONFIG_BYTES_MAX).read_to_string(&mut text)?;
        let config: Self = toml::from_str(&text).map_err(|_| WebhookError::Syntax)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), WebhookError> {
        let wrong = |key, problem| Err(WebhookError::Value { key, problem });
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !(1..=32).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return wrong("name", "write 1 to 32 small letters, digits and underscores");
        }
        if matches!(self.name.as_str(), "mpesa" | "cash") {
            return wrong("name", "is taken: choose another");
        }
        for (key, url) in [("url", &self.url), ("callback_base_url", &self.callback_base_url)] {
            if !Url::parse(url).is_ok_and(|url| http::is_allowed(&url) && url.query().is_none()) {
                return wrong(key, "use https; plain http is for this machine's own addresses only");
            }
        }
        if !SECRET_BYTES.contains(&self.secret.len()) {
            return wrong("secret", "write 32 to 512 bytes");
        }
        if self.currency.len() != 3 || self.amount_max_minor < 1 {
            return wrong("currency, amount_max_minor", "write such as \"KES\", and more than zero");
        }
        if !(1..=300_000).contains(&self.timeout_ms) {
            return wrong("timeout_ms", "choose 1 to 300000");
        }
        Ok(())
    }
}

/// A client of one service.
#[derive(Debug)]
pub struct Webhook {
    config: WebhookConfig,
    base: Url,
    wire: Arc<dyn Wire>,
}

impl Webhook {
    /// A client for a checked configuration.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub fn new(config: WebhookConfig) -> Result<Self, WebhookError> {
        let timeout = Duration::from_millis(config.timeout_ms);
        let wire = HttpWire::new(config.url.starts_with("http:"), timeout, timeout).map_err(WebhookError::Tls)?;
        Self::over(config, Arc::new(wire))
    }

    fn over(config: WebhookConfig, wire: Arc<dyn Wire>) -> Result<Self, WebhookError> {
        config.check()?;
        let base = Url::parse(&config.url).map_err(|_| WebhookError::Value { key: "url", problem: "is no address" })?;
        Ok(Self { config, base, wire })
    }

    /// What payments name it.
    #[must_use]
    pub fn configured_name(&self) -> &str {
        &self.config.name
    }

    fn mac(&self, at_ms: u64, body: &[u8]) -> Hmac<Sha256> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(self.config.secret.as_bytes())
            .unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
        mac.update(at_ms.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        mac
    }

    async fn ask(&self, body: Vec<u8>, key: &str, at_ms: u64, path: &str) -> Result<WireAnswer, WireError> {
        let signature = HEXLOWER.encode(&self.mac(at_ms, &body).finalize().into_bytes());
        let request = WireRequest {
            method: Method::POST,
            url: format!("{}{path}", self.config.url.trim_end_matches('/')),
            auth: Auth::None,
            headers: vec![(KEY_HEADER, key.to_owned()), (SIGNATURE_HEADER, format!("t={at_ms},v1={signature}"))],
            body: Some(body),
        };
        self.wire.send(request).await
    }
}

#[derive(Deserialize)]
struct Reply {
    status: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    receipt_number: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

/// A callback: the payload is text, so that its signature is over the very bytes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    at_ms: u64,
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
struct Payload {
    id: String,
    status: String,
    #[serde(default)]
    amount_minor: Option<i64>,
    #[serde(default)]
    receipt_number: Option<String>,
    #[serde(default)]
    paid_at_ms: Option<u64>,
    #[serde(default)]
    reason: Option<String>,
}

impl PaymentProvider for Webhook {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, currency: &str, amount_minor: i64) -> Result<(), Unsupported> {
        if currency != self.config.currency {
            let given = currency.chars().take(8).collect();
            return Err(Unsupported::Currency { provider: NAME, wanted: "the service's own", given });
        }
        if !(1..=self.config.amount_max_minor).contains(&amount_minor) {
            let max_minor = self.config.amount_max_minor;
            return Err(Unsupported::OutOfRange { provider: NAME, min_minor: 1, max_minor, given: amount_minor });
        }
        Ok(())
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), NotReady>> {
        async move { self.wire.reach(&self.base).await.map_err(NotReady::Unreachable) }.boxed()
    }

    fn push<'a>(&'a self, request: &'a PushRequest) -> BoxFuture<'a, PushOutcome> {
        async move {
            let path = callback_path(request.intent, request.attempt, &request.callback_token);
            let body = json!({
                "payment_id": request.intent.to_string(),
                "attempt": request.attempt,
                "amount_minor": request.amount_minor,
                "currency": request.currency,
                "phone": request.phone.as_ref().map(super::Phone::msisdn),
                "account_reference": request.account_reference.as_str(),
                "description": request.description,
                "callback_url": format!("{}{path}", self.config.callback_base_url.trim_end_matches('/')),
            });
            let body = serde_json::to_vec(&body).unwrap_or_default();
            let answer = self.ask(body, request.account_reference.as_str(), request.at_ms, "").await;
            read_push(answer)
        }
        .boxed()
    }

    fn parse_callback(&self, body: &[u8]) -> Result<CallbackReport, CallbackError> {
        if body.len() > CALLBACK_BYTES_MAX {
            return Err(CallbackError::TooLarge);
        }
        let malformed = |error: serde_json::Error| CallbackError::Malformed(error.to_string());
        let signed: Signed = serde_json::from_slice(body).map_err(malformed)?;
        let wrong = |field, problem| CallbackError::Field { field, problem };
        let signature = HEXLOWER.decode(signed.signature.as_bytes());
        let signature = signature.map_err(|_| wrong("signature", "not lowercase hexadecimal"))?;
        // In constant time.
        let mac = self.mac(signed.at_ms, signed.payload.as_bytes());
        mac.verify_slice(&signature).map_err(|_| wrong("signature", "not the service's"))?;
        let payload: Payload = serde_json::from_str(&signed.payload).map_err(malformed)?;
        let checkout_id = short(&payload.id).ok_or(wrong("id", "empty, too long or not plain text"))?;
        let code = CODES.iter().find(|(word, _)| *word == payload.status).map_or("unknown", |(_, code)| *code);
        Ok(CallbackReport {
            result: CallbackResult {
                ids: ProviderIds { request_id: checkout_id.clone(), checkout_id },
                result_code: code.to_owned(),
                amount_minor: payload.amount_minor,
                receipt_number: payload.receipt_number.and_then(|number| short(&number)),
            },
            description: payload.reason.unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect(),
            paid_at_ms: payload.paid_at_ms,
            phone: None,
        })
    }

    fn query<'a>(&'a self, ids: &'a ProviderIds, at_ms: u64) -> BoxFuture<'a, QueryOutcome> {
        async move {
            let unavailable = |detail: String| QueryOutcome::Unavailable { detail, rate_limited: false };
            let body = serde_json::to_vec(&json!({ "id": ids.checkout_id })).unwrap_or_default();
            let answer = match self.ask(body, &ids.checkout_id, at_ms, "/query").await {
                Ok(answer) if answer.status.is_success() => answer,
                Ok(answer) => return unavailable(format!("status {}", answer.status.as_u16())),
                Err(error) => return unavailable(error.to_string()),
            };
            let Ok(reply) = serde_json::from_slice::<Reply>(&answer.body) else {
                return unavailable("an answer that can't be read".to_owned());
            };
            if reply.id.as_deref() != Some(ids.checkout_id.as_str()) {
                return unavailable("an answer about something else".to_owned());
            }
            match CODES.iter().find(|(word, _)| *word == reply.status) {
                Some((_, "4999")) => QueryOutcome::Pending,
                Some((_, code)) => {
                    QueryOutcome::Result { code: (*code).to_owned(), detail: reply.reason.unwrap_or_default() }
                }
                None => unavailable("a status that is not known".to_owned()),
            }
        }
        .boxed()
    }
}

/// Only the service's own word `refused` means that nobody was asked.
fn read_push(answer: Result<WireAnswer, WireError>) -> PushOutcome {
    let not_sent = |reason, detail| PushOutcome::NotSent { reason, detail, retry_after_ms: None };
    let answer = match answer {
        Ok(answer) => answer,
        Err(WireError::NotSent(detail)) => return not_sent(NotSentReason::Unreachable, detail),
        Err(error) => return PushOutcome::Ambiguous { detail: error.to_string() },
    };
    let Ok(reply) = serde_json::from_slice::<Reply>(&answer.body) else {
        return PushOutcome::Ambiguous { detail: format!("status {}, no reply", answer.status.as_u16()) };
    };
    let reason: String = reply.reason.unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect();
    let id = reply.id.and_then(|id| short(&id));
    let receipt_number = reply.receipt_number.and_then(|number| short(&number));
    match (reply.status.as_str(), id, receipt_number) {
        ("accepted", Some(checkout_id), _) if answer.status.is_success() => {
            PushOutcome::Accepted(ProviderIds { request_id: checkout_id.clone(), checkout_id })
        }
        ("paid", _, Some(receipt_number)) if answer.status.is_success() => PushOutcome::Settled { receipt_number },
        ("refused", _, _) if answer.status.is_client_error() => not_sent(NotSentReason::Rejected, reason),
        _ => PushOutcome::Ambiguous { detail: format!("status {}, {reason}", answer.status.as_u16()) },
    }
}

fn short(text: &str) -> Option<String> {
    let good = (1..=TEXT_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use crdt_model::payment::{Attempt, AttemptEvent, AttemptState, Effect, account_reference, callback_token};
    use reqwest::StatusCode;
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;

    const INTENT: Uuid = Uuid::from_u128(7);

    fn config() -> WebhookConfig {
        WebhookConfig {
            name: "bank".to_owned(),
            url: "http://127.0.0.1:9/pay".to_owned(),
            secret: "s".repeat(32),
            callback_base_url: "http://127.0.0.1:8".to_owned(),
            currency: "KES".to_owned(),
            amount_max_minor: 1_000_000,
            timeout_ms: 1_000,
        }
    }

    /// A service that checks signatures, and charges once a key.
    #[derive(Debug)]
    struct Service {
        charged: Mutex<Vec<String>>,
        answer: (u16, Value),
    }

    impl Wire for Service {
        fn send(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
            async move {
                let header = |name: &str| request.headers.iter().find(|(other, _)| *other == name).unwrap().1.clone();
                let body = request.body.unwrap();
                let signature = header(SIGNATURE_HEADER);
                let (at, signature) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
                let own = Webhook::new(config()).unwrap().mac(at.parse().unwrap(), &body);
                own.verify_slice(&HEXLOWER.decode(signature.as_bytes()).unwrap()).unwrap();
                let key = header(KEY_HEADER);
                let mut charged = self.charged.lock().unwrap();
                if !charged.contains(&key) {
                    charged.push(key);
                }
                let (status, reply) = &self.answer;
                let status = StatusCode::from_u16(*status).unwrap();
                Ok(WireAnswer { status, body: serde_json::to_vec(reply).unwrap() })
            }
            .boxed()
        }

        fn reach<'a>(&'a self, _base: &'a Url) -> BoxFuture<'a, Result<(), String>> {
            async { Ok(()) }.boxed()
        }
    }

    fn request() -> PushRequest {
        PushRequest {
            intent: INTENT,
            attempt: 1,
            currency: "KES".to_owned(),
            amount_minor: 6_550,
            phone: None,
            account_reference: account_reference(INTENT, 1),
            callback_token: callback_token(&[1; 32], INTENT, 1),
            description: "Duka".to_owned(),
            at_ms: 1_000,
        }
    }

    async fn pushed(status: u16, reply: Value) -> PushOutcome {
        let service = Arc::new(Service { charged: Mutex::default(), answer: (status, reply) });
        let client = Webhook::over(config(), Arc::clone(&service) as Arc<dyn Wire>).unwrap();
        let outcome = client.push(&request()).await;
        assert_eq!(service.charged.lock().unwrap().as_slice(), [account_reference(INTENT, 1).as_str()]);
        outcome
    }

    #[tokio::test]
    async fn the_machine_takes_another_provider_as_it_is() {
        let outcome = pushed(202, json!({ "status": "accepted", "id": "b-1" })).await;
        let mut attempt = Attempt::new(INTENT, 1, 6_550, 0);
        attempt.apply(&AttemptEvent::Claimed { lease_until_ms: 9 }, 1).unwrap();
        attempt.apply(&outcome.event(), 2).unwrap();
        assert_eq!(attempt.state(), AttemptState::Accepted);
        let client = Webhook::new(config()).unwrap();
        let payload = json!({ "id": "b-1", "status": "paid", "amount_minor": 6_550, "receipt_number": "BANK1" });
        let report = client.parse_callback(&signed(&client, 5, &payload.to_string())).unwrap();
        let booked = Effect::Book { receipt_number: "BANK1".to_owned() };
        assert_eq!(attempt.apply(&report.event(), 3), Ok(booked));
    }

    #[tokio::test]
    async fn only_the_word_refused_means_that_nobody_was_asked() {
        assert!(matches!(
            pushed(200, json!({ "status": "paid", "receipt_number": "BANK1" })).await,
            PushOutcome::Settled { .. }
        ));
        assert!(matches!(pushed(422, json!({ "status": "refused" })).await, PushOutcome::NotSent { .. }));
        for (status, reply) in [
            (500, json!({ "status": "refused" })),
            (200, json!({ "status": "refused" })),
            (200, json!({ "status": "accepted" })),
            (400, json!({ "error": "bad" })),
            (504, json!({})),
        ] {
            assert!(matches!(pushed(status, reply).await, PushOutcome::Ambiguous { .. }));
        }
    }

    #[test]
    fn a_callback_counts_only_with_the_services_signature() {
        let client = Webhook::new(config()).unwrap();
        let payload = r#"{"id":"b-1","status":"declined","reason":"no"}"#;
        let good = signed(&client, 5, payload);
        assert_eq!(client.parse_callback(&good).unwrap().result.result_code, "1032");
        let other = Webhook::new(WebhookConfig { secret: "o".repeat(32), ..config() }).unwrap();
        for body in [
            signed(&other, 5, payload),
            String::from_utf8(good.clone()).unwrap().replace("declined", "paid").into_bytes(),
            String::from_utf8(good).unwrap().replace("\"at_ms\":5", "\"at_ms\":6").into_bytes(),
            br#"{"id":"b-1","status":"paid"}"#.to_vec(),
        ] {
            assert!(client.parse_callback(&body).is_err());
        }
    }

    #[test]
    fn a_wrong_configuration_names_its_key_and_shows_no_secret() {
        for (config, key) in [
            (WebhookConfig { name: "mpesa".to_owned(), ..config() }, "name"),
            (WebhookConfig { url: "http://example.com".to_owned(), ..config() }, "url"),
            (WebhookConfig { secret: "short".to_owned(), ..config() }, "secret"),
            (WebhookConfig { amount_max_minor: 0, ..config() }, "currency"),
        ] {
            assert!(Webhook::new(config).unwrap_err().to_string().starts_with(key));
        }
        assert!(!format!("{:?}", config()).contains("ssss"));
    }

    fn signed(client: &Webhook, at_ms: u64, payload: &str) -> Vec<u8> {
        let signature = HEXLOWER.encode(&client.mac(at_ms, payload.as_bytes()).finalize().into_bytes());
        serde_json::to_vec(&json!({ "at_ms": at_ms, "payload": payload, "signature": signature })).unwrap()
    }
}
