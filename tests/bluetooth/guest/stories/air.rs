//! A connection with both ends in this process, on both adapters, and what its carrier by itself
//! moves.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::future::BoxFuture;
use transport::{
    PeerKey,
    bluetooth::{
        BluezPeripheral, Carrier, CarrierError, Central, DiscoverySecret, Found, Fragment, FragmentSink, Medium,
        Opening, Peripheral, Tag, tag_period,
    },
};

use crate::stories::{PATIENCE, nodes::ADAPTERS, say};

/// What arrived, and in what time.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Spent {
    pub(crate) fn kib_s(&self) -> f64 {
        self.bytes as f64 / 1024.0 / self.time.as_secs_f64().max(0.001)
    }
}

/// Both ends of a connection.
pub(crate) struct Ends {
    pub(crate) near: Carrier,
    pub(crate) far: Carrier,
    pub(crate) peripheral: BluezPeripheral,
}

impl Ends {
    /// The central is on the first adapter.
    pub(crate) async fn meet(medium: Medium, pace_kib_s: f64) -> anyhow::Result<Self> {
        let mut tries = 0;
        loop {
            match Self::meet_once(medium, pace_kib_s).await {
                Ok(ends) => return Ok(ends),
                // A connection of before may be ending yet, and bluetoothd may end with it.
                Err(error) if tries < 5 => say(&format!("{medium}: {error:#}")),
                Err(error) => return Err(error),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn meet_once(medium: Medium, pace_kib_s: f64) -> anyhow::Result<Self> {
        let secret = DiscoverySecret([3; 32]);
        let tag = secret.tag(PeerKey::from_secret(&[2; 32])?, tag_period(SystemTime::now()));
        let mut peripheral = BluezPeripheral::start(ADAPTERS[1]).await?;
        let central = Central::open(Some(ADAPTERS[0])).await?;
        let (near, far) = connect(&central, &mut peripheral, tag, medium).await?;
        Ok(Self { near: paced(near, pace_kib_s), far: paced(far, pace_kib_s), peripheral })
    }

    /// So many bytes of fragments from the near end to the far one, and half as many back.
    pub(crate) async fn raw(&mut self, bytes: usize) -> anyhow::Result<[Spent; 2]> {
        Ok([
            one_way(&mut self.near, &mut self.far, bytes).await?,
            one_way(&mut self.far, &mut self.near, bytes / 2).await?,
        ])
    }
}

/// An emulated radio moves bytes as fast as the processor does, which would be measured, and not what
/// goes over a radio: both ends send at the pace of a real one.
fn paced(carrier: Carrier, kib_s: f64) -> Carrier {
    let outgoing = Paced { carrier: carrier.outgoing, kib_s, free_at: tokio::time::Instant::now() };
    Carrier { outgoing: Box::new(outgoing), ..carrier }
}

struct Paced {
    carrier: Box<dyn FragmentSink>,
    kib_s: f64,
    /// When what has been sent would have left a radio.
    free_at: tokio::time::Instant,
}

impl FragmentSink for Paced {
    fn send(&mut self, fragment: Bytes) -> BoxFuture<'_, Result<(), CarrierError>> {
        Box::pin(async move {
            tokio::time::sleep_until(self.free_at).await;
            let took = Duration::from_secs_f64(fragment.len() as f64 / (self.kib_s * 1024.0));
            // Waking up late costs nothing, being idle is not saved up.
            self.free_at = self.free_at.max(tokio::time::Instant::now() - LATE_MAX) + took;
            self.carrier.send(fragment).await
        })
    }
}

const LATE_MAX: Duration = Duration::from_millis(100);
/// A busy machine lets a fragment wait for seconds.
const QUIET_MAX: Duration = Duration::from_secs(15);

/// A connection, and both its ends.
async fn connect(
    central: &Central,
    peripheral: &mut BluezPeripheral,
    tag: Tag,
    medium: Medium,
) -> anyhow::Result<(Carrier, Carrier)> {
    let began = Instant::now();
    let found = find(central, peripheral, tag).await?;
    let discovery = began.elapsed();
    let mut connected = central.connect(&found, medium == Medium::L2cap).await?;
    if connected.medium != medium {
        bail!("{} was chosen instead of {medium}", connected.medium);
    }
    say(&format!(
        "{medium}: found in {} ms, connected in {} ms, service in {} ms, MTU {}, fragments of {} bytes",
        discovery.as_millis(),
        connected.connect.as_millis(),
        connected.discover.as_millis(),
        connected.mtu,
        connected.carrier.fragment_bytes_max
    ));
    // A slot is given to whoever opens an exchange.
    let opening = Opening { nonce: 1, fragment_bytes_max: 508, credit: 64, tag };
    let opening: Bytes = Fragment::Open(opening).to_bytes().into();
    if medium == Medium::Gatt {
        connected.carrier.outgoing.send(opening.clone()).await?;
    }
    let arrival = tokio::time::timeout(PATIENCE, peripheral.arrival()).await.context("nobody arrived")?;
    let mut far = arrival.context("the peripheral ended")?.carrier;
    if medium == Medium::Gatt {
        far.incoming.recv().await.context("no opening")?;
    }
    Ok((connected.carrier, far))
}

async fn find(central: &Central, peripheral: &mut BluezPeripheral, tag: Tag) -> anyhow::Result<Found> {
    let mut searching = std::pin::pin!(async {
        loop {
            if let Some(found) = central.scan(Duration::from_secs(4), |_, shown| shown == tag).await? {
                return anyhow::Ok(found);
            }
        }
    });
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        // btvirt reports an advertisement once, when it is begun or when a search is.
        peripheral.advertise(tag).await?;
        tokio::select! {
            found = &mut searching => return found,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    bail!("the peripheral was not found")
}

/// Fragments as fast as the carrier takes them; what arrived, by the time of the last.
async fn one_way(from: &mut Carrier, to: &mut Carrier, bytes: usize) -> anyhow::Result<Spent> {
    let fragment_bytes = from.fragment_bytes_max.min(to.fragment_bytes_max);
    let all = bytes / fragment_bytes * fragment_bytes;
    let began = Instant::now();
    let receiving = async {
        let (mut arrived, mut last) = (0_usize, Instant::now());
        while arrived < all {
            match tokio::time::timeout(QUIET_MAX, to.incoming.recv()).await {
                Ok(Some(fragment)) => (arrived, last) = (arrived + fragment.len(), Instant::now()),
                Ok(None) | Err(_) => break,
            }
        }
        anyhow::Ok((arrived, last))
    };
    let sending = async {
        let fragment = Bytes::from(vec![0x55; fragment_bytes]);
        for _ in 0..all / fragment_bytes {
            from.outgoing.send(fragment.clone()).await?;
        }
        anyhow::Ok(())
    };
    let ((arrived, last), ()) = tokio::try_join!(receiving, sending)?;
    if arrived < all {
        say(&format!("of {all} raw bytes {arrived} arrived"));
    }
    if arrived < all / 2 {
        bail!("only {arrived} of {all} bytes arrived");
    }
    Ok(Spent { bytes: arrived as u64, time: last - began })
}
