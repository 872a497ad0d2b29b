//! The ways to other devices: the LAN, and Bluetooth beside it. Whoever is reached on the LAN is
//! left alone by Bluetooth, after both have been up together for a moment, so that nothing waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crdt_model::ids::DeviceId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use transport::bluetooth::{Bluetooth, BluetoothConfig, BluetoothEvent};
use transport::{Lan, LanEvent, LinkKind, PeerKey};

use crate::join::Admissions;
use crate::links::{self, LinkTable};
use crate::shop_handle::ShopHandle;

/// How long both links stay up once a peer is reached on the LAN, too. 10 s: what was on its way
/// over Bluetooth arrives, and a Wi-Fi that comes and goes in a moment changes nothing.
const OVERLAP: Duration = Duration::from_secs(10);
/// After how long Bluetooth is tried again once it could not be used: an adapter may be plugged
/// in or switched on at any time, and asking costs next to nothing.
const BLUETOOTH_RETRY: Duration = Duration::from_secs(15);

/// The ways to other devices. Clones are the same ways.
#[derive(Debug, Clone)]
pub(crate) struct Ways(Arc<Both>);

#[derive(Debug)]
struct Both {
    lan: Option<Lan>,
    bluetooth: Mutex<Option<Bluetooth>>,
    /// Links on the LAN, by peer.
    on_lan: Mutex<BTreeMap<DeviceId, usize>>,
}

impl Ways {
    pub(crate) fn new(lan: Option<Lan>) -> Self {
        Self(Arc::new(Both { lan, bluetooth: Mutex::default(), on_lan: Mutex::default() }))
    }

    pub(crate) fn lan(&self) -> Option<&Lan> {
        self.0.lan.as_ref()
    }

    fn bluetooth(&self) -> MutexGuard<'_, Option<Bluetooth>> {
        self.0.bluetooth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_lan(&self) -> MutexGuard<'_, BTreeMap<DeviceId, usize>> {
        self.0.on_lan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this node listens on the LAN.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.lan().map(Lan::addresses).unwrap_or_default()
    }

    /// A peer has said over another link where it listens.
    pub(crate) fn learnt(&self, device: DeviceId, addresses: &[String]) {
        let Some(lan) = self.lan() else { return };
        for address in addresses {
            match lan.add_peer_address(Some(PeerKey(device.0)), address) {
                Ok(()) => tracing::debug!(address, "an address was learnt"),
                Err(error) => tracing::debug!(address, %error, "an address that was told can't be used"),
            }
        }
    }

    /// Leaves a device alone that is none of ours.
    fn refuse(&self, device: DeviceId, pause: Duration) {
        let peer = PeerKey(device.0);
        if let Some(lan) = self.lan() {
            lan.refuse(peer, pause);
        }
        if let Some(bluetooth) = self.bluetooth().clone() {
            bluetooth.refuse(peer, pause);
        }
    }

    fn lan_is_up(&self, device: DeviceId) {
        *self.on_lan().entry(device).or_insert(0) += 1;
    }

    fn lan_is_down(&self, device: DeviceId) {
        let gone = {
            let mut on_lan = self.on_lan();
            let links = on_lan.remove(&device).unwrap_or(0).saturating_sub(1);
            if links > 0 {
                on_lan.insert(device, links);
            }
            links == 0
        };
        if gone && let Some(bluetooth) = self.bluetooth().clone() {
            bluetooth.wake(PeerKey(device.0));
        }
    }

    /// Bluetooth rests for whoever is on the LAN.
    fn rest(&self, device: DeviceId) {
        let bluetooth = self.bluetooth().clone();
        if self.on_lan().contains_key(&device)
            && let Some(bluetooth) = bluetooth
        {
            bluetooth.rest(PeerKey(device.0));
        }
    }

    pub(crate) async fn shutdown(&self) {
        let bluetooth = self.bluetooth().take();
        if let Some(bluetooth) = bluetooth {
            bluetooth.shutdown().await;
        }
        if let Some(lan) = self.lan() {
            lan.shutdown().await;
        }
    }
}

/// What every link needs.
#[derive(Debug, Clone)]
pub(crate) struct Carrying {
    pub(crate) ways: Ways,
    pub(crate) table: Arc<LinkTable>,
    pub(crate) shop: ShopHandle,
    pub(crate) admissions: Arc<Admissions>,
}

impl Carrying {
    /// Starts the tasks that carry links. They end when they are aborted, or with their transport.
    pub(crate) fn start(
        self,
        lan_events: Option<mpsc::Receiver<LanEvent>>,
        bluetooth: Option<BluetoothConfig>,
    ) -> Vec<JoinHandle<()>> {
        let (refused, refusals) = mpsc::unbounded_channel();
        self.table.on_refuse(refused);
        self.table.told_by(self.ways.clone());
        let mut tasks = vec![tokio::spawn(pass_refusals(self.ways.clone(), refusals))];
        if let Some(events) = lan_events {
            tasks.push(tokio::spawn(self.clone().carry_lan(events)));
        }
        if let Some(config) = bluetooth {
            tasks.push(tokio::spawn(self.keep_bluetooth_up(config)));
        }
        tasks
    }

    /// Runs a link in a task of its own.
    pub(crate) fn carry(&self, link: transport::Link) {
        let (device, on_lan) = (DeviceId(link.peer.0), link.kind == LinkKind::Lan);
        let Self { ways, table, shop, .. } = self.clone();
        tokio::spawn(async move {
            if !on_lan {
                links::run(table, shop, link).await;
                return;
            }
            ways.lan_is_up(device);
            let running = links::run(table, shop, link);
            let resting = async {
                tokio::time::sleep(OVERLAP).await;
                ways.rest(device);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = running => {}
                () = resting => {}
            }
            ways.lan_is_down(device);
        });
    }

    async fn carry_lan(self, mut events: mpsc::Receiver<LanEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                LanEvent::Link(link) => self.carry(link),
                LanEvent::Stream { link, .. } => {
                    tokio::spawn(Arc::clone(&self.admissions).serve(link));
                }
                LanEvent::Discovered { peer, address } => tracing::debug!(%peer, address, "discovered"),
                LanEvent::Unreachable { address, reason } => tracing::debug!(address, reason, "unreachable"),
            }
        }
    }

    /// Starts Bluetooth, and starts it again whenever its adapter was gone.
    async fn keep_bluetooth_up(self, config: BluetoothConfig) {
        let mut said = None;
        loop {
            let reason = match Bluetooth::start(config.clone()).await {
                Ok((bluetooth, events)) => {
                    tracing::info!(
                        adapter = bluetooth.adapter(),
                        both_roles = bluetooth.has_both_roles(),
                        "Bluetooth is on"
                    );
                    self.carry_bluetooth(bluetooth, events).await
                }
                Err(error) => error.to_string(),
            };
            if said.as_ref() != Some(&reason) {
                // Most machines that run a node have no Bluetooth, and need none.
                if config.adapter.is_some() {
                    tracing::warn!(reason, "Bluetooth can't be used: tillmesh doctor tells more");
                } else {
                    tracing::info!(reason, "going on without Bluetooth");
                }
                said = Some(reason);
            }
            tokio::time::sleep(BLUETOOTH_RETRY).await;
        }
    }

    async fn carry_bluetooth(&self, bluetooth: Bluetooth, mut events: mpsc::Receiver<BluetoothEvent>) -> String {
        for device in self.ways.on_lan().keys() {
            bluetooth.rest(PeerKey(device.0));
        }
        *self.ways.bluetooth() = Some(bluetooth.clone());
        let reason = loop {
            match events.recv().await {
                Some(BluetoothEvent::Link(link)) => self.carry(link),
                Some(BluetoothEvent::Ended { reason }) => break reason,
                None => break "it ended by itself".to_owned(),
            }
        };
        self.ways.bluetooth().take();
        bluetooth.shutdown().await;
        reason
    }
}

async fn pass_refusals(ways: Ways, mut refusals: mpsc::UnboundedReceiver<(DeviceId, Duration)>) {
    while let Some((device, pause)) = refusals.recv().await {
        ways.refuse(device, pause);
    }
}
