//! A running node: the shop's loop, its links and its HTTP API, started and stopped together.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crdt_model::ids::{BusinessId, DeviceId, RecordId};
use crdt_model::record::{HandoffDecided, LedgerMoved, Role};
use crdt_model::shop::LinkId;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use transport::bluetooth::{
    BluetoothBudget, BluetoothConfig, Carrier, DiscoverySecret, HostLinkConfig, SecureError, host_link,
};
use transport::{Lan, LanConfig, LanEvent, LinkIds};

use crate::api::{ControlError, Moved, NodeControl};
use crate::config::BluetoothChoice;
use crate::folder::{self, FolderError, OpenFolder, Running};
use crate::join::{Admissions, Invitation, InviteError, JOIN_PROTOCOL};
use crate::links::LinkTable;
use crate::operations::MoveWords;
use crate::queue::watch::watch as watch_queue;
use crate::queue::{Desk, Queue};
use crate::shop_handle::ShopHandle;
use crate::shop_loop::{LoopError, ShopLoop};
use crate::storage::Continuity;
use crate::turn::Attendant;
use crate::upstream::{Upstream, UpstreamConfig};
use crate::ways::{Carrying, Ways};

/// Hints a slow listener may lag behind before it misses some.
const CHANGES_KEPT: usize = 4_096;
/// The default addresses of a node's links. 7471 is one port for all, so that a firewall needs
/// one rule.
pub const DEFAULT_LISTEN: [&str; 2] = ["/ip4/0.0.0.0/udp/7471/quic-v1", "/ip4/0.0.0.0/tcp/7471"];

/// How a node is run.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The data folder.
    pub data: PathBuf,
    /// Where the restore marker is, if not in the data folder. Keep it out of backups.
    pub marker: Option<PathBuf>,
    /// Where the HTTP API listens; `None` for no API. Port 0 takes a free one.
    pub api: Option<SocketAddr>,
    /// Multiaddrs that links listen on; none at all for a node without a network.
    pub listen: Vec<String>,
    /// Multiaddrs of other devices.
    pub peers: Vec<String>,
    /// Whether to find other devices by multicast.
    pub mdns: bool,
    /// Which Bluetooth adapter to use, if any.
    pub bluetooth: BluetoothChoice,
    /// Whether to open L2CAP channels where both sides can.
    pub bluetooth_l2cap: bool,
    /// What the radio may be used for.
    pub bluetooth_budget: BluetoothBudget,
    /// The shop's own server. A relay sends it what it heard from the tills; a till what it records
    /// itself from now on.
    pub upstream: Option<UpstreamConfig>,
}

impl NodeConfig {
    /// A node on `data` without network or API, for an embedding app to fill in.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            marker: None,
            api: None,
            listen: Vec::new(),
            peers: Vec::new(),
            mdns: false,
            bluetooth: BluetoothChoice::Off,
            bluetooth_l2cap: true,
            bluetooth_budget: BluetoothBudget::default(),
            upstream: None,
        }
    }
}

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What is stored.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// The links.
    #[error(transparent)]
    Links(#[from] transport::StartError),
    /// The system gives no thread.
    #[error("the system gives no thread for the shop ({0}): end some other programs")]
    Thread(#[source] std::io::Error),
    /// The way to the shop's own server.
    #[error(transparent)]
    Upstream(#[from] crate::upstream::StartError),
    /// The API's address.
    #[error("the API can't listen on {address} ({source}): stop what uses it, or choose another with --api")]
    Api {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A running node. Dropping it without [`Node::stop`] is like pulling the plug: links and API
/// end at once, and nothing acknowledged is lost.
pub struct Node {
    shop: ShopHandle,
    ways: Ways,
    carrying: Carrying,
    link_ids: LinkIds,
    secret_key: [u8; 32],
    api: Option<SocketAddr>,
    admissions: Arc<Admissions>,
    device: DeviceId,
    role: Role,
    queue: Queue,
    upstream: Option<Upstream>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
    /// These wait for links for ever.
    carrying_tasks: Vec<JoinHandle<()>>,
    loop_thread: Option<std::thread::JoinHandle<()>>,
    running: Option<folder::RunningFile>,
}

impl Node {
    /// Starts a node; when this answers, it records, and listens where it was told to.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let opened = folder::open(&config.data, config.marker.as_deref())?;
        Self::start_opened(config, opened).await
    }

    /// Starts a node on a folder that was opened already.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_opened(config: NodeConfig, opened: OpenFolder) -> Result<Self, StartError> {
        let OpenFolder { storage, mut identity, owner, discovery_secret, introducers, continuity, marker } = opened;
        let begin_epoch = match continuity {
            Continuity::Same => false,
            Continuity::Broken { reason } => {
                tracing::warn!(%reason, "this data folder is a copy or was restored: going on in a new epoch");
                true
            }
        };
        let links = Arc::new(LinkTable::default());
        let changes = broadcast::Sender::new(CHANGES_KEPT);
        let (device, role) = (identity.certificate.device, identity.certificate.role);
        let genesis = identity.genesis.clone();
        identity.carries_own = config.upstream.is_some() && role != Role::Relay;
        let carrier = identity.clone();
        let secret_key = identity.key.to_bytes();

        let link_ids = LinkIds::default();
        let (lan, events) = start_lan(&config, secret_key, introducers, &link_ids).await?;
        let bluetooth = bluetooth_config(&config, secret_key, discovery_secret, &link_ids);
        let shop_loop =
            ShopLoop::open(Box::new(storage), identity, begin_epoch, Arc::clone(&links), changes, Some(&marker))?;
        let (shop, attendant) = ShopHandle::open(shop_loop);
        let (ended, watch_ended) = watch::channel(None);
        let loop_thread = spawn_loop(attendant, ended).map_err(StartError::Thread)?;

        let admissions = Arc::new(Admissions {
            shop: shop.clone(),
            genesis,
            owner,
            discovery_secret,
            turn: tokio::sync::Mutex::new(()),
        });
        let stop = watch::Sender::new(false);
        let ways = Ways::new(lan);
        let carrying =
            Carrying { ways: ways.clone(), table: links, shop: shop.clone(), admissions: Arc::clone(&admissions) };
        let mut node = Self {
            shop: shop.clone(),
            ways,
            carrying: carrying.clone(),
            link_ids,
            secret_key,
            api: None,
            admissions,
            device,
            role,
            queue: Queue::new(shop.clone(), Arc::new(Desk::new(shop))),
            upstream: None,
            stop,
            ended: watch_ended,
            tasks: Vec::new(),
            carrying_tasks: Vec::new(),
            loop_thread: Some(loop_thread),
            running: None,
        };
        node.carrying_tasks = carrying.start(events, bluetooth);
        node.tasks.push(tokio::spawn(watch_queue(
            Arc::clone(node.queue.desk()),
            node.shop.clone(),
            node.stop.subscribe(),
        )));
        if let Some(upstream) = config.upstream.clone() {
            let (shop, desk) = (node.shop.clone(), Arc::clone(node.queue.desk()));
            node.upstream = Some(Upstream::start(shop, &carrier, desk, upstream).await?);
        }
        if let Some(address) = config.api {
            node.serve_api(&config, address).await?;
        }
        Ok(node)
    }

    async fn serve_api(&mut self, config: &NodeConfig, address: SocketAddr) -> Result<(), StartError> {
        let failed = |source| StartError::Api { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let control = Control {
            ways: self.ways.clone(),
            links: self.links(),
            admissions: Arc::clone(&self.admissions),
            ended: self.ended.clone(),
        };
        let router = crate::api::router(
            crate::api::ApiState::new(self.shop.clone(), Arc::new(control)).with_queue(self.queue.clone()),
        );
        let mut stopping = self.stop.subscribe();
        self.tasks.push(tokio::spawn(async move {
            let stopped = async move { drop(stopping.wait_for(|stop| *stop).await) };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the API stopped");
            }
        }));
        self.api = Some(bound);
        self.running = Some(folder::announce(&config.data, &Running { api: bound, pid: std::process::id() })?);
        Ok(())
    }

    /// The way to its shop.
    #[must_use]
    pub fn shop(&self) -> &ShopHandle {
        &self.shop
    }

    /// Its queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Its links, for others that bring some.
    pub(crate) fn links(&self) -> Arc<LinkTable> {
        Arc::clone(&self.carrying.table)
    }

    /// Where the API listens.
    #[must_use]
    pub fn api(&self) -> Option<SocketAddr> {
        self.api
    }

    /// The device it runs on.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// What the device may do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where its links listen, each with the device's own id, for other devices to dial.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.ways.addresses()
    }

    /// Adds the address of another device.
    ///
    /// # Errors
    /// A text that says what is wrong with the address.
    pub fn add_peer(&self, address: &str) -> Result<(), String> {
        let Some(lan) = self.ways.lan() else { return Err("this node has no network".to_owned()) };
        lan.add_peer_address(None, address).map_err(|error| error.to_string())
    }

    /// Links up with a device that the embedding app has connected to by its own means, such as
    /// a phone's own Bluetooth: the app carries fragments both ways, and trusts nobody with it.
    /// `dialled` says whether this side connected, `remote` where the other is, for people.
    ///
    /// # Errors
    /// [`SecureError`], if the two could not prove their keys to each other.
    pub async fn link_over(&self, carrier: Carrier, dialled: bool, remote: &str) -> Result<(), SecureError> {
        let mut nonce = [0; 4];
        // Only keeps old fragments apart: without chance it is the same for every link.
        if let Err(error) = getrandom::fill(&mut nonce) {
            tracing::debug!(%error, "no random number");
        }
        let config = HostLinkConfig {
            secret_key: self.secret_key,
            dialled,
            nonce: u32::from_le_bytes(nonce),
            remote: remote.to_owned(),
            times: transport::bluetooth::ExchangeTimes::default(),
            limits: transport::Limits {
                frame_bytes_max: crdt_model::sync::message::FRAME_BYTES_MAX,
                ..transport::Limits::default()
            },
            link_ids: self.link_ids.clone(),
        };
        self.carrying.carry(host_link(config, carrier).await?);
        Ok(())
    }

    /// Invites one device.
    ///
    /// # Errors
    /// [`InviteError`].
    pub async fn invite(&self, role: Role) -> Result<Invitation, InviteError> {
        self.admissions.invite(role, self.addresses()).await
    }

    /// Waits until the shop's loop ends; gives the reason if its disk failed.
    pub async fn ended(&self) -> Option<String> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().filter(|reason| !reason.is_empty()),
            Err(_) => None,
        }
    }

    /// Stops the node and closes its file.
    ///
    /// # Errors
    /// The reason, if the last snapshot could not be written. Nothing acknowledged is lost.
    pub async fn stop(mut self) -> Result<(), String> {
        self.stop.send_replace(true);
        if let Some(upstream) = self.upstream.take() {
            upstream.stop().await;
        }
        self.ways.shutdown().await;
        // Those that the app has supplied know nothing of it.
        self.carrying.table.close_all();
        self.carrying_tasks.drain(..).for_each(|task| task.abort());
        for task in self.tasks.drain(..) {
            // Event streams never end by themselves.
            if tokio::time::timeout(Duration::from_secs(2), task).await.is_err() {
                tracing::debug!("a connection was cut");
            }
        }
        if self.shop.close().await.is_err() {
            tracing::debug!("the loop had ended by itself");
        }
        let reason = self.ended().await;
        if let Some(thread) = self.loop_thread.take() {
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
        drop(self.running.take());
        reason.map_or(Ok(()), Err)
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("device", &self.device).field("role", &self.role).finish_non_exhaustive()
    }
}

impl Drop for Node {
    /// Ends what would otherwise go on in the background. The loop ends once nobody holds a
    /// [`ShopHandle`] any more.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.carrying.table.close_all();
        for task in self.tasks.iter().chain(&self.carrying_tasks) {
            task.abort();
        }
    }
}

/// What only the node can do for its API.
#[derive(Debug)]
struct Control {
    ways: Ways,
    links: Arc<LinkTable>,
    admissions: Arc<Admissions>,
    ended: watch::Receiver<Option<String>>,
}

impl Control {
    fn listening(&self) -> Vec<String> {
        self.ways.addresses()
    }
}

impl NodeControl for Control {
    fn addresses(&self) -> Vec<String> {
        self.listening()
    }

    fn invite(&self, role: Role) -> BoxFuture<'_, Result<String, ControlError>> {
        Box::pin(async move {
            match self.admissions.invite(role, self.listening()).await {
                Ok(invitation) => Ok(invitation.to_string()),
                Err(error @ InviteError::NotAnOwner) => Err(ControlError::NotAnOwner(error.to_string())),
                Err(error) => Err(ControlError::Unavailable(error.to_string())),
            }
        })
    }

    fn has_owner_key(&self) -> bool {
        self.admissions.owner.is_some()
    }

    fn decide_handoff(
        &self,
        handoff: RecordId,
        to: DeviceId,
        note: Option<String>,
    ) -> Result<HandoffDecided, ControlError> {
        let owner = self.admissions.owner.as_ref().ok_or_else(|| {
            ControlError::NotAnOwner("this device has no owner's key: decide on the one that made the business".into())
        })?;
        Ok(HandoffDecided::sign(handoff, to, note, owner))
    }

    fn sign_move(&self, business: BusinessId, words: MoveWords) -> Result<LedgerMoved, ControlError> {
        let owner = self.admissions.owner.as_ref().ok_or_else(|| {
            let message = "this device has no owner's key: move payments on the one that made the business";
            ControlError::NotAnOwner(message.to_owned())
        })?;
        let MoveWords { from, to, intent, old_is_gone } = words;
        Ok(LedgerMoved::sign(business, from, to, intent, old_is_gone, owner))
    }

    fn moved(&self, link: LinkId) -> Option<Moved> {
        self.links.moved(link)
    }

    fn trouble(&self) -> Option<String> {
        self.ended.borrow().clone()
    }
}

fn spawn_loop(
    attendant: Attendant,
    ended: watch::Sender<Option<String>>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("shop".to_owned()).spawn(move || {
        // A mistake of ours may show on this thread as well as on a caller's.
        let run = AssertUnwindSafe(|| runtime.block_on(attendant.run()));
        let reason = match catch_unwind(run).unwrap_or(Err(LoopError::Broken)) {
            Ok(()) => String::new(),
            Err(error) => {
                tracing::error!(%error, "the node stops: start it again once this is mended");
                error.to_string()
            }
        };
        ended.send_replace(Some(reason));
    })
}

async fn start_lan(
    config: &NodeConfig,
    secret_key: [u8; 32],
    introducers: Vec<String>,
    link_ids: &LinkIds,
) -> Result<(Option<Lan>, Option<mpsc::Receiver<LanEvent>>), StartError> {
    if config.listen.is_empty() && config.peers.is_empty() && !config.mdns {
        return Ok((None, None));
    }
    let mut lan_config = LanConfig::new(secret_key);
    lan_config.listen.clone_from(&config.listen);
    lan_config.static_peers = config.peers.iter().cloned().chain(introducers).collect();
    lan_config.static_peers.sort();
    lan_config.static_peers.dedup();
    lan_config.mdns = config.mdns;
    lan_config.limits.frame_bytes_max = crdt_model::sync::message::FRAME_BYTES_MAX;
    lan_config.other_protocols = vec![JOIN_PROTOCOL];
    lan_config.link_ids = link_ids.clone();
    let (lan, events) = Lan::start(lan_config).await?;
    Ok((Some(lan), Some(events)))
}

fn bluetooth_config(
    config: &NodeConfig,
    secret_key: [u8; 32],
    discovery_secret: [u8; 32],
    link_ids: &LinkIds,
) -> Option<BluetoothConfig> {
    let adapter = match &config.bluetooth {
        BluetoothChoice::Off => return None,
        BluetoothChoice::Auto => None,
        BluetoothChoice::Adapter(adapter) => Some(adapter.clone()),
    };
    let mut bluetooth = BluetoothConfig::new(secret_key, DiscoverySecret(discovery_secret));
    bluetooth.adapter = adapter;
    bluetooth.l2cap = config.bluetooth_l2cap;
    bluetooth.budget = config.bluetooth_budget.clone();
    bluetooth.limits.frame_bytes_max = crdt_model::sync::message::FRAME_BYTES_MAX;
    bluetooth.link_ids = link_ids.clone();
    Some(bluetooth)
}
