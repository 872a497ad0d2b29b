//! A stand-in for M-PESA: an HTTP server with the same paths, checks, errors and callbacks, its
//! own ledger of what it really charged, and every kind of misbehaviour on request.
//! It moves no money; its receipt numbers start with TEST.

mod behaviour;
mod control;
mod delivery;
mod ledger;
mod protocol;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use reqwest::Client;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::http;
use super::mpesa::{STK_PUSH_PATH, TOKEN_PATH};
use ledger::Ledger;

pub use behaviour::{Behaviour, Kind, Mix, fixed_phones};
pub use ledger::{Counts, LedgerLine};

/// How the simulator is set up. The default's credentials are fixed and public.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulatorConfig {
    /// The shop's number.
    pub shortcode: String,
    /// What the client authenticates with.
    pub consumer_key: String,
    /// What the client authenticates with.
    pub consumer_secret: String,
    /// What the client's push passwords are made of.
    pub passkey: String,
    /// Decides, with each payment's account reference, what the mix does to it.
    pub seed: u64,
    /// How customers behave when nothing else says so; without it, all pay.
    pub mix: Option<Mix>,
    /// How long a token is good for, in seconds.
    pub token_life_s: u64,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            // The provider's own sandbox number.
            shortcode: "174379".to_owned(),
            consumer_key: "tillmesh-simulator".to_owned(),
            consumer_secret: "not-a-secret".to_owned(),
            passkey: "not-a-secret-either".to_owned(),
            seed: 0,
            mix: None,
            // The provider's own.
            token_life_s: 3599,
        }
    }
}

impl fmt::Debug for SimulatorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatorConfig")
            .field("shortcode", &self.shortcode)
            .field("seed", &self.seed)
            .field("mix", &self.mix)
            .field("token_life_s", &self.token_life_s)
            .finish_non_exhaustive()
    }
}

impl SimulatorConfig {
    /// A credentials file with which a relay speaks to this simulator at `base_url` and is
    /// called back at `callback_base_url`.
    #[must_use]
    pub fn credentials_toml(&self, base_url: &str, callback_base_url: &str) -> String {
        let mut table = toml::Table::new();
        for (key, text) in [
            ("consumer_key", self.consumer_key.as_str()),
            ("consumer_secret", self.consumer_secret.as_str()),
            ("passkey", self.passkey.as_str()),
            ("shortcode", self.shortcode.as_str()),
            ("transaction_type", "CustomerPayBillOnline"),
            ("base_url", base_url),
            ("callback_base_url", callback_base_url),
        ] {
            table.insert(key.to_owned(), toml::Value::String(text.to_owned()));
        }
        table.to_string()
    }
}

/// Why the simulator can't run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// More than all payments would misbehave.
    #[error("mix: the shares add up to {0} of 1000 payments: keep their sum at 1000 or less")]
    Mix(u32),
    /// No randomness for receipt numbers.
    #[error("the machine gives no random numbers: {0}")]
    Random(String),
    /// The callback client can't be made.
    #[error("callbacks can't be sent from this machine")]
    Client(#[source] reqwest::Error),
    /// The listener failed.
    #[error("the simulator stopped listening: start it again")]
    Serve(#[source] std::io::Error),
}

/// Runs the simulator on `listener` until `shutdown` completes. Charges are kept in memory.
///
/// # Errors
/// [`SimulatorError`].
pub async fn serve(
    config: SimulatorConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), SimulatorError> {
    let (close, closing) = watch::channel(false);
    let simulator = Arc::new(Simulator::new(config, closing)?);
    let stop = async move {
        shutdown.await;
        close.send_replace(true);
    };
    let router = router(simulator);
    axum::serve(listener, router).with_graceful_shutdown(stop).await.map_err(SimulatorError::Serve)
}

fn router(simulator: Arc<Simulator>) -> Router {
    Router::new()
        .route(TOKEN_PATH, get(protocol::generate_token))
        .route(STK_PUSH_PATH, post(protocol::stk_push))
        .route(protocol::STK_QUERY_PATH, post(protocol::stk_query))
        .route("/simulator/behaviour", post(control::set_behaviour))
        .route("/simulator/ledger", get(control::ledger))
        .route("/simulator/counts", get(control::counts))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(simulator)
}

/// A real request is below 1 KiB.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Pushes whose answer or callbacks are still to come. More are refused, uncharged.
const PENDING_MAX: usize = 1024;

const CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

struct Simulator {
    config: SimulatorConfig,
    ledger: Mutex<Ledger>,
    pending: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
    loopback: Client,
}

impl Simulator {
    fn new(config: SimulatorConfig, closing: watch::Receiver<bool>) -> Result<Self, SimulatorError> {
        if let Some(mix) = &config.mix {
            let sum = mix.permille_sum();
            if sum > 1000 {
                return Err(SimulatorError::Mix(sum));
            }
        }
        // Receipt numbers must differ from those of an earlier run, as a relay remembers them.
        let mut run = [0_u8; 32];
        getrandom::fill(&mut run).map_err(|error| SimulatorError::Random(error.to_string()))?;
        let loopback = http::client(true, CALLBACK_TIMEOUT, CALLBACK_TIMEOUT).map_err(SimulatorError::Client)?;
        Ok(Self {
            config,
            ledger: Mutex::new(Ledger::new(run)),
            pending: Arc::new(Semaphore::new(PENDING_MAX)),
            closing,
            loopback,
        })
    }

    /// Nothing panics while it holds the ledger, so a poisoned lock is still whole.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when the simulator stops.
    async fn closed(&self) {
        let mut closing = self.closing.clone();
        // An error means that the server itself is gone, which is the same news.
        closing.wait_for(|closed| *closed).await.map(drop).unwrap_or_default();
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
