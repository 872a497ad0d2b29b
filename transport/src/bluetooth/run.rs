//! The running transport: one task searches and connects, one answers whoever connects, and both
//! hand their links over through one door.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Arrival, BluetoothConfig, BluetoothEvent, Carrier, Central, Medium, Peripheral, Tag,
    central::Found,
    drive::now,
    pairs::{NewLink, Pairs, Verdict},
    secure::{self, Greeting, Proved, SecureError},
    tag::tag_period,
};
use crate::{Link, LinkError, LinkKind, PeerKey, frame::LinkControl};

/// What the tasks share.
pub(super) struct Shared {
    pub(super) config: BluetoothConfig,
    pub(super) ours: PeerKey,
    pub(super) pairs: Mutex<Pairs>,
    pub(super) events: mpsc::Sender<BluetoothEvent>,
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Shared {
    pub(super) fn pairs(&self) -> MutexGuard<'_, Pairs> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tag(&self) -> Tag {
        self.config.discovery_secret.tag(self.ours, tag_period(SystemTime::now()))
    }

    fn greeting(&self) -> Greeting {
        Greeting {
            secret_key: self.config.secret_key,
            tag: self.tag(),
            times: self.config.times.clone(),
            limits: self.config.limits.clone(),
            kind: LinkKind::Bluetooth,
        }
    }

    async fn tell(&self, event: BluetoothEvent) {
        if self.events.send(event).await.is_err() {
            self.stopping.cancel();
        }
    }
}

/// Searches and connects until the transport stops or the adapter is gone.
pub(super) async fn seek(shared: Arc<Shared>, central: Central) {
    let mut failures = 0;
    while !shared.stopping.is_cancelled() {
        let budget = &shared.config.budget;
        if !shared.pairs().has_room() {
            pause(&shared, budget.pause).await;
            continue;
        }
        let began = now();
        let (ours, period) = (shared.tag(), tag_period(SystemTime::now()));
        let mut strangers = HashSet::new();
        let wanted = |remote: &str, theirs: Tag| {
            if !shared.config.discovery_secret.recognises(theirs, period) {
                if strangers.len() < STRANGERS_COUNTED_MAX {
                    strangers.insert(theirs);
                }
                return false;
            }
            shared.pairs().wants(remote, theirs, ours, now())
        };
        let scanned = tokio::select! {
            scanned = central.scan(budget.scan, wanted) => scanned,
            () = shared.stopping.cancelled() => return,
        };
        match scanned {
            Ok(Some(found)) => {
                failures = 0;
                tracing::debug!(remote = found.remote, found_ms = since_ms(began), "a device of this business is near");
                connect(&shared, &central, found).await;
                continue;
            }
            Ok(None) => {
                failures = 0;
                tracing::debug!(strangers = strangers.len(), "searched");
            }
            Err(error) if failures < SCAN_FAILURES_MAX => {
                tracing::debug!(%error, "searching failed");
                failures += 1;
            }
            Err(error) => {
                shared.tell(BluetoothEvent::Ended { reason: error.to_string() }).await;
                return;
            }
        }
        pause(&shared, budget.pause).await;
    }
}

async fn pause(shared: &Shared, how_long: Duration) {
    tokio::select! {
        () = tokio::time::sleep(how_long) => {}
        () = shared.stopping.cancelled() => {}
    }
}

/// One device at a time, as controllers can't do more; the handshake goes on beside.
async fn connect(shared: &Arc<Shared>, central: &Central, found: Found) {
    shared.pairs().begins();
    match central.connect(&found, shared.config.l2cap).await {
        Ok(connected) => {
            tracing::info!(
                remote = found.remote,
                medium = %connected.medium,
                mtu = connected.mtu,
                fragment_bytes = connected.carrier.fragment_bytes_max,
                connect_ms = ms(connected.connect),
                discover_ms = ms(connected.discover),
                "connected over Bluetooth"
            );
            let (shared_there, remote) = (Arc::clone(shared), found.remote);
            let (carrier, medium) = (connected.carrier, connected.medium);
            shared.tasks.spawn(async move {
                let greeting = shared_there.greeting();
                let proving = secure::dial(carrier, nonce(), found.tag, &greeting);
                finish(&shared_there, proving, &remote, medium, greeting.tag).await;
            });
        }
        Err(error) => {
            tracing::debug!(remote = found.remote, %error, "no connection");
            let mut pairs = shared.pairs();
            pairs.failed(&found.remote, now());
            pairs.ends();
        }
    }
}

/// Shows the tag of the hour and answers centrals, until the transport or the peripheral stops.
pub(super) async fn answer(shared: Arc<Shared>, mut peripheral: Box<dyn Peripheral>) {
    let mut shown = None;
    let mut failures = 0;
    loop {
        let tag = shared.tag();
        if shown != Some(tag) {
            match peripheral.advertise(tag).await {
                Ok(()) => {
                    (shown, failures) = (Some(tag), 0);
                    tracing::debug!(?tag, "advertising");
                }
                Err(error) if failures < SCAN_FAILURES_MAX => {
                    tracing::debug!(%error, "advertising failed");
                    failures += 1;
                }
                Err(error) => {
                    shared.tell(BluetoothEvent::Ended { reason: error.to_string() }).await;
                    return;
                }
            }
        }
        let arrival = tokio::select! {
            arrival = peripheral.arrival() => arrival,
            () = tokio::time::sleep(shared.config.budget.scan + shared.config.budget.pause) => {
                // Some controllers stop showing themselves when they were connected, and say nothing.
                if !shared.pairs().has_links() {
                    shown = None;
                }
                continue;
            }
            () = shared.stopping.cancelled() => return,
        };
        let Some(arrival) = arrival else {
            shared.tell(BluetoothEvent::Ended { reason: "the peripheral side ended".to_owned() }).await;
            return;
        };
        take_in(&shared, arrival);
    }
}

fn take_in(shared: &Arc<Shared>, arrival: Arrival) {
    let Arrival { carrier, medium, remote } = arrival;
    let room = {
        let mut pairs = shared.pairs();
        let room = pairs.has_room();
        if room {
            pairs.begins();
        }
        room
    };
    let there = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let greeting = there.greeting();
        if room {
            finish(&there, secure::answer(carrier, &greeting), &remote, medium, greeting.tag).await;
        } else {
            turn_away(carrier, &greeting, &remote).await;
        }
    });
}

async fn turn_away(carrier: Carrier, greeting: &Greeting, remote: &str) {
    match secure::turn_away(carrier, greeting).await {
        Ok(()) => tracing::debug!(remote, "turned away: there are as many links as are kept"),
        Err(error) => tracing::debug!(remote, %error, "a central went away by itself"),
    }
}

/// Makes a link of a handshake's outcome, if it is wanted.
async fn finish(
    shared: &Arc<Shared>,
    proving: impl Future<Output = Result<Proved, SecureError>>,
    remote: &str,
    medium: Medium,
    ours: Tag,
) {
    let proving = async {
        tokio::select! {
            proved = proving => Some(proved),
            () = shared.stopping.cancelled() => None,
        }
    };
    let Some((link, replaced)) = settle(shared, proving.await, remote, medium, ours) else { return };
    // Ending a link calls back, which takes the lock: it is free again.
    if let Some(replaced) = replaced {
        replaced.cut(LinkError::Replaced);
    }
    shared.tell(BluetoothEvent::Link(link)).await;
}

fn settle(
    shared: &Arc<Shared>,
    outcome: Option<Result<Proved, SecureError>>,
    remote: &str,
    medium: Medium,
    ours: Tag,
) -> Option<(Link, Option<LinkControl>)> {
    let mut pairs = shared.pairs();
    pairs.ends();
    let proved = match outcome? {
        Ok(proved) => proved,
        Err(error) => {
            tracing::debug!(remote, %error, "no link came of a connection");
            pairs.failed(remote, now());
            return None;
        }
    };
    let (peer, dialled) = (proved.peer, proved.dialled);
    if let Verdict::Leave(why) = pairs.proved(peer, proved.tag, ours, dialled, now()) {
        tracing::debug!(%peer, why, "a link is not wanted");
        return None;
    }
    let id = shared.config.link_ids.next();
    let there = Arc::downgrade(shared);
    let on_over = move |_failed| {
        if let Some(shared) = there.upgrade() {
            shared.pairs().over(peer, id, now());
        }
    };
    let (link, control) = proved.link(id, format!("{medium}/{remote}"), Box::new(on_over));
    let replaced = pairs.linked(NewLink { peer, id, control, dialled, remote: remote.to_owned() }, now());
    Some((link, replaced))
}

fn since_ms(began: std::time::Instant) -> u64 {
    ms(now().saturating_duration_since(began))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Tells this exchange from one before it on the same connection; no secret.
fn nonce() -> u32 {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    u32::try_from(random >> 32).unwrap_or(0)
}

/// A crowded street is not counted to its end.
const STRANGERS_COUNTED_MAX: usize = 256;
/// Searches that may fail in a row: an adapter that is switched off and on is not given up.
const SCAN_FAILURES_MAX: u32 = 5;
