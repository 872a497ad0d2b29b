//! What every request needs.

use std::sync::Arc;

use crdt_model::ids::{BusinessId, DeviceId};
use crdt_model::money::Currency;
use crdt_model::record::Role;
use tokio::sync::OnceCell;

use super::control::NodeControl;
use crate::queue::{Desk, Queue};
use crate::shop_handle::{ShopHandle, Stopped};

/// What every request needs.
#[derive(Debug, Clone)]
pub struct ApiState {
    pub(super) shop: ShopHandle,
    pub(super) node: Arc<dyn NodeControl>,
    pub(super) hosts: Arc<[String]>,
    pub(super) desk: Arc<Desk>,
    pub(super) queue: Queue,
    fixed: Arc<OnceCell<Fixed>>,
}

/// What never changes while a node runs.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    pub(super) business: BusinessId,
    pub(super) name: String,
    pub(super) currency: Currency,
    pub(super) device: DeviceId,
    pub(super) utc_offset_minutes: i32,
    pub(super) role: Role,
}

impl ApiState {
    /// The API of a running shop, on loopback names only.
    #[must_use]
    pub fn new(shop: ShopHandle, node: Arc<dyn NodeControl>) -> Self {
        let desk = Arc::new(Desk::new(shop.clone()));
        let queue = Queue::new(shop.clone(), Arc::clone(&desk));
        Self { shop, node, hosts: Arc::from([]), desk, queue, fixed: Arc::new(OnceCell::new()) }
    }

    /// Also answers requests for these host names.
    #[must_use]
    pub fn with_hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts.into();
        self
    }

    /// Asks the node's own queue.
    #[must_use]
    pub fn with_queue(mut self, queue: Queue) -> Self {
        self.desk = Arc::clone(queue.desk());
        self.queue = queue;
        self
    }

    pub(super) async fn fixed(&self) -> Result<&Fixed, Stopped> {
        let ask = || {
            self.shop.ask(|shop| Fixed {
                business: shop.business(),
                name: shop.genesis().name.clone(),
                currency: shop.genesis().currency,
                device: shop.device(),
                utc_offset_minutes: shop.genesis().utc_offset_minutes,
                role: shop.certificate().role,
            })
        };
        self.fixed.get_or_try_init(ask).await
    }
}
