//! The carrier's loop: what is due is made durable as under way, sent, and what came of it is
//! recorded. One task; calls run beside it.

mod calls;
mod ended;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crdt_model::document::{DocumentId, FieldValue, field_key};
use crdt_model::ids::{DeviceId, RecordId};
use crdt_model::record::{AttemptAnchor, Fact, Kind, Role, UpstreamFact};
use crdt_model::shop::{Change, Identity, Operation, QueueConfig, UPSTREAM_RELAY};
use crdt_model::time::Timestamp;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::{Backoff, Breaker};
use super::client::UpstreamClient;
use super::config::UpstreamConfig;
use super::policy;
use super::runs::Run;
use super::schedule::{Job, Schedule};
use crate::queue::attempts::{self, Attempt, AttemptResult, ChainEnd};
use crate::queue::audit;
use crate::queue::figures::FigureBook;
use crate::queue::{Command, Desk, DeskError, OpRow, QueueStatus, Schedule as Explained};
use crate::shop_handle::{RecordError, ShopHandle};
use calls::Report;
use ended::Written;

pub(super) struct Engine {
    shop: ShopHandle,
    desk: Arc<Desk>,
    config: UpstreamConfig,
    client: UpstreamClient,
    device: DeviceId,
    role: Role,
    utc_offset_minutes: i32,
    commands: mpsc::Receiver<Command>,
    changes: broadcast::Receiver<Change>,
    /// Something may be new in the journals.
    dirty: bool,
    /// The settings may have changed.
    unlearnt: bool,
    queue: QueueConfig,
    named: Option<DeviceId>,
    claim_at: Instant,
    schedule: Schedule,
    breaker: Breaker,
    /// Until when nothing is sent, and why.
    paused: Option<(u64, &'static str, String)>,
    calls: JoinSet<Report>,
    chain: ChainEnd,
    figures: FigureBook,
    runs: Vec<Run>,
    entropy: u64,
    /// The day, and what was sent over a metered network in it.
    metered: (u64, u64),
    sync_at: Instant,
    /// How far the chain is anchored in the journal, and when that was done.
    anchored: (u64, u64),
    /// The calls of each operation's present turn, so that two sides that change all the time don't
    /// keep it for ever.
    turns: BTreeMap<RecordId, u32>,
    /// Operations that the network alone kept from being sent.
    cut_off: BTreeSet<RecordId>,
    /// The day on which old mappings were looked for.
    swept_on: u64,
}

/// The most operations of one status that are looked at.
const SCHEDULED_MAX: usize = 200_000;
/// How long to wait before knocking again where the carrier was not let in.
const CLOSED_MS: u64 = 60_000;
/// The most calls of a day that are counted again after a start: some every second.
const CALLS_A_DAY_MAX: usize = 200_000;
const BREAKER_BASE_FACTOR: u64 = 5;
/// How long after their operation's row mappings of clients' own ids are kept.
const MAPPINGS_KEPT_DAYS: u64 = 365;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long answers are waited for when the carrier is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn new(
        shop: ShopHandle,
        identity: &Identity,
        desk: Arc<Desk>,
        config: UpstreamConfig,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, super::StartError> {
        let client = UpstreamClient::new(&config)?;
        let mut seed = [0; 8];
        if let Err(error) = getrandom::fill(&mut seed) {
            // Only spreads retries: without chance they come together.
            tracing::debug!(%error, "no random number");
        }
        let backoff = Backoff {
            base_ms: config.backoff_base_ms.saturating_mul(BREAKER_BASE_FACTOR),
            cap_ms: config.backoff_cap_ms,
        };
        let claim_at = Instant::now() + Duration::from_millis(config.claim_quiet_ms);
        Ok(Self {
            changes: shop.changes(),
            shop,
            desk,
            client,
            device: identity.certificate.device,
            role: identity.certificate.role,
            utc_offset_minutes: identity.genesis.utc_offset_minutes,
            commands,
            dirty: true,
            unlearnt: true,
            queue: QueueConfig::default(),
            named: None,
            claim_at,
            schedule: Schedule::default(),
            breaker: Breaker::new(config.breaker_after, backoff),
            paused: None,
            calls: JoinSet::new(),
            chain: ChainEnd::default(),
            figures: FigureBook::new(identity.genesis.utc_offset_minutes),
            runs: Vec::new(),
            entropy: u64::from_le_bytes(seed) | 1,
            metered: (0, 0),
            sync_at: Instant::now(),
            anchored: (0, 0),
            turns: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            swept_on: 0,
            config,
        })
    }

    /// Calls that a crash cut off may have reached the server: they are in doubt, and made again
    /// under the same key.
    pub(super) async fn recover(&mut self) -> Result<(), DeskError> {
        self.desk.watch();
        self.desk.catch_up().await?;
        self.chain = ChainEnd::load(self.shop.reader().as_ref())?;
        if let Some((_, time, anchor)) = audit::anchors(&self.shop, 1).await?.first() {
            self.anchored = (anchor.through, time.wall().0);
        }
        self.metered = self.metered_today()?;
        let last = attempts::read_link(self.shop.reader().as_ref(), self.chain.number)?;
        // Until somebody says otherwise it is on the network that it was on.
        if let Some(network) = last.and_then(|linked| linked.attempt.network_type) {
            self.desk.hear_network(&network);
        }
        let mut rows = Vec::new();
        let mut cut: BTreeMap<RecordId, u32> = BTreeMap::new();
        for (id, call) in attempts::under_way(self.shop.reader().as_ref())? {
            tracing::warn!(operation = %id, "a call was cut off: the server may have taken it, so it is made again under the same key");
            let recorded = self.desk.row(id)?.and_then(|row| row.recorded);
            let attempt = Attempt {
                operation: id,
                number: call.number,
                at: call.at,
                duration_ms: now_ms().saturating_sub(call.at.0),
                result: AttemptResult::CutOff,
                http_status: None,
                class: None,
                code: Some("cut_off".to_owned()),
                detail: Some("the node ended before an answer came".to_owned()),
                bytes_sent: 0,
                bytes_received: 0,
                device: recorded.as_ref().map_or(self.device, |recorded| recorded.device),
                network_type: self.desk.network_type(),
                endpoint: call.endpoint,
                operation_type: recorded.map(|recorded| recorded.operation_type),
            };
            self.figures.note(self.shop.reader().as_ref(), &attempt)?;
            rows.extend(self.chain.add(attempt));
            rows.push(attempts::under_way_row(id, None));
            cut.insert(id, call.number);
        }
        rows.extend(self.figures.rows());
        let listed = self.desk.in_status(QueueStatus::Syncing, SCHEDULED_MAX)?.into_iter().map(|(id, _)| id);
        let listed: BTreeSet<RecordId> = listed.chain(cut.keys().copied()).collect();
        let changes = listed.into_iter().map(|id| {
            let number = cut.get(&id).copied();
            let change: crate::queue::RowChange = Box::new(move |row: &mut OpRow| {
                row.tries.calling = false;
                if let Some(number) = number {
                    row.tries.in_doubt = true;
                    row.tries.attempts = row.tries.attempts.max(number);
                }
            });
            (id, change)
        });
        self.desk.change(changes.collect(), rows).await?;
        self.learn().await?;
        for status in [QueueStatus::Pending, QueueStatus::Conflict, QueueStatus::Failed] {
            for (id, row) in self.desk.in_status(status, SCHEDULED_MAX)? {
                self.place(id, &row);
            }
        }
        Ok(())
    }

    /// Runs until it is told to stop, or the shop ends.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            if let Err(error) = self.turn().await {
                tracing::error!(%error, "the carrier has stopped: see the log above, and start it again");
                self.runs.drain(..).for_each(Run::end);
                return;
            }
            let wake_at = self.wake_at();
            let done = tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => break,
                Some(report) = self.calls.join_next() => self.ended_with_others(report.ok()).await,
                Some(command) = self.commands.recv() => self.heed(command).await,
                change = self.changes.recv() => {
                    self.note(change);
                    Ok(())
                }
                () = tokio::time::sleep_until(wake_at) => Ok(()),
            };
            if let Err(error) = done {
                tracing::error!(%error, "the carrier has stopped: see the log above, and start it again");
                self.runs.drain(..).for_each(Run::end);
                return;
            }
        }
        self.finish().await;
    }

    async fn finish(&mut self) {
        let until = Instant::now() + STOP_GRACE;
        while !self.calls.is_empty() {
            let ended = tokio::time::timeout_at(until, self.calls.join_next()).await;
            let Ok(Some(report)) = ended else {
                tracing::warn!(
                    calls = self.calls.len(),
                    "answers are not waited for any longer: these calls are in doubt"
                );
                break;
            };
            if let Err(error) = self.ended_with_others(report.ok()).await {
                tracing::warn!(%error, "an answer can't be recorded any more: its call is in doubt");
                break;
            }
        }
        self.runs.drain(..).for_each(Run::end);
    }

    async fn turn(&mut self) -> Result<(), DeskError> {
        self.desk.server_is(self.breaker.open_until_ms().is_some());
        if std::mem::take(&mut self.dirty) {
            self.refresh().await?;
        }
        self.claim().await?;
        self.anchor().await?;
        if self.sync_at <= Instant::now() {
            let interval = Duration::from_secs(self.queue.sync_interval_minutes.saturating_mul(60));
            self.sync_at = Instant::now() + interval.max(Duration::from_secs(60));
            self.expire().await?;
        }
        while self.write(Written::default()).await? {}
        if self.calls.is_empty() {
            // Nothing of them can be sent now.
            self.runs.drain(..).for_each(Run::end);
        } else {
            let (done, open): (Vec<_>, Vec<_>) = self.runs.drain(..).partition(Run::is_done);
            done.into_iter().for_each(Run::end);
            self.runs = open;
        }
        Ok(())
    }

    /// Whether one more may be sent, beside those that are about to be.
    fn may_send(&mut self, starting: usize) -> bool {
        let now = now_ms();
        let calls_max = if self.config.honours_key { self.config.calls_max } else { 1 };
        if self.paused.as_ref().is_some_and(|(until, ..)| *until <= now) {
            self.paused = None;
        }
        self.calls.len() + starting < calls_max
            && self.paused.is_none()
            && self.breaker.admits(now)
            && (!self.runs.is_empty() || (self.queue.auto_sync_enabled && self.not_now().is_none()))
    }

    fn not_now(&self) -> Option<policy::NotNow> {
        let network = self.desk.network_type();
        let today = if self.metered.0 == self.day_of(now_ms()) { self.metered.1 } else { 0 };
        let now = Timestamp(now_ms());
        policy::now_is_a_time(&self.queue, network.as_deref(), now, self.utc_offset_minutes, today).err()
    }

    fn wake_at(&self) -> Instant {
        let now = now_ms();
        let mut next = self.sync_at;
        if self.named.is_none() && self.role == Role::Relay {
            next = next.min(self.claim_at);
        }
        let at = |ms: u64| Instant::now() + Duration::from_millis(ms.saturating_sub(now));
        let gate = [
            self.paused.as_ref().map(|(until, ..)| *until),
            self.breaker.open_until_ms().filter(|_| self.calls.is_empty()),
            self.not_now().and_then(|not_now| not_now.until_ms),
        ];
        let closed = gate.into_iter().flatten().max().filter(|until| *until > now);
        match (closed, self.schedule.due_at_ms()) {
            (Some(until), Some(_)) => next.min(at(until)),
            (None, Some(due)) if due > now => next.min(at(due)),
            (None | Some(_), None | Some(_)) => next,
        }
    }

    fn note(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        self.hear(change);
        // One look is enough for all that came meanwhile.
        while let Ok(more) = self.changes.try_recv() {
            self.hear(Ok(more));
        }
        if self.named.is_none() {
            self.claim_at = Instant::now() + Duration::from_millis(self.config.claim_quiet_ms);
        }
    }

    fn hear(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        match change {
            // Its own word.
            Ok(Change::Fact { kind: Kind::Upstream, device, .. }) if device == self.device => {}
            Ok(Change::Fact { .. }) => self.dirty = true,
            Ok(Change::Document { document, .. }) => {
                self.dirty = true;
                self.unlearnt |= document == DocumentId::Settings;
            }
            Ok(Change::Epoch { .. }) | Err(_) => (self.dirty, self.unlearnt) = (true, true),
            // Who reaches another device has a network again, and the server may be reached too.
            Ok(Change::Peer { up: true, .. }) => self.network_is_back(),
            Ok(Change::Peer { up: false, .. } | Change::Quarantined { .. }) => {}
        }
    }

    /// What only the network kept back is tried at once.
    fn network_is_back(&mut self) {
        self.breaker.try_now(now_ms());
        self.hurry_what_was_cut_off();
    }

    async fn heed(&mut self, command: Command) -> Result<(), DeskError> {
        match command {
            Command::Look => (self.dirty, self.unlearnt) = (true, true),
            Command::NetworkIsBack => self.network_is_back(),
            Command::Explain(reply) => drop(reply.send(self.explained())),
            Command::Sync { only, reply } => {
                let mut reply = Some(reply);
                for run in &mut self.runs {
                    reply = reply.and_then(|reply| run.join(only, reply));
                }
                let Some(reply) = reply else { return Ok(()) };
                self.refresh().await?;
                let all: BTreeSet<RecordId> = self.schedule.sendable().collect();
                let wanted = match only {
                    Some(id) => all.into_iter().filter(|other| *other == id).collect(),
                    None => all,
                };
                self.schedule.hurry();
                self.breaker.try_now(now_ms());
                self.paused = None;
                self.runs.push(Run::new(only, wanted, reply));
            }
        }
        Ok(())
    }

    /// What it waits for, for people.
    fn explained(&mut self) -> Explained {
        let now = now_ms();
        let held = self.schedule.held() as u64;
        let calling = self.calls.len() as u64;
        let say = |waits_for, until_ms, detail: String| Explained { waits_for, until_ms, detail, calling, held };
        if self.named != Some(self.device) && self.role == Role::Relay {
            return say(
                "not_carrier",
                None,
                "the settings name another relay as upstream_relay, or none yet".to_owned(),
            );
        }
        if calling > 0 {
            return say("sending", None, format!("{calling} calls are under way"));
        }
        if let Some((until, reason, detail)) = &self.paused {
            return say(reason, Some(*until), detail.clone());
        }
        if let Some(until) = self.breaker.open_until_ms().filter(|until| *until > now) {
            let detail = "the server failed several times in a row, and is left alone for a while".to_owned();
            return say("server_away", Some(until), detail);
        }
        if self.schedule.due_at_ms().is_none() {
            return say("idle", None, "nothing is due".to_owned());
        }
        if !self.queue.auto_sync_enabled {
            return say("paused", None, "auto_sync_enabled is off: POST /api/offline/sync sends".to_owned());
        }
        if let Some(not_now) = self.not_now() {
            return say(not_now.reason, not_now.until_ms, not_now.detail);
        }
        let due = self.schedule.due_at_ms().filter(|due| *due > now);
        say("backing_off", due, "an operation was refused for now, and is tried again".to_owned())
    }

    async fn refresh(&mut self) -> Result<(), DeskError> {
        let named = self.named;
        if std::mem::take(&mut self.unlearnt) {
            self.learn().await?;
        }
        for id in self.desk.changed().await? {
            if let Some(row) = self.desk.row(id)? {
                self.place(id, &row);
            }
        }
        if named != self.named {
            for status in [QueueStatus::Pending, QueueStatus::Conflict, QueueStatus::Failed] {
                for (id, row) in self.desk.in_status(status, SCHEDULED_MAX)? {
                    self.place(id, &row);
                }
            }
        }
        Ok(())
    }

    async fn learn(&mut self) -> Result<(), DeskError> {
        let asked = self.shop.ask(|shop| (shop.queue_config(), shop.upstream_relay())).await?;
        (self.queue, self.named) = asked;
        self.desk.offline().learn(self.queue.clone());
        Ok(())
    }

    /// Takes an operation in as its row says, if it is this carrier's.
    fn place(&mut self, id: RecordId, row: &OpRow) {
        let Some(recorded) = &row.recorded else { return };
        let carrier = if recorded.carried_by_own { Some(recorded.device) } else { self.named };
        let held = match row.status() {
            Some(QueueStatus::Pending | QueueStatus::Syncing) => false,
            Some(QueueStatus::Conflict | QueueStatus::Failed) => true,
            Some(QueueStatus::Synced) | None => return self.schedule.remove(id),
        };
        if carrier != Some(self.device) {
            return self.schedule.remove(id);
        }
        let priority = recorded.priority.map_or_else(|| priority_of(&recorded.operation_type), |own| own.min(9));
        let job =
            Job { lane: recorded.lane, order: recorded.time.0, priority, not_before_ms: row.tries.not_before_ms, held };
        self.schedule.put(id, job);
    }

    /// Names this relay as the carrier, if nobody is named and nothing new has come for a while.
    async fn claim(&mut self) -> Result<(), DeskError> {
        if self.role != Role::Relay || self.named.is_some() || self.claim_at > Instant::now() {
            return Ok(());
        }
        self.claim_at = Instant::now() + Duration::from_secs(60);
        let free = self.shop.ask(|shop| {
            let key = field_key(DocumentId::settings_record(), UPSTREAM_RELAY);
            let disputed = shop.document(DocumentId::Settings).is_some_and(|settings| settings.conflicted(&key));
            shop.is_loaded() && !disputed
        });
        if !free.await? {
            return Ok(());
        }
        let value = FieldValue::Text(self.device.to_string());
        let edits = vec![QueueConfig::edit(UPSTREAM_RELAY, Some(value))];
        match self.shop.record(Operation { edits, ..Operation::default() }).await {
            Ok(_) => {
                self.unlearnt = true;
                tracing::info!("this relay named itself as the one that sends to the shop's server");
            }
            Err(RecordError::Stopped(stopped)) => return Err(stopped.into()),
            Err(error) => tracing::error!(%error, "this relay can't name itself: name it in the settings"),
        }
        self.refresh().await
    }

    /// Once a day the end of the chain of calls goes into the journal, which others hold.
    async fn anchor(&mut self) -> Result<(), DeskError> {
        let (through, at) = self.anchored;
        if self.chain.number <= through || (at > 0 && now_ms() < at.saturating_add(DAY_MS)) {
            return Ok(());
        }
        let anchor = AttemptAnchor { through: self.chain.number, head: self.chain.hash };
        self.anchored = (anchor.through, now_ms());
        let facts = vec![Fact::Upstream(UpstreamFact::Anchor(anchor))];
        self.shop.record(Operation { facts, ..Operation::default() }).await?;
        Ok(())
    }

    /// Rows of what was synced long ago go.
    async fn expire(&mut self) -> Result<(), DeskError> {
        let age = self.queue.synced_expire_days.saturating_mul(DAY_MS);
        let gone = self.desk.clean_up(Timestamp(now_ms().saturating_sub(age))).await?;
        if gone > 0 {
            tracing::debug!(gone, "rows of synced operations expired");
        }
        // Once a day: it looks at every mapping.
        let today = self.day_of(now_ms());
        if self.swept_on != today {
            self.swept_on = today;
            let before = Timestamp(now_ms().saturating_sub(age.saturating_add(MAPPINGS_KEPT_DAYS * DAY_MS)));
            self.desk.forget_mappings(before).await?;
        }
        Ok(())
    }

    /// The shop's own day, by its number.
    fn day_of(&self, ms: u64) -> u64 {
        let offset = i64::from(self.utc_offset_minutes) * 60_000;
        ms.saturating_add_signed(offset) / DAY_MS
    }

    /// What was sent over metered networks today, as the list of calls has it.
    fn metered_today(&self) -> Result<(u64, u64), DeskError> {
        let today = self.day_of(now_ms());
        let mut bytes = 0_u64;
        let newest = (1..=self.chain.number).rev().take(CALLS_A_DAY_MAX);
        for number in newest {
            let Some(linked) = attempts::read_link(self.shop.reader().as_ref(), number)? else { break };
            let call = linked.attempt;
            if self.day_of(call.at.0.saturating_add(call.duration_ms)) < today {
                break;
            }
            if policy::is_metered(call.network_type.as_deref()) {
                bytes = bytes.saturating_add(call.bytes_sent).saturating_add(call.bytes_received);
            }
        }
        Ok((today, bytes))
    }

    /// A number that need not be good, only different.
    fn chance(&mut self) -> u64 {
        self.entropy ^= self.entropy << 13;
        self.entropy ^= self.entropy >> 7;
        self.entropy ^= self.entropy << 17;
        self.entropy
    }
}

/// Payments before sales before the rest.
fn priority_of(operation_type: &str) -> u8 {
    match operation_type {
        "payment" => 0,
        "sale" => 1,
        _ => 2,
    }
}

fn now_ms() -> u64 {
    crate::clock::now().0
}

/// A sender that is gone means the same as being told.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
