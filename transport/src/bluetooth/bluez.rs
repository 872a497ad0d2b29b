//! The peripheral's side on Linux: BlueZ over D-Bus, with one characteristic a central, and a
//! listener for L2CAP channels.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bluer::{
    Adapter, Address, AddressType, Session,
    adv::{Advertisement, AdvertisementHandle, Type},
    gatt::{
        CharacteristicWriter,
        local::{
            Application, ApplicationHandle, Characteristic, CharacteristicControl, CharacteristicControlEvent,
            CharacteristicNotify, CharacteristicNotifyMethod, CharacteristicRead, CharacteristicWrite,
            CharacteristicWriteMethod, Service, characteristic_control,
        },
    },
    l2cap::SeqPacketListener,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Arrival, Carrier, CarrierError, FragmentSink, INCOMING_FRAGMENTS_MAX, Medium, Peripheral, PeripheralError, Tag,
    daemon::Watch,
    fragment::Fragment,
    l2cap,
    service::{INFO, Info, MANUFACTURER, SERVICE, SLOTS, gatt_fragment_bytes, slot},
};

/// BlueZ's peripheral side on one adapter. Dropping it withdraws the service and its advertisement.
pub struct BluezPeripheral {
    adapter: Adapter,
    advertised: Option<AdvertisementHandle>,
    arrivals: mpsc::Receiver<Arrival>,
    daemon: Watch,
    _application: ApplicationHandle,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl BluezPeripheral {
    /// Offers the service on an adapter, switching it on if it is off.
    ///
    /// # Errors
    /// What BlueZ refused.
    pub async fn start(adapter_name: &str) -> Result<Self, PeripheralError> {
        let daemon = Watch::begin().await?;
        let session = Session::new().await.map_err(refused)?;
        let adapter = session.adapter(adapter_name).map_err(refused)?;
        power(&adapter).await?;
        let (arrived, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut tasks = Vec::new();
        let psm = match listen(&adapter).await {
            Ok((listener, psm)) => {
                tasks.push(AbortOnDropHandle::new(tokio::spawn(accept_channels(listener, arrived.clone()))));
                psm
            }
            Err(error) => {
                tracing::warn!(%error, "no channels can be listened for: going on with GATT alone");
                0
            }
        };
        let slots: Vec<Arc<Slot>> = (0..SLOTS).map(|_| Arc::default()).collect();
        let mut characteristics = vec![info(psm, slots.clone())];
        for (n, slot) in (0..).zip(slots) {
            let (control, handle) = characteristic_control();
            characteristics.push(Characteristic { control_handle: handle, ..carrying(n, &slot, &arrived) });
            tasks.push(AbortOnDropHandle::new(tokio::spawn(follow(control, slot))));
        }
        let service = Service { uuid: SERVICE, primary: true, characteristics, ..Service::default() };
        let application = Application { services: vec![service], ..Application::default() };
        let application = adapter.serve_gatt_application(application).await.map_err(refused)?;
        Ok(Self { adapter, advertised: None, arrivals, daemon, _application: application, _tasks: tasks })
    }
}

impl Peripheral for BluezPeripheral {
    fn advertise(&mut self, tag: Tag) -> BoxFuture<'_, Result<(), PeripheralError>> {
        Box::pin(async move {
            // Some controllers show one advertisement at a time.
            drop(self.advertised.take());
            let advertisement = Advertisement {
                advertisement_type: Type::Peripheral,
                service_uuids: [SERVICE].into(),
                manufacturer_data: BTreeMap::from([(MANUFACTURER, tag.0.to_vec())]),
                discoverable: Some(true),
                ..Advertisement::default()
            };
            self.advertised = Some(self.adapter.advertise(advertisement).await.map_err(refused)?);
            Ok(())
        })
    }

    fn arrival(&mut self) -> BoxFuture<'_, Option<Arrival>> {
        Box::pin(async {
            tokio::select! {
                arrival = self.arrivals.recv() => arrival,
                () = self.daemon.gone.cancelled() => None,
            }
        })
    }
}

impl fmt::Debug for BluezPeripheral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BluezPeripheral").field("adapter", &self.adapter.name()).finish_non_exhaustive()
    }
}

/// Switches an adapter on; while bluetoothd does the same, it says that it is busy.
async fn power(adapter: &Adapter) -> Result<(), PeripheralError> {
    let mut tries = 0;
    loop {
        let powered = match adapter.is_powered().await {
            Ok(true) => return Ok(()),
            Ok(false) => adapter.set_powered(true).await,
            Err(error) => Err(error),
        };
        match powered {
            Ok(()) => return Ok(()),
            Err(error) if tries >= POWER_TRIES => return Err(refused(error)),
            Err(error) => tracing::debug!(%error, "the adapter can't be switched on yet"),
        }
        tries += 1;
        tokio::time::sleep(POWER_PAUSE).await;
    }
}

async fn listen(adapter: &Adapter) -> Result<(SeqPacketListener, u16), std::io::Error> {
    let address = adapter.address().await.map_err(std::io::Error::other)?;
    l2cap::listen(address, AddressType::LePublic).await
}

async fn accept_channels(listener: SeqPacketListener, arrived: mpsc::Sender<Arrival>) {
    loop {
        let (channel, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "channels are no longer listened for");
                return;
            }
        };
        match l2cap::carrier(channel, ()) {
            Ok(carrier) => {
                let arrival = Arrival { carrier, medium: Medium::L2cap, remote: remote.addr.to_string() };
                if arrived.try_send(arrival).is_err() {
                    tracing::debug!("too many centrals at once: a channel is dropped");
                }
            }
            Err(error) => tracing::debug!(%error, "a channel ended at once"),
        }
    }
}

/// One characteristic's central, if it has one.
#[derive(Default)]
struct Slot(Mutex<Use>);

#[derive(Default)]
struct Use {
    subscribed: Option<Arc<CharacteristicWriter>>,
    /// Who talks here, and where its fragments go.
    central: Option<(Address, mpsc::Sender<Bytes>)>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Use> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_free(&self) -> bool {
        let used = self.lock();
        used.central.as_ref().is_none_or(|(_, fragments)| fragments.is_closed())
    }

    /// Takes a fragment; gives a carrier if it is a new central's first one.
    fn written(self: &Arc<Self>, fragment: Vec<u8>, from: Address, mtu: u16) -> Option<Carrier> {
        let mut used = self.lock();
        if let Some((central, fragments)) = used.central.as_ref().filter(|(_, fragments)| !fragments.is_closed()) {
            if *central != from {
                tracing::debug!("two centrals have chosen one slot: the later one has to choose again");
            } else if fragments.try_send(fragment.into()).is_err() {
                tracing::trace!("a fragment was dropped; it will be sent again");
            }
            return None;
        }
        let opens = matches!(Fragment::parse(&fragment), Ok(Fragment::Open(_)) | Err(_));
        // Until it has subscribed it could not be answered. It repeats its opening.
        let writer = Arc::clone(used.subscribed.as_ref().filter(|_| opens)?);
        let (arrived, incoming) = mpsc::channel(INCOMING_FRAGMENTS_MAX);
        arrived.try_send(fragment.into()).ok()?;
        used.central = Some((from, arrived));
        let fragment_bytes_max = gatt_fragment_bytes(usize::from(mtu).min(writer.mtu() + 3));
        Some(Carrier { fragment_bytes_max, outgoing: Box::new(Notified(writer)), incoming })
    }
}

fn info(psm: u16, slots: Vec<Arc<Slot>>) -> Characteristic {
    let read = CharacteristicRead {
        read: true,
        fun: Box::new(move |_| {
            let free = (0..).zip(&slots).filter(|(_, slot)| slot.is_free());
            let free = free.fold(0, |bits: u8, (n, _)| bits | 1 << n);
            async move { Ok(Info { psm, free }.to_bytes()) }.boxed()
        }),
        ..CharacteristicRead::default()
    };
    Characteristic { uuid: INFO, read: Some(read), ..Characteristic::default() }
}

fn carrying(n: u8, of: &Arc<Slot>, arrived: &mpsc::Sender<Arrival>) -> Characteristic {
    let (of, arrived) = (Arc::clone(of), arrived.clone());
    let write = CharacteristicWrite {
        write_without_response: true,
        // A socket of its own would be shared by all centrals, without their addresses.
        method: CharacteristicWriteMethod::Fun(Box::new(move |fragment, request| {
            if let Some(carrier) = of.written(fragment, request.device_address, request.mtu) {
                let remote = request.device_address.to_string();
                if arrived.try_send(Arrival { carrier, medium: Medium::Gatt, remote }).is_err() {
                    tracing::debug!("too many centrals at once: one is dropped");
                }
            }
            async { Ok(()) }.boxed()
        })),
        ..CharacteristicWrite::default()
    };
    // Through a socket, because a D-Bus signal knows no backpressure.
    let notify = CharacteristicNotify {
        notify: true,
        method: CharacteristicNotifyMethod::Io,
        ..CharacteristicNotify::default()
    };
    Characteristic { uuid: slot(n), write: Some(write), notify: Some(notify), ..Characteristic::default() }
}

/// Keeps track of whether somebody has subscribed to a slot.
async fn follow(control: CharacteristicControl, slot: Arc<Slot>) {
    let mut control = std::pin::pin!(control);
    while let Some(event) = control.next().await {
        let CharacteristicControlEvent::Notify(writer) = event else { continue };
        let writer = Arc::new(writer);
        slot.lock().subscribed = Some(Arc::clone(&writer));
        let slot = Arc::clone(&slot);
        tokio::spawn(async move {
            drop(writer.closed().await);
            let mut used = slot.lock();
            if used.subscribed.as_ref().is_some_and(|current| Arc::ptr_eq(current, &writer)) {
                // Closes the carrier of whoever talked here.
                *used = Use::default();
            }
        });
    }
}

struct Notified(Arc<CharacteristicWriter>);

impl FragmentSink for Notified {
    fn send(&mut self, fragment: Bytes) -> BoxFuture<'_, Result<(), CarrierError>> {
        Box::pin(async move { self.0.send(&fragment).await.map_err(|error| CarrierError(error.to_string())) })
    }
}

fn refused(error: bluer::Error) -> PeripheralError {
    PeripheralError::Refused(error.to_string())
}

/// Centrals that have arrived and wait to be answered.
const ARRIVALS_MAX: usize = 8;
const POWER_TRIES: u32 = 20;
const POWER_PAUSE: Duration = Duration::from_millis(250);
