//! The relay's payment engine: it asks customers for what tills promised, at most once an
//! attempt, and writes the receipts. docs/payments.md explains.

mod booking;
mod callbacks;
mod coverage;
mod engine;
pub(crate) mod inbox;
mod intake;
mod rows;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crdt_model::ids::RecordId;
use crdt_model::payment::{Attempt, FIRST_PUSH_AGE_MAX_MS, callback_token};
use crdt_model::record::{Ledger, Role};
use crdt_model::shop::Identity;
use crdt_model::time::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::payments::mpesa::MpesaClientError;
use crate::payments::{MpesaClient, MpesaConfig, PaymentProvider, Webhook, WebhookConfig};
use crate::shop_handle::{ShopHandle, Stopped};
use engine::Engine;
use standing::View;

pub use rows::AttemptsError;
pub use standing::Standing;

/// How a relay pays.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// How to reach M-PESA; without it the relay only stores, and settles cash.
    pub mpesa: Option<MpesaConfig>,
    /// Other providers, each behind a service of the shop's own.
    pub webhooks: Vec<WebhookConfig>,
    /// Where the provider's callbacks are taken, never the API's address. Port 0 takes a free
    /// one; `mpesa.callback_base_url` may then name port 0 of this machine too.
    pub callbacks: Option<SocketAddr>,
    /// A first push of an intent older than this waits for a cashier's word that the customer
    /// is there. 30 minutes: by then most customers have left.
    pub stale_intent: Duration,
    /// How long nothing new may have come from other devices before the relay names itself,
    /// so that a relay that joins a shop learns first who pays already. Zero: at once, and
    /// without having met anybody.
    pub claim_quiet: Duration,
    /// How often everything open is looked at again, should a hint have been missed.
    pub check_every: Duration,
    /// How long [`Relay::stop`] waits for answers of the provider. What is cut off then is in
    /// doubt, and never pushed again by itself.
    pub stop_grace: Duration,
    /// How often the provider's list of recent transactions is read. 15 minutes: its rates are
    /// unpublished.
    pub pull_every: Duration,
    /// How many queries a minute the whole relay may make. 5: what the sandbox has been seen to
    /// allow.
    pub queries_a_minute: u32,
    /// After how long a push that the provider's list lacks was certainly not paid: 2 hours and 10
    /// minutes, since a payment may appear in it late. Shorter is for trials alone.
    pub absent_after: Duration,
    /// After how long a receipt that the list lacks is a suspect: a day.
    pub dispute_after: Duration,
    /// After how long an open payment goes to a person: 48 hours, which is as far as the list reaches.
    pub open_max: Duration,
    /// How often lines of statements are looked for, which come from other parts of the node. A
    /// second: a person waits for them.
    pub mail_every: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            mpesa: None,
            webhooks: Vec::new(),
            callbacks: None,
            stale_intent: Duration::from_millis(FIRST_PUSH_AGE_MAX_MS),
            claim_quiet: Duration::from_secs(2),
            check_every: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
            pull_every: Duration::from_secs(15 * 60),
            queries_a_minute: 5,
            absent_after: Duration::from_millis(coverage::ABSENT_AFTER_MS),
            dispute_after: Duration::from_millis(coverage::DISPUTE_AFTER_MS),
            open_max: Duration::from_millis(coverage::LISTED_MS),
            mail_every: Duration::from_secs(1),
        }
    }
}

/// Why the payment engine can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The owner enrolled this device as something else.
    #[error("this device is not enrolled as a relay: invite it again with the role relay")]
    NotARelay,
    /// The shop is not there.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The M-PESA client.
    #[error(transparent)]
    Mpesa(#[from] MpesaClientError),
    /// Another provider.
    #[error(transparent)]
    Webhook(#[from] crate::payments::webhook::WebhookError),
    /// Nobody would hear the provider.
    #[error("payment providers need a listener for their callbacks: give one with --callbacks")]
    NoCallbacks,
    /// The callback listener's address.
    #[error("callbacks can't be taken on {address} ({source}): stop what uses it, or choose another with --callbacks")]
    Callbacks {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What the engine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    /// This relay's ledger.
    pub ledger: Ledger,
    /// Whether it pushes, and if not, why.
    pub standing: Standing,
    /// Open intents that it does not push for now, with what they wait for.
    pub waiting: BTreeMap<RecordId, Waiting>,
    /// Open intents whose turn has not come.
    pub queued: usize,
    /// How many pushes are under way.
    pub asking: usize,
}

/// What an open intent waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// A cashier's word that the customer is still there.
    Confirmation,
    /// The provider can't be reached now; the text is for a person.
    Provider(String),
    /// No credentials for the intent's provider were given to this relay.
    Credentials,
    /// An attempt that may have charged, or has: its outcome is to be learnt.
    Outcome,
    /// A pause between two attempts.
    Pause,
    /// A person's decision: every attempt is used up, or one is in review.
    Person,
    /// It goes to another ledger, by an owner's word: what was asked for so far is to be settled, or
    /// the gap reconciled, first.
    Handover,
}

/// A running payment engine. Dropping it without [`Relay::stop`] is like pulling the plug:
/// pushes under way become unknown, and are not made again.
#[derive(Debug)]
pub struct Relay {
    status: watch::Receiver<RelayStatus>,
    callbacks: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    door: Arc<callbacks::Door>,
}

impl Relay {
    /// Starts the engine of the relay that `shop` runs on.
    ///
    /// Its ledger is this device in the epoch of its own journal. A restored folder goes on in a
    /// new epoch and so starts frozen: intents addressed to the older epoch are not pushed, their
    /// callbacks are still booked, and nothing is pushed until the owner moves them to the new epoch,
    /// which names it as the paying relay.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(shop: ShopHandle, identity: &Identity, config: RelayConfig) -> Result<Self, StartError> {
        Self::start_at(shop, identity, config, Arc::new(crate::shop_loop::now)).await
    }

    async fn start_at(
        shop: ShopHandle,
        identity: &Identity,
        config: RelayConfig,
        clock: Clock,
    ) -> Result<Self, StartError> {
        if identity.certificate.role != Role::Relay {
            return Err(StartError::NotARelay);
        }
        if (config.mpesa.is_some() || !config.webhooks.is_empty()) && config.callbacks.is_none() {
            return Err(StartError::NoCallbacks);
        }
        let listener = match config.callbacks {
            Some(address) => Some(callbacks::bind(address).await?),
            None => None,
        };
        let bound = listener.as_ref().map(|(_, bound)| *bound);
        let mpesa = config.mpesa.clone().map(|mpesa| mpesa_client(mpesa, bound)).transpose()?;
        Self::start_over(shop, identity, config, clock, mpesa, listener).await
    }

    /// Starts with a provider of the caller's, which the simulation reaches without a network.
    pub(crate) async fn start_over(
        shop: ShopHandle,
        identity: &Identity,
        config: RelayConfig,
        clock: Clock,
        mpesa: Option<Arc<dyn PaymentProvider>>,
        listener: Option<(tokio::net::TcpListener, SocketAddr)>,
    ) -> Result<Self, StartError> {
        let bound = listener.as_ref().map(|(_, bound)| *bound);
        let token_key = token_key(identity);
        let arrived = Arc::new(Notify::new());
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();

        let view = View::ask(&shop).await?;
        let (publish, status) = watch::channel(RelayStatus {
            ledger: view.ledger,
            standing: Standing::Unclaimed,
            waiting: BTreeMap::new(),
            queued: 0,
            asking: 0,
        });
        let mut others: BTreeMap<String, Arc<dyn PaymentProvider>> = BTreeMap::new();
        for webhook in &config.webhooks {
            others.insert(webhook.name.clone(), Arc::new(Webhook::new(webhook.clone())?));
        }
        let mut engine = Engine::new(shop.clone(), mpesa, others, config, clock, token_key, publish);
        engine.recover().await?;
        let door = callbacks::Door::new(shop, token_key, Arc::clone(&arrived));
        if let Some((listener, _)) = listener {
            tasks.spawn(callbacks::serve(listener, Arc::clone(&door), stop.subscribe()));
        }
        tasks.spawn(engine.run(arrived, stop.subscribe()));
        Ok(Self { status, callbacks: bound, stop, tasks, door })
    }

    /// What the provider may call, without a network.
    pub(crate) fn callback_router(&self) -> axum::Router {
        callbacks::router(Arc::clone(&self.door))
    }

    /// Where callbacks are taken.
    #[must_use]
    pub fn callbacks(&self) -> Option<SocketAddr> {
        self.callbacks
    }

    /// What the engine is doing now.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        self.status.borrow().clone()
    }

    /// The status, and each change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<RelayStatus> {
        self.status.clone()
    }

    /// Pushes nothing more, waits for the answers that are due, and ends. Stop it before its
    /// node.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the relay broke: look at the log above, and start it again");
            }
        }
    }
}

/// Every attempt that was made to be paid for an intent, the first one first.
///
/// # Errors
/// [`AttemptsError`].
pub fn attempts(shop: &ShopHandle, intent: RecordId) -> Result<Vec<Attempt>, AttemptsError> {
    rows::attempts(shop.reader().as_ref(), intent)
}

/// The path on which the provider reports about an attempt of `identity`'s relay. It holds the
/// attempt's secret.
pub(crate) fn callback_path_of(identity: &Identity, intent: RecordId, number: u32) -> String {
    let token = callback_token(&token_key(identity), intent.0, number);
    crate::payments::callback_path(intent.0, number, &token)
}

/// The wall clock; tests bring their own.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Derived, so that a callback is known even when the relay's rows were lost.
fn token_key(identity: &Identity) -> [u8; 32] {
    blake3::derive_key("tillmesh 2026 relay callback tokens", &identity.key.to_bytes())
}

fn mpesa_client(
    mut config: MpesaConfig,
    callbacks: Option<SocketAddr>,
) -> Result<Arc<dyn PaymentProvider>, MpesaClientError> {
    // Port 0 stands for the listener's own port, which is known only now.
    if let (Some(0), Some(bound)) = (config.callback_base_url.port(), callbacks)
        && config.callback_base_url.set_port(Some(bound.port())).is_err()
    {
        tracing::warn!("callback_base_url has no host: its port stays 0");
    }
    Ok(Arc::new(MpesaClient::new(config)?))
}
