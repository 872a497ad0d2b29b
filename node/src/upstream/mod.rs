//! Delivery to the shop's own server: each operation by one carrier, under its id as the key, its
//! conflicts resolved by rule or by a person. docs/queue.md explains.

pub mod backoff;
pub mod classify;
mod client;
mod config;
mod engine;
pub mod fields;
mod guard;
pub mod policy;
mod request;
pub mod resolve;
mod runs;
pub mod schedule;

use std::sync::Arc;

use crdt_model::record::Role;
use crdt_model::shop::Identity;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use config::{UpstreamConfig, UpstreamConfigError};
pub use guard::Allowed;
pub(crate) use request::{encoded, refers_to_queued};

use crate::queue::{Carrying, Desk, DeskError};
use crate::shop_handle::ShopHandle;
use engine::Engine;

/// Why the carrier can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The config can't be used.
    #[error("the upstream config can't be used: {0}")]
    Config(String),
    /// The device is a till that does not carry its own.
    #[error("this device is enrolled as a till, and carries to the server only what it is started to carry itself")]
    NotACarrier,
    /// The HTTP client can't be made.
    #[error("the HTTP client can't be made ({0}): check the system's certificates")]
    Client(#[from] reqwest::Error),
    /// The queue.
    #[error(transparent)]
    Desk(#[from] DeskError),
}

/// A running carrier. Dropping it without [`Upstream::stop`] is like pulling the plug: calls under
/// way are in doubt, and made again under the same key.
#[derive(Debug)]
pub struct Upstream {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    desk: Arc<Desk>,
}

impl Upstream {
    /// Starts the carrier of the node that `shop` runs on. A relay carries what it heard from the
    /// tills; a till only what it made while its identity said that it carries its own.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(
        shop: ShopHandle,
        identity: &Identity,
        desk: Arc<Desk>,
        config: UpstreamConfig,
    ) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        if identity.certificate.role != Role::Relay && !identity.carries_own {
            return Err(StartError::NotACarrier);
        }
        let (carrying, commands) = Carrying::open();
        let mut engine = Engine::new(shop, identity, Arc::clone(&desk), config, commands)?;
        engine.recover().await?;
        desk.set_carrier(Some(carrying));
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(engine.run(stop.subscribe()));
        Ok(Self { stop, task, desk })
    }

    /// Sends nothing more, waits for the answers that are due, and ends. Stop it before its node.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the carrier broke: look at the log above, and start it again");
        }
        self.desk.set_carrier(None);
    }
}
