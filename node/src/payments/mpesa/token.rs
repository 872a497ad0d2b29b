//! The access token, shared by all pushes: a new one makes the former invalid, so it is
//! renewed once, by whoever first finds that generation refused.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::wire::{Auth, Wire, WireRequest};
use super::super::{NotReady, NotSentReason, PushOutcome};
use super::{MpesaConfig, TOKEN_PATH};

/// A token is not used in the last minute of its life: it could end on the way.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// The longest life believed.
const LIFE_MAX_S: u64 = 24 * 3600;

const TOKEN_BYTES_MAX: usize = 4096;

#[derive(Clone)]
pub(super) struct Token {
    text: Arc<str>,
    generation: u64,
}

impl Token {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}

pub(super) struct TokenCache {
    wire: Arc<dyn Wire>,
    url: String,
    consumer_key: String,
    consumer_secret: String,
    /// Held while a new token is fetched, so that all others wait for that one.
    held: Mutex<Option<Held>>,
}

struct Held {
    token: Token,
    use_until: Instant,
}

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCache").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why there is no token. Nothing was asked of any customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenError {
    Unreachable(String),
    RateLimited(String),
    Refused(String),
}

impl TokenError {
    pub(super) fn into_outcome(self) -> PushOutcome {
        let (reason, detail) = match self {
            Self::Unreachable(detail) => (NotSentReason::Unreachable, detail),
            Self::RateLimited(detail) => (NotSentReason::RateLimited, detail),
            Self::Refused(detail) => (NotSentReason::Credentials, detail),
        };
        PushOutcome::NotSent { reason, detail: format!("no token: {detail}"), retry_after_ms: None }
    }

    pub(super) fn into_words(self) -> String {
        match self {
            Self::Unreachable(detail) | Self::RateLimited(detail) | Self::Refused(detail) => {
                format!("no token: {detail}")
            }
        }
    }

    pub(super) fn into_not_ready(self) -> NotReady {
        match self {
            Self::Unreachable(detail) => NotReady::Unreachable(detail),
            Self::RateLimited(detail) => NotReady::RateLimited(detail),
            Self::Refused(detail) => NotReady::Credentials(detail),
        }
    }
}

impl TokenCache {
    pub(super) fn new(wire: Arc<dyn Wire>, config: &MpesaConfig) -> Self {
        Self {
            wire,
            url: format!("{}?grant_type=client_credentials", config.endpoint(TOKEN_PATH)),
            consumer_key: config.consumer_key.clone(),
            consumer_secret: config.consumer_secret.clone(),
            held: Mutex::new(None),
        }
    }

    /// The token in use, or a new one when there is none or it is about to end.
    pub(super) async fn current(&self) -> Result<Token, TokenError> {
        let mut held = self.held.lock().await;
        match &*held {
            Some(known) if Instant::now() < known.use_until => Ok(known.token.clone()),
            _ => self.fetch(&mut held).await,
        }
    }

    /// A token newer than `refused`. Only the first caller with that generation fetches one.
    pub(super) async fn renew(&self, refused: u64) -> Result<Token, TokenError> {
        let mut held = self.held.lock().await;
        match &*held {
            Some(known) if known.token.generation > refused => Ok(known.token.clone()),
            _ => self.fetch(&mut held).await,
        }
    }

    async fn fetch(&self, held: &mut Option<Held>) -> Result<Token, TokenError> {
        let generation = held.as_ref().map_or(0, |known| known.token.generation) + 1;
        let asked = Instant::now();
        let request = WireRequest {
            method: Method::GET,
            url: self.url.clone(),
            auth: Auth::Basic(self.consumer_key.clone(), self.consumer_secret.clone()),
            headers: Vec::new(),
            body: None,
        };
        // Whatever breaks on the way, no customer was asked for anything.
        let answer = self.wire.send(request).await.map_err(|error| TokenError::Unreachable(error.to_string()))?;
        let (status, body) = (answer.status, answer.body);
        let (text, life) = read_token(status, &body)?;
        let token = Token { text, generation };
        let use_until = asked + life.saturating_sub(EXPIRY_MARGIN);
        *held = Some(Held { token: token.clone(), use_until });
        Ok(token)
    }
}

fn read_token(status: StatusCode, body: &[u8]) -> Result<(Arc<str>, Duration), TokenError> {
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(TokenError::RateLimited(format!("status {status}")));
    }
    if status.is_client_error() {
        return Err(TokenError::Refused(format!("status {status}")));
    }
    if !status.is_success() {
        return Err(TokenError::Unreachable(format!("status {status}")));
    }
    let unreadable = || TokenError::Unreachable("a token that can't be read".to_owned());
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| unreadable())?;
    let plain = answer.access_token.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || !(1..=TOKEN_BYTES_MAX).contains(&answer.access_token.len()) {
        return Err(unreadable());
    }
    let life_s = match answer.expires_in {
        Seconds::Number(seconds) => seconds,
        Seconds::Text(text) => text.parse().map_err(|_| unreadable())?,
    };
    Ok((answer.access_token.into(), Duration::from_secs(life_s.min(LIFE_MAX_S))))
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Seconds,
}

/// The provider sends a string where it documents a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_in_both_spellings_and_errors_say_who_must_act() {
        for body in
            [&br#"{"access_token":"abc","expires_in":"3599"}"#[..], br#"{"access_token":"abc","expires_in":3599}"#]
        {
            let (text, life) = read_token(StatusCode::OK, body).unwrap();
            assert_eq!((&*text, life.as_secs()), ("abc", 3599));
        }
        for body in [&b""[..], b"{}", br#"{"access_token":"a b","expires_in":1}"#] {
            assert!(matches!(read_token(StatusCode::OK, body), Err(TokenError::Unreachable(_))));
        }
        let refused = read_token(StatusCode::BAD_REQUEST, b"");
        assert!(matches!(refused, Err(TokenError::Refused(_))));
        let away = read_token(StatusCode::BAD_GATEWAY, b"");
        assert!(matches!(away, Err(TokenError::Unreachable(_))));
    }
}
