//! Links over Bluetooth Low Energy, and over whatever else carries fragments for an app.

#[cfg(target_os = "linux")]
mod bluez;
mod carrier;
mod central;
#[cfg(target_os = "linux")]
mod daemon;
mod drive;
mod exchange;
mod fragment;
mod host;
#[cfg(target_os = "linux")]
mod l2cap;
mod pairs;
mod peripheral;
mod receiving;
mod run;
mod secure;
mod sending;
mod service;
mod survey;
mod tag;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[cfg(target_os = "linux")]
pub use self::bluez::BluezPeripheral;
pub use self::{
    carrier::{Carrier, CarrierError, FragmentSink, INCOMING_FRAGMENTS_MAX},
    central::{Central, CentralError, Connected, Found},
    exchange::{ExchangeError, ExchangeTimes},
    fragment::{
        Ack, EXCHANGE_VERSION, FRAGMENT_BYTES_MIN, FRAGMENT_OVERHEAD_BYTES, Flow, Fragment, FragmentError, Opening,
        Piece, Refusal,
    },
    host::{HostLinkConfig, host_link},
    pairs::BluetoothBudget,
    peripheral::{Arrival, Medium, Peripheral, PeripheralError},
    secure::SecureError,
    service::{GATT_FRAGMENT_BYTES_MAX, INFO, Info, MANUFACTURER, SERVICE, SLOTS, gatt_fragment_bytes, slot},
    survey::{AdapterReport, SurveyError, survey},
    tag::{DiscoverySecret, TAG_PERIOD, TAG_PERIODS_OFF_MAX, Tag, tag_period},
};
use self::{pairs::Pairs, run::Shared};
use crate::{Limits, Link, LinkError, LinkIds, PeerKey, PeerKeyError};

/// How a device takes part in Bluetooth.
#[derive(Clone)]
pub struct BluetoothConfig {
    /// The device's Ed25519 secret key.
    pub secret_key: [u8; 32],
    /// By which the devices of a business recognise each other.
    pub discovery_secret: DiscoverySecret,
    /// The adapter's name, such as `hci1`, or its address; any if not given.
    pub adapter: Option<String>,
    /// Whether to open L2CAP channels where both sides can: they are faster than GATT.
    pub l2cap: bool,
    pub budget: BluetoothBudget,
    pub times: ExchangeTimes,
    pub limits: Limits,
    /// Where link numbers come from; share it with the process's other transports.
    pub link_ids: LinkIds,
}

impl BluetoothConfig {
    /// Any adapter, and the defaults.
    pub fn new(secret_key: [u8; 32], discovery_secret: DiscoverySecret) -> Self {
        Self {
            secret_key,
            discovery_secret,
            adapter: None,
            l2cap: true,
            budget: BluetoothBudget::default(),
            times: ExchangeTimes::default(),
            limits: Limits::default(),
            link_ids: LinkIds::default(),
        }
    }
}

impl fmt::Debug for BluetoothConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BluetoothConfig")
            .field("adapter", &self.adapter)
            .field("l2cap", &self.l2cap)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// What Bluetooth tells its host.
#[allow(clippy::large_enum_variant)] // Nearly all that is told is a link.
#[derive(Debug)]
pub enum BluetoothEvent {
    /// The one Bluetooth link to a peer. It replaces an earlier one to the same peer.
    Link(Link),
    /// The adapter is gone or off: start again later.
    Ended { reason: String },
}

/// Why Bluetooth could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BluetoothStartError {
    #[error("the device's secret key can't be used: {0}")]
    Key(#[from] PeerKeyError),
    #[error(transparent)]
    Central(#[from] CentralError),
    #[error(transparent)]
    Peripheral(#[from] PeripheralError),
}

/// A handle on the Bluetooth transport. Clones are the same transport. It ends with
/// [`Self::shutdown`], or when its event receiver is dropped.
#[derive(Clone)]
pub struct Bluetooth {
    shared: Arc<Shared>,
    adapter: String,
    both_roles: bool,
}

impl Bluetooth {
    /// Starts on an adapter: as a central, and as a peripheral where the platform has that side.
    ///
    /// # Errors
    /// If there is no such adapter, or Bluetooth can't be used.
    pub async fn start(config: BluetoothConfig) -> Result<(Self, mpsc::Receiver<BluetoothEvent>), BluetoothStartError> {
        let central = Central::open(config.adapter.as_deref()).await?;
        let peripheral = platform_peripheral(central.name()).await;
        Self::start_with(config, central, peripheral?)
    }

    /// Starts with parts that the caller has: another peripheral side, or none.
    ///
    /// # Errors
    /// If the secret key can't be used.
    pub fn start_with(
        config: BluetoothConfig,
        central: Central,
        peripheral: Option<Box<dyn Peripheral>>,
    ) -> Result<(Self, mpsc::Receiver<BluetoothEvent>), BluetoothStartError> {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared {
            ours: PeerKey::from_secret(&config.secret_key)?,
            pairs: Mutex::new(Pairs::new(config.budget.clone())),
            config,
            events,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let (host, stopping) = (shared.events.clone(), shared.stopping.clone());
        shared.tasks.spawn(async move {
            tokio::select! {
                () = host.closed() => stopping.cancel(),
                () = stopping.cancelled() => {}
            }
        });
        let adapter = central.name().to_owned();
        let both_roles = peripheral.is_some();
        if let Some(peripheral) = peripheral {
            shared.tasks.spawn(run::answer(Arc::clone(&shared), peripheral));
        }
        shared.tasks.spawn(run::seek(Arc::clone(&shared), central));
        Ok((Self { shared, adapter, both_roles }, receiver))
    }

    /// The adapter in use.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// Whether others can connect to this device, too.
    pub fn has_both_roles(&self) -> bool {
        self.both_roles
    }

    /// The peer is none of ours: its link is cut, and links to it are not kept, until the pause
    /// ends.
    pub fn refuse(&self, peer: PeerKey, pause: Duration) {
        let control = self.shared.pairs().refuse(peer, drive::now() + pause);
        if let Some(control) = control {
            control.cut(LinkError::Refused);
        }
    }

    /// Ends a refusal before its time: the peer has been enrolled.
    pub fn readmit(&self, peer: PeerKey) {
        self.shared.pairs().readmit(&peer);
    }

    /// The peer is reached in a better way: its link is put down once what is queued has left,
    /// and it is not connected to until [`Self::wake`].
    pub fn rest(&self, peer: PeerKey) {
        let control = self.shared.pairs().rest(peer);
        if let Some(control) = control {
            control.put_down();
        }
    }

    /// The better way is gone: the peer is looked for again.
    pub fn wake(&self, peer: PeerKey) {
        self.shared.pairs().wake(&peer, drive::now());
    }

    /// Writes what is queued on the links still open, and ends.
    pub async fn shutdown(&self) {
        let controls = self.shared.pairs().take_all();
        self.shared.stopping.cancel();
        for control in controls {
            control.put_down();
            if let Err(error) = control.writer.await {
                tracing::debug!(%error, "a link ended badly");
            }
        }
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_MAX, self.shared.tasks.wait()).await.is_err() {
            tracing::debug!("Bluetooth did not end in time");
        }
    }
}

impl fmt::Debug for Bluetooth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bluetooth").field("adapter", &self.adapter).finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
async fn platform_peripheral(adapter: &str) -> Result<Option<Box<dyn Peripheral>>, PeripheralError> {
    Ok(Some(Box::new(BluezPeripheral::start(adapter).await?)))
}

/// Elsewhere the host may bring one; see [`Bluetooth::start_with`].
#[cfg(not(target_os = "linux"))]
async fn platform_peripheral(_: &str) -> Result<Option<Box<dyn Peripheral>>, PeripheralError> {
    Ok(None)
}

/// Events waiting for the host: more than there are links.
const EVENTS_MAX: usize = 16;
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
