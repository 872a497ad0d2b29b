//! A stand-in for M-PESA: an HTTP server with the same paths, checks, errors and callbacks, its
//! own ledger of what it really charged, and every kind of misbehaviour on request.
//! It moves no money; its receipt numbers start with TEST.

mod behaviour;
mod chaos;
mod control;
mod cutting;
mod delivery;
mod later;
mod ledger;
mod lists;
mod protocol;
mod statement;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::mpesa::{
    C2B_REGISTER_PATH, PULL_QUERY_PATH, PULL_REGISTER_PATH, REVERSAL_PATH, STATUS_PATH, STK_PUSH_PATH, STK_QUERY_PATH,
    TOKEN_PATH,
};
use super::wire::Wire;
use delivery::OutWire;
use ledger::Ledger;

pub use behaviour::{Behaviour, Kind, Mix, StatusWay, fixed_phones};
pub use chaos::Dice;
pub(crate) use cutting::Reset;
pub use ledger::{Counts, LedgerLine};
pub use statement::{Style, statement};

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
    /// Every kind of misbehaviour by chance, as the seed decides.
    pub chaos: bool,
    /// How many queries a minute are answered; all of them if not given.
    pub queries_a_minute: Option<u32>,
    /// How many pushes a minute are taken; all of them if not given.
    pub pushes_a_minute: Option<u32>,
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
            chaos: false,
            queries_a_minute: None,
            pushes_a_minute: None,
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
            ("initiator", "simulator"),
            ("security_credential", "not-a-secret-either"),
        ] {
            table.insert(key.to_owned(), toml::Value::String(text.to_owned()));
        }
        table.insert("pull".to_owned(), toml::Value::Boolean(true));
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
    let out = OutWire::new().map_err(SimulatorError::Client)?;
    // Receipt numbers must differ from those of an earlier run, as a relay remembers them.
    let mut run = [0_u8; 32];
    getrandom::fill(&mut run).map_err(|error| SimulatorError::Random(error.to_string()))?;
    let simulator = Arc::new(Simulator::new(config, closing, Arc::new(out), run)?);
    let stop = async move {
        shutdown.await;
        close.send_replace(true);
    };
    let router = router(simulator).layer(axum::middleware::from_fn(cutting::cut));
    let service = router.into_make_service_with_connect_info::<cutting::Cut>();
    let serving = axum::serve(cutting::CuttingListener(listener), service);
    serving.with_graceful_shutdown(stop).await.map_err(SimulatorError::Serve)
}

fn router(simulator: Arc<Simulator>) -> Router {
    Router::new()
        .route(TOKEN_PATH, get(protocol::generate_token))
        .route(STK_PUSH_PATH, post(protocol::stk_push))
        .route(STK_QUERY_PATH, post(protocol::stk_query))
        .route(PULL_REGISTER_PATH, post(lists::register_pull))
        .route(PULL_QUERY_PATH, post(lists::pull))
        .route(C2B_REGISTER_PATH, post(lists::register_confirmations))
        .route(REVERSAL_PATH, post(later::reverse))
        .route(STATUS_PATH, post(later::status))
        .route("/simulator/behaviour", post(control::set_behaviour))
        .route("/simulator/pay", post(control::pay))
        .route("/simulator/ledger", get(control::ledger))
        .route("/simulator/counts", get(control::counts))
        .route("/simulator/statement", get(control::statement))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(simulator)
}

/// A real request is below 1 KiB.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Pushes whose answer or callbacks are still to come. More are refused, uncharged.
const PENDING_MAX: usize = 1024;

const CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Simulator {
    config: SimulatorConfig,
    ledger: Mutex<Ledger>,
    pending: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
    out: Arc<dyn Wire>,
}

impl Simulator {
    fn new(
        config: SimulatorConfig,
        closing: watch::Receiver<bool>,
        out: Arc<dyn Wire>,
        run: [u8; 32],
    ) -> Result<Self, SimulatorError> {
        if let Some(mix) = &config.mix {
            let sum = mix.permille_sum();
            if sum > 1000 {
                return Err(SimulatorError::Mix(sum));
            }
        }
        Ok(Self {
            config,
            ledger: Mutex::new(Ledger::new(run)),
            pending: Arc::new(Semaphore::new(PENDING_MAX)),
            closing,
            out,
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

/// A simulator without a network: requests are handed to its router, callbacks to `out`.
#[derive(Debug)]
pub(crate) struct Offline {
    simulator: Arc<Simulator>,
    _close: watch::Sender<bool>,
}

impl Offline {
    pub(crate) fn new(config: SimulatorConfig, out: Arc<dyn Wire>, run: [u8; 32]) -> Result<Self, SimulatorError> {
        let (close, closing) = watch::channel(false);
        Ok(Self { simulator: Arc::new(Simulator::new(config, closing, out, run)?), _close: close })
    }

    pub(crate) fn router(&self) -> Router {
        router(Arc::clone(&self.simulator))
    }

    /// What it really charged.
    pub(crate) fn charges(&self) -> Vec<LedgerLine> {
        self.simulator.ledger().charges.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.simulator.ledger().counts
    }

    /// Whether a customer was charged although the provider had called it a certain failure.
    pub(crate) fn has_broken_its_word(&self, accounts: &[String]) -> bool {
        let ledger = self.simulator.ledger();
        ledger.charges.iter().any(|charge| charge.denied && accounts.contains(&charge.account_reference))
    }

    /// Whether something is still to happen to a push.
    pub(crate) fn is_busy(&self) -> bool {
        self.simulator.pending.available_permits() < PENDING_MAX
    }
}
