//! The central's side, on btleplug: searches, connects, and makes a carrier of the connection.

use std::{
    collections::HashSet,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use btleplug::{
    api::{
        BDAddr, Central as _, CentralEvent, CentralState, Characteristic, Manager as _, Peripheral as _, ScanFilter,
        ValueNotification, WriteType,
    },
    platform::{Adapter, Manager, Peripheral, PeripheralId},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture};
use tokio::sync::mpsc;

use super::{
    Carrier, CarrierError, FragmentSink, INCOMING_FRAGMENTS_MAX, Medium, Tag,
    service::{INFO, Info, MANUFACTURER, SERVICE, SLOTS, gatt_fragment_bytes},
};

/// Why the central's side does not work, or a device could not be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CentralError {
    #[error("there is no Bluetooth adapter {0:?}: plug one in, or name one that tillmesh doctor lists")]
    NoAdapter(String),
    #[error("Bluetooth can't be used ({0}): check that it is on, and that this user may use it")]
    Unusable(String),
    #[error("the device could not be connected to ({0}): it is out of range, or busy")]
    NotConnected(String),
    #[error("the device does not offer the service in full ({0}): update the older of the two")]
    Service(String),
    #[error("the device did not answer within {0:?}: it is out of range, or busy")]
    Timeout(Duration),
    #[error("the device is connected to this one already: its own link is waited for")]
    Theirs,
    #[error("all of the device's places are taken: it is tried again later")]
    Full,
}

/// A searching and connecting adapter.
#[derive(Clone)]
pub struct Central {
    adapter: Adapter,
    /// `hci0` on Linux.
    name: String,
    /// Devices whose connection we hold, until it has ended.
    held: Arc<Mutex<HashSet<String>>>,
}

/// A device that shows a tag.
#[derive(Clone)]
pub struct Found {
    /// Its address, or what the platform gives in its place.
    pub remote: String,
    pub tag: Tag,
    peripheral: Peripheral,
}

/// A connected device.
#[derive(Debug)]
pub struct Connected {
    pub carrier: Carrier,
    pub medium: Medium,
    /// The most that ATT, or the channel, moves at a time.
    pub mtu: usize,
    /// How long connecting and finding the service took.
    pub connect: Duration,
    pub discover: Duration,
}

impl Central {
    /// The adapter of this name, such as `hci1`, or with this address; any if `choice` is `None`.
    ///
    /// # Errors
    /// If there is none, or Bluetooth can't be used.
    pub async fn open(choice: Option<&str>) -> Result<Self, CentralError> {
        if cfg!(target_os = "android") {
            // Without the app's Java environment there is no way to Android's Bluetooth.
            return Err(CentralError::Unusable("on Android the app supplies the link".to_owned()));
        }
        let manager = Manager::new().await.map_err(unusable)?;
        let mut named = Vec::new();
        for adapter in manager.adapters().await.map_err(unusable)? {
            let info = adapter.adapter_info().await.map_err(unusable)?;
            // The order changes from call to call; the name comes first in the info.
            let name = info.split_whitespace().next().unwrap_or_default().to_owned();
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            let address = adapter.adapter_address().await.ok().flatten().map(|address| address.to_string());
            named.push((name, address, adapter));
        }
        named.sort_by(|one, other| one.0.cmp(&other.0));
        let fits = |name: &str, address: Option<&str>| match choice {
            None => true,
            Some(choice) => choice == name || address.is_some_and(|address| address.eq_ignore_ascii_case(choice)),
        };
        let chosen = named.into_iter().find(|(name, address, _)| fits(name, address.as_deref()));
        let (name, _, adapter) =
            chosen.ok_or_else(|| CentralError::NoAdapter(choice.unwrap_or("of any name").to_owned()))?;
        let_go_of_leftovers(&adapter).await;
        Ok(Self { adapter, name, held: Arc::default() })
    }

    /// The adapter's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Searches until a device is found that `wanted` says yes to, at most for so long.
    ///
    /// # Errors
    /// If the adapter can't search: it is off, or gone.
    pub async fn scan(
        &self,
        how_long: Duration,
        mut wanted: impl FnMut(&str, Tag) -> bool,
    ) -> Result<Option<Found>, CentralError> {
        let mut events = self.adapter.events().await.map_err(unusable)?;
        let filter = ScanFilter { services: vec![SERVICE] };
        self.adapter.start_scan(filter).await.map_err(unusable)?;
        let looking = async {
            while let Some(event) = events.next().await {
                let Some(id) = seen(event) else { continue };
                if let Some(found) = self.look_at(&id).await
                    && wanted(&found.remote, found.tag)
                {
                    return Some(found);
                }
            }
            None
        };
        let found = tokio::time::timeout(how_long, looking).await.unwrap_or(None);
        // Connecting while searching fails with some controllers.
        if let Err(error) = self.adapter.stop_scan().await {
            tracing::debug!(%error, "the search had ended before");
        }
        Ok(found)
    }

    async fn look_at(&self, id: &PeripheralId) -> Option<Found> {
        let peripheral = self.adapter.peripheral(id).await.ok()?;
        let properties = peripheral.properties().await.ok()??;
        tracing::trace!(?properties, "seen");
        // Without a strength it was not heard in this search. The service's UUID is not looked for:
        // the search asks for it, and BlueZ forgets it of a device whose services it has seen go.
        let shown = properties.manufacturer_data.get(&MANUFACTURER).filter(|_| properties.rssi.is_some())?;
        let tag = Tag(shown.as_slice().try_into().ok()?);
        Some(Found { remote: remote_name(&peripheral), tag, peripheral })
    }

    /// Connects, and opens a channel or takes a free slot; an `l2cap` of `false` never opens a
    /// channel.
    ///
    /// # Errors
    /// Says whether the device, its service or time is the trouble.
    pub async fn connect(&self, found: &Found, l2cap: bool) -> Result<Connected, CentralError> {
        let peripheral = &found.peripheral;
        let held = self.hold(found).await?;
        if peripheral.is_connected().await.map_err(failed)? {
            // There is one connection between two devices, and its end is for whoever made it.
            held.leave();
            return Err(CentralError::Theirs);
        }
        let began = Instant::now();
        within(CONNECT_MAX, peripheral.connect()).await?.map_err(failed)?;
        let connect = began.elapsed();
        let began = Instant::now();
        let info = within(DISCOVER_MAX, discovered(peripheral)).await??;
        let discover = began.elapsed();
        let info = within(ANSWER_MAX, peripheral.read(&info)).await?.map_err(failed)?;
        let info = Info::parse(&info).map_err(|error| CentralError::Service(error.to_string()))?;
        let mut held = Some(held);
        if l2cap && info.psm != 0 {
            match self.channel(peripheral, info.psm, &mut held).await {
                Ok(carrier) => {
                    let mtu = carrier.fragment_bytes_max;
                    return Ok(Connected { carrier, medium: Medium::L2cap, mtu, connect, discover });
                }
                Err(error) => tracing::info!(%error, "no channel could be opened: going on over GATT"),
            }
        }
        let carrier = self.slot(peripheral, info.free, held).await?;
        Ok(Connected { carrier, medium: Medium::Gatt, mtu: peripheral.mtu().into(), connect, discover })
    }

    /// An earlier connection may be ending at the moment; the new one would end with it.
    async fn hold(&self, found: &Found) -> Result<Held, CentralError> {
        let began = Instant::now();
        while !held(&self.held).insert(found.remote.clone()) {
            if began.elapsed() > LETTING_GO {
                return Err(CentralError::NotConnected("an earlier connection has not ended yet".to_owned()));
            }
            tokio::time::sleep(LETTING_GO_POLL).await;
        }
        let (peripheral, remote) = (found.peripheral.clone(), found.remote.clone());
        Ok(Held { peripheral, remote, all: Arc::clone(&self.held), left: false })
    }

    /// Takes one of the free slots; which one is left to chance, as others may be choosing too.
    async fn slot(&self, peripheral: &Peripheral, free: u8, held: Option<Held>) -> Result<Carrier, CentralError> {
        let free: Vec<u8> = (0..SLOTS).filter(|n| free >> n & 1 == 1).collect();
        let slot = *free.get(chance() % free.len().max(1)).ok_or(CentralError::Full)?;
        let characteristic = characteristic(peripheral, super::service::slot(slot))?;
        let notifications = peripheral.notifications().await.map_err(failed)?;
        let events = self.adapter.events().await.map_err(failed)?;
        within(ANSWER_MAX, peripheral.subscribe(&characteristic)).await?.map_err(failed)?;
        let (arrived, incoming) = mpsc::channel(INCOMING_FRAGMENTS_MAX);
        let fragment_bytes_max = gatt_fragment_bytes(peripheral.mtu().into());
        let outgoing = Box::new(Slot { peripheral: peripheral.clone(), characteristic: characteristic.clone() });
        let (uuid, id) = (characteristic.uuid, peripheral.id());
        tokio::spawn(async move {
            let notified = pass_on(notifications, uuid, arrived);
            tokio::select! {
                () = notified => {}
                () = disconnected(events, id) => {}
            }
            drop(held);
        });
        Ok(Carrier { fragment_bytes_max, outgoing, incoming })
    }

    #[cfg(target_os = "linux")]
    async fn channel(&self, remote: &Peripheral, psm: u16, held: &mut Option<Held>) -> Result<Carrier, CentralError> {
        use bluer::{Address, AddressType};
        use btleplug::api::AddressType as Theirs;

        let wrong = |error: &dyn fmt::Display| CentralError::NotConnected(error.to_string());
        let kind = |theirs: Option<Theirs>| match theirs {
            Some(Theirs::Random) => AddressType::LeRandom,
            Some(Theirs::Public) | None => AddressType::LePublic,
        };
        let local = self.adapter.adapter_address().await.map_err(failed)?;
        let local = local.ok_or_else(|| CentralError::NotConnected("the adapter has no address".to_owned()))?;
        let local: Address = local.to_string().parse().map_err(|error| wrong(&error))?;
        let properties = remote.properties().await.map_err(failed)?.unwrap_or_default();
        let address: Address = properties.address.to_string().parse().map_err(|error| wrong(&error))?;
        let remote = (address, kind(properties.address_type));
        let channel = super::l2cap::connect((local, AddressType::LePublic), remote, psm).await;
        let channel = channel.map_err(|error| wrong(&error))?;
        super::l2cap::carrier(channel, held.take()).map_err(|error| wrong(&error))
    }

    /// Only Linux lets a program open channels in the same way everywhere.
    #[cfg(not(target_os = "linux"))]
    async fn channel(&self, _: &Peripheral, _: u16, _: &mut Option<Held>) -> Result<Carrier, CentralError> {
        Err(CentralError::Unusable("this platform has no channels".to_owned()))
    }
}

/// The system holds the connections of a process that was killed, and a device that is connected
/// is not found again.
async fn let_go_of_leftovers(adapter: &Adapter) {
    for peripheral in adapter.peripherals().await.unwrap_or_default() {
        if !peripheral.is_connected().await.unwrap_or(false) {
            continue;
        }
        let properties = peripheral.properties().await.ok().flatten().unwrap_or_default();
        if !properties.services.contains(&SERVICE) && !properties.manufacturer_data.contains_key(&MANUFACTURER) {
            continue;
        }
        let remote = remote_name(&peripheral);
        match within(ANSWER_MAX, peripheral.disconnect()).await {
            Ok(Ok(())) => tracing::info!(remote, "an earlier process left a connection: it is ended"),
            Ok(Err(error)) => tracing::debug!(remote, %error, "a connection that was left can't be ended"),
            Err(error) => tracing::debug!(remote, %error, "a connection that was left can't be ended"),
        }
    }
}

/// Waits until the device's services are known; gives its info characteristic.
async fn discovered(peripheral: &Peripheral) -> Result<Characteristic, CentralError> {
    loop {
        peripheral.discover_services().await.map_err(failed)?;
        if let Ok(info) = characteristic(peripheral, INFO) {
            return Ok(info);
        }
        tokio::time::sleep(DISCOVER_POLL).await;
    }
}

fn characteristic(peripheral: &Peripheral, uuid: uuid::Uuid) -> Result<Characteristic, CentralError> {
    let all = peripheral.characteristics();
    let found = all.into_iter().find(|one| one.uuid == uuid && one.service_uuid == SERVICE);
    found.ok_or_else(|| CentralError::Service(format!("{uuid} is missing")))
}

async fn pass_on(
    mut notifications: Pin<Box<dyn Stream<Item = ValueNotification> + Send>>,
    uuid: uuid::Uuid,
    arrived: mpsc::Sender<Bytes>,
) {
    loop {
        let notification = tokio::select! {
            notification = notifications.next() => notification,
            () = arrived.closed() => return,
        };
        let Some(notification) = notification else { return };
        if notification.uuid == uuid
            && notification.service_uuid == SERVICE
            && let Err(error) = arrived.try_send(notification.value.into())
        {
            // It will be sent again.
            tracing::trace!(%error, "a fragment was dropped");
        }
    }
}

async fn disconnected(mut events: Pin<Box<dyn Stream<Item = CentralEvent> + Send>>, id: PeripheralId) {
    while let Some(event) = events.next().await {
        if matches!(&event, CentralEvent::DeviceDisconnected(other) if *other == id) {
            return;
        }
        if matches!(event, CentralEvent::StateUpdate(CentralState::PoweredOff)) {
            return;
        }
    }
}

/// The device that an event is about, if the event means that it was seen.
fn seen(event: CentralEvent) -> Option<PeripheralId> {
    match event {
        CentralEvent::DeviceDiscovered(id)
        | CentralEvent::DeviceUpdated(id)
        | CentralEvent::ManufacturerDataAdvertisement { id, .. }
        | CentralEvent::ServiceDataAdvertisement { id, .. }
        | CentralEvent::ServicesAdvertisement { id, .. }
        | CentralEvent::RssiUpdate { id, .. } => Some(id),
        CentralEvent::DeviceConnected(_)
        | CentralEvent::DeviceDisconnected(_)
        | CentralEvent::DeviceServicesModified(_)
        | CentralEvent::StateUpdate(_) => None,
    }
}

/// Some platforms hide addresses and give an id instead.
fn remote_name(peripheral: &Peripheral) -> String {
    let address = peripheral.address();
    if address == BDAddr::default() { peripheral.id().to_string() } else { address.to_string() }
}

fn chance() -> usize {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    usize::try_from(random >> 48).unwrap_or(0)
}

async fn within<T>(max: Duration, work: impl Future<Output = T>) -> Result<T, CentralError> {
    tokio::time::timeout(max, work).await.map_err(|_| CentralError::Timeout(max))
}

fn unusable(error: btleplug::Error) -> CentralError {
    CentralError::Unusable(error.to_string())
}

fn failed(error: btleplug::Error) -> CentralError {
    CentralError::NotConnected(error.to_string())
}

fn held(all: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection, which ends when nobody uses it any more.
struct Held {
    peripheral: Peripheral,
    remote: String,
    all: Arc<Mutex<HashSet<String>>>,
    /// It is somebody else's.
    left: bool,
}

impl Held {
    fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.left {
            held(&self.all).remove(&self.remote);
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (peripheral, remote, all) = (self.peripheral.clone(), self.remote.clone(), Arc::clone(&self.all));
        runtime.spawn(async move {
            for _ in 0..LETTING_GO_TRIES {
                match within(ANSWER_MAX, peripheral.disconnect()).await {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => tracing::debug!(remote, %error, "a device could not be disconnected"),
                    Err(error) => tracing::debug!(remote, %error, "a device could not be disconnected"),
                }
                // A device that stays connected would not be found again.
                if !matches!(within(ANSWER_MAX, peripheral.is_connected()).await, Ok(Ok(true))) {
                    break;
                }
                tokio::time::sleep(LETTING_GO_POLL).await;
            }
            held(&all).remove(&remote);
        });
    }
}

struct Slot {
    peripheral: Peripheral,
    characteristic: Characteristic,
}

impl FragmentSink for Slot {
    fn send(&mut self, fragment: Bytes) -> BoxFuture<'_, Result<(), CarrierError>> {
        Box::pin(async move {
            let written = self.peripheral.write(&self.characteristic, &fragment, WriteType::WithoutResponse).await;
            written.map_err(|error| CarrierError(error.to_string()))
        })
    }
}

impl fmt::Debug for Central {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Central").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("remote", &self.remote).field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// A phone that advertises once a second may miss several of our requests.
const CONNECT_MAX: Duration = Duration::from_secs(6);
/// As long as a link may take to say goodbye.
const LETTING_GO: Duration = Duration::from_secs(8);
const LETTING_GO_POLL: Duration = Duration::from_millis(50);
const LETTING_GO_TRIES: u32 = 3;
const DISCOVER_MAX: Duration = Duration::from_secs(10);
const DISCOVER_POLL: Duration = Duration::from_millis(100);
const ANSWER_MAX: Duration = Duration::from_secs(5);
