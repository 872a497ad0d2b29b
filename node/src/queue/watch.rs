//! What has to be looked at now and then, whoever asks: the business's rules, whether too much waits,
//! what the node lacks, and what others said of operations.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::alerts::{Alert, AlertKind};
use super::stretches::Lacking;
use super::{Desk, DeskError, rules};
use crate::shop_handle::ShopHandle;

/// A change of the rules on another device applies here after so long at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What one look found.
struct Look {
    waiting: u64,
    has_relay: bool,
    relay_connected: bool,
}

/// Looks until the node stops.
pub(crate) async fn watch(desk: Arc<Desk>, shop: ShopHandle, mut stop: watch::Receiver<bool>) {
    let mut full = false;
    loop {
        match look(&desk, &shop, &mut full).await {
            Ok(()) => {}
            Err(DeskError::Stopped(_)) => return,
            Err(error) => tracing::warn!(%error, "the queue can't be looked at: trying again"),
        }
        let told = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(LOOK_EVERY, told).await.is_ok() {
            if let Err(error) = desk.keep_numbers(true).await {
                tracing::debug!(%error, "the last numbers are not kept");
            }
            return;
        }
    }
}

async fn look(desk: &Desk, shop: &ShopHandle, full: &mut bool) -> Result<(), DeskError> {
    desk.learn_rules().await?;
    let max = desk.offline().config().max_queue_size;
    let found = shop.ask(|shop| Look {
        waiting: shop.status().pending,
        has_relay: rules::has_relay(shop),
        relay_connected: rules::relay_is_connected(shop),
    });
    let Look { waiting, has_relay, relay_connected } = found.await?;
    let now_full = has_relay && waiting >= max;
    if now_full && !*full {
        tracing::error!(waiting, max, "the queue is full: sales are still taken, other operations are not");
        let detail = format!("{waiting} operations wait, and max_queue_size is {max}: only sales are still taken");
        desk.raise(Alert { kind: AlertKind::QueueFull, operation: None, detail });
    }
    *full = now_full;
    desk.offline().set_full(now_full);
    desk.look_for(Lacking::Relay, has_relay && !relay_connected).await?;
    desk.look_for(Lacking::Server, desk.server_is_away()).await?;
    if desk.is_engaged().await? {
        desk.catch_up().await?;
    }
    desk.keep_numbers(false).await
}
