//! What the carriers themselves can do, and what a link makes of it, in one process on both
//! adapters.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
use transport::{
    Limits, LinkIds, PeerKey,
    bluetooth::{
        BluezPeripheral, Carrier, Central, DiscoverySecret, ExchangeTimes, Found, Fragment, HostLinkConfig, Opening,
        Peripheral, Tag, host_link, tag_period,
    },
};

use crate::stories::{Figures, PATIENCE, nodes::ADAPTERS, say};

pub(crate) use transport::bluetooth::Medium;

/// Moved each way, raw and through a link. A few seconds of a slow link.
const BYTES: usize = 128 * 1024;
/// In turns, because the machine below is shared.
const ROUNDS: usize = 3;

pub(crate) async fn measure(medium: Medium, figures: &mut Figures) -> anyhow::Result<()> {
    let secret = DiscoverySecret([3; 32]);
    let tag = secret.tag(PeerKey::from_secret(&[2; 32])?, tag_period(SystemTime::now()));
    let mut peripheral = BluezPeripheral::start(ADAPTERS[1]).await?;
    peripheral.advertise(tag).await?;
    let central = Central::open(Some(ADAPTERS[0])).await?;

    let mut tries = 0;
    let (mut near, mut far) = loop {
        // A connection of the story before may be ending yet.
        match connect(&central, &mut peripheral, tag, medium).await {
            Ok(connected) => break connected,
            Err(error) if tries < 3 => say(&format!("{medium}: {error:#}")),
            Err(error) => return Err(error),
        }
        tries += 1;
    };
    let (mut raw, mut raw_back) = (Spent::default(), Spent::default());
    for _ in 0..ROUNDS {
        raw.add(raw_rate(&mut near, &mut far).await?);
        raw_back.add(raw_rate(&mut far, &mut near).await?);
    }
    let (raw, raw_back) = (raw.rate(), raw_back.rate());
    let (link, link_back) = link_rates(near, far).await?;
    say(&format!(
        "{medium}: raw {raw:.1} and back {raw_back:.1} KiB/s; a link {link:.1} ({:.0} %) and back {link_back:.1} ({:.0} %)",
        link / raw * 100.0,
        link_back / raw_back * 100.0
    ));
    let names = match medium {
        Medium::Gatt => ["raw_gatt_up", "raw_gatt_down", "link_gatt_up", "link_gatt_down"],
        Medium::L2cap => ["raw_l2cap_up", "raw_l2cap_down", "link_l2cap_up", "link_l2cap_down"],
    };
    if medium == Medium::L2cap {
        // What the sessions ran on.
        figures.note("raw_kib_s", (raw + raw_back) / 2.0);
    }
    for (name, value) in names.into_iter().zip([raw, raw_back, link, link_back]) {
        figures.note(name, value);
    }
    Ok(())
}

/// A connection, and both its ends.
async fn connect(
    central: &Central,
    peripheral: &mut BluezPeripheral,
    tag: Tag,
    medium: Medium,
) -> anyhow::Result<(Carrier, Carrier)> {
    let mut tries = 0;
    let (discovery, mut connected) = loop {
        let began = Instant::now();
        let found = find(central, peripheral, tag).await?;
        let discovery = began.elapsed();
        match central.connect(&found, medium == Medium::L2cap).await {
            Ok(connected) => break (discovery, connected),
            Err(error) if tries < 3 => say(&format!("{medium}: {error}")),
            Err(error) => return Err(error.into()),
        }
        tries += 1;
    };
    if connected.medium != medium {
        bail!("{} was chosen instead of {medium}", connected.medium);
    }
    say(&format!(
        "{medium}: found in {} ms, connected in {} ms, service in {} ms, fragments of {} bytes",
        discovery.as_millis(),
        connected.connect.as_millis(),
        connected.discover.as_millis(),
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
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        // btvirt reports an advertisement once, when it is begun or when a search is.
        peripheral.advertise(tag).await?;
        if let Some(found) = central.scan(Duration::from_secs(2), |_, shown| shown == tag).await? {
            return Ok(found);
        }
    }
    bail!("the peripheral was not found")
}

/// Fragments as fast as the carrier takes them; what arrived, by the time of the last.
async fn raw_rate(from: &mut Carrier, to: &mut Carrier) -> anyhow::Result<(usize, Duration)> {
    let bytes = from.fragment_bytes_max.min(to.fragment_bytes_max);
    let fragments = BYTES / bytes;
    let began = Instant::now();
    let receiving = async {
        let (mut arrived, mut last) = (0_usize, Instant::now());
        while arrived < fragments * bytes {
            match tokio::time::timeout(Duration::from_secs(3), to.incoming.recv()).await {
                Ok(Some(fragment)) => (arrived, last) = (arrived + fragment.len(), Instant::now()),
                Ok(None) | Err(_) => break,
            }
        }
        anyhow::Ok((arrived, last))
    };
    let sending = async {
        let fragment = Bytes::from(vec![0x55; bytes]);
        for _ in 0..fragments {
            from.outgoing.send(fragment.clone()).await?;
        }
        anyhow::Ok(())
    };
    let ((arrived, last), ()) = tokio::try_join!(receiving, sending)?;
    if arrived < fragments * bytes {
        say(&format!("of {} raw bytes {arrived} arrived", fragments * bytes));
    }
    if arrived < BYTES / 2 {
        bail!("only {arrived} of {BYTES} bytes arrived");
    }
    Ok((arrived, last - began))
}

/// Bytes, and how long they took.
#[derive(Default)]
struct Spent(usize, Duration);

impl Spent {
    fn add(&mut self, (bytes, time): (usize, Duration)) {
        self.0 += bytes;
        self.1 += time;
    }

    fn rate(&self) -> f64 {
        rate(self.0, self.1)
    }
}

/// The same amount through a link, with proved keys, each way.
async fn link_rates(near: Carrier, far: Carrier) -> anyhow::Result<(f64, f64)> {
    let config = |secret: u8, dialled| HostLinkConfig {
        secret_key: [secret; 32],
        dialled,
        nonce: 2,
        remote: "the other adapter".to_owned(),
        times: ExchangeTimes::default(),
        limits: Limits::default(),
        link_ids: LinkIds::default(),
    };
    let (near, far) = tokio::join!(host_link(config(1, true), near), host_link(config(2, false), far));
    let (mut near, mut far) = (near?, far?);
    near.frames_in.raise_limit();
    far.frames_in.raise_limit();
    let (mut up, mut down) = (Spent::default(), Spent::default());
    for _ in 0..ROUNDS {
        up.add(one_way(&mut near.frames_out, &mut far.frames_in).await?);
        down.add(one_way(&mut far.frames_out, &mut near.frames_in).await?);
    }
    Ok((up.rate(), down.rate()))
}

async fn one_way(
    to: &mut transport::FrameSender,
    from: &mut transport::FrameReceiver,
) -> anyhow::Result<(usize, Duration)> {
    let frames: Vec<Bytes> = (0..BYTES / 4096).map(|n| Bytes::from(vec![n as u8; 4096])).collect();
    let began = Instant::now();
    let sending = async {
        for frame in &frames {
            to.send(frame.clone()).await?;
        }
        anyhow::Ok(())
    };
    let receiving = async {
        for frame in &frames {
            let arrived = from.next().await.context("the link ended")??;
            anyhow::ensure!(arrived == *frame, "a frame is not what was sent");
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok((BYTES, began.elapsed()))
}

pub(crate) fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1024.0 / time.as_secs_f64().max(0.001)
}
