//! The one task that owns every attempt: it alone writes their rows, so each is compared and
//! set in turn. Calls to providers run beside it and report back.

mod arrivals;
mod asked;
mod calls;
mod handover;
mod listing;
mod outcomes;
mod pauses;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crdt_model::books::IntentState;
use crdt_model::document::DocumentId;
use crdt_model::ids::RecordId;
use crdt_model::payment::{Attempt, AttemptEvent, AttemptState};
use crdt_model::record::{Kind, Ledger, Stage};
use crdt_model::shop::Change;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::booking::progress_fact;
use super::callbacks::confirmation_path;
use super::coverage::{Coverage, EpochBegan};
use super::rows::{self, Arrival, AttemptsError};
use super::standing::{self, Standing, View};
use super::{Clock, RelayConfig, RelayStatus, Waiting};
use crate::payments::{Cash, NotReady, PaymentProvider, PushOutcome, QueryOutcome};
use crate::shop_handle::{ShopHandle, Stopped};
use listing::{List, References};
use outcomes::{Ration, Watched};
use pauses::Pauses;
use status::StatusAsk;

/// Pushes under way at once: a customer takes seconds, and the provider's rates are unpublished.
const PUSHES_MAX: usize = 8;
/// Longer than any call may take, so that a lease never ends while its call is under way.
const LEASE_MS: u64 = 10 * 60 * 1000;
/// How many intents are looked at before news is heard again.
const LOOKS_MAX: usize = 64;
/// How long a provider that can't be reached is left alone.
const AWAY_PAUSE: Duration = Duration::from_secs(5);

/// Whatever is older than the provider's list reaches, with a day to spare, is watched only if open.
const RECENT_MS: u64 = 72 * 3_600_000;

const MPESA: &str = "mpesa";
const CASH: &str = "cash";

/// The payment engine.
pub(super) struct Engine {
    shop: ShopHandle,
    mpesa: Option<Arc<dyn PaymentProvider>>,
    cash: Arc<dyn PaymentProvider>,
    others: BTreeMap<String, Arc<dyn PaymentProvider>>,
    config: RelayConfig,
    clock: Clock,
    token_key: [u8; 32],
    publish: watch::Sender<RelayStatus>,
    changes: broadcast::Receiver<Change>,
    standing: Option<Standing>,
    ledger: Ledger,
    due: VecDeque<RecordId>,
    listed: BTreeSet<RecordId>,
    waiting: BTreeMap<RecordId, Waiting>,
    /// Intents whose provider is being called, or made ready to be.
    asking: BTreeMap<RecordId, tokio::task::Id>,
    calls: JoinSet<Report>,
    /// Until when M-PESA is left alone, and why.
    away: Option<(Instant, String)>,
    /// Callbacks of intents that have not arrived here.
    unattributed: BTreeSet<Arrival>,
    /// When something new last came.
    news: Instant,
    check_at: Instant,
    /// Attempts whose outcome is still to be learnt.
    watched: BTreeMap<(RecordId, u32), Watched>,
    ration: Ration,
    /// Queries under way.
    queries: usize,
    references: References,
    coverage: Coverage,
    /// When this epoch began, in milliseconds since 1970 UTC.
    began_ms: u64,
    mail_at: Instant,
    pull_at: Instant,
    pulling: bool,
    pauses: Pauses,
    /// Reversals that were asked for and have no result.
    reversing: BTreeSet<RecordId>,
    is_registered: bool,
    registering: bool,
    /// Receipt numbers about which the provider is to be asked, by what asks.
    statuses: BTreeMap<RecordId, StatusAsk>,
    asking_status: bool,
    /// The provider does not answer such questions, as it said.
    tells_no_status: bool,
}

/// What a call beside the engine comes back with.
enum Report {
    Prepared { intent: RecordId, result: Result<(), NotReady> },
    Answered { intent: RecordId, number: u32, outcome: PushOutcome },
    Queried { intent: RecordId, number: u32, outcome: QueryOutcome },
    Pulled(List),
    Reversed { proposal: RecordId, outcome: PushOutcome },
    Registered(Result<(), String>),
    StatusAsked(PushOutcome),
}

impl Engine {
    pub(super) fn new(
        shop: ShopHandle,
        mpesa: Option<Arc<dyn PaymentProvider>>,
        others: BTreeMap<String, Arc<dyn PaymentProvider>>,
        config: RelayConfig,
        clock: Clock,
        token_key: [u8; 32],
        publish: watch::Sender<RelayStatus>,
    ) -> Self {
        let ledger = publish.borrow().ledger;
        let ration = Ration::a_minute(config.queries_a_minute);
        Self {
            changes: shop.changes(),
            shop,
            mpesa,
            cash: Arc::new(Cash),
            others,
            config,
            clock,
            token_key,
            publish,
            standing: None,
            ledger,
            due: VecDeque::new(),
            listed: BTreeSet::new(),
            waiting: BTreeMap::new(),
            asking: BTreeMap::new(),
            calls: JoinSet::new(),
            away: None,
            unattributed: BTreeSet::new(),
            news: Instant::now(),
            check_at: Instant::now(),
            watched: BTreeMap::new(),
            ration,
            queries: 0,
            references: References::default(),
            coverage: Coverage::default(),
            began_ms: 0,
            mail_at: Instant::now(),
            pull_at: Instant::now(),
            pulling: false,
            pauses: Pauses::default(),
            reversing: BTreeSet::new(),
            is_registered: false,
            registering: false,
            statuses: BTreeMap::new(),
            asking_status: false,
            tells_no_status: false,
        }
    }

    /// Calls that a crash cut off may have been made: they become unknown, in every epoch of
    /// this relay. What is still to be learnt is watched from the start.
    pub(super) async fn recover(&mut self) -> Result<(), Stopped> {
        self.learn_references().await?;
        self.coverage = Coverage::load(self.shop.reader().as_ref()).unwrap_or_else(|error| {
            tracing::error!(%error, "how far the provider's list was read can't be told: it is read from its start");
            Coverage::default()
        });
        self.note_epoch().await?;
        let relay = self.ledger.relay;
        let recent_ms = (self.clock)().0.saturating_sub(RECENT_MS);
        let unsettled = self.shop.ask(move |shop| {
            let books = shop.books();
            let ours = books.list(Kind::Intent, None).filter(|intent| {
                let open = books.intent_state(intent.id) == Some(IntentState::Open);
                (open || intent.time.wall().0 >= recent_ms)
                    && books.payment(intent.id).is_some_and(|payment| payment.voices.contains(&relay))
            });
            ours.map(|intent| intent.id).collect::<Vec<_>>()
        });
        for intent in unsettled.await? {
            // One damaged row must not keep every other payment waiting.
            match self.attempts(intent).await? {
                Ok(attempts) => attempts.iter().for_each(|attempt| self.watch(attempt)),
                Err(error) => tracing::error!(%intent, %error, "a payment is not pushed"),
            }
        }
        self.take_mail().await?;
        self.hear_people().await
    }

    async fn note_epoch(&mut self) -> Result<(), Stopped> {
        let now_ms = (self.clock)().0;
        match EpochBegan::load(self.shop.reader().as_ref(), self.ledger.epoch, now_ms) {
            Ok((began, row)) => {
                self.began_ms = began.at_ms;
                super::booking::write(&self.shop, row.into_iter().collect()).await
            }
            Err(error) => {
                tracing::error!(%error, "when this epoch began can't be told: it is taken to begin now");
                self.began_ms = now_ms;
                Ok(())
            }
        }
    }

    /// Runs until it is told to stop, or the shop ends.
    pub(super) async fn run(mut self, arrived: Arc<Notify>, mut stop: watch::Receiver<bool>) {
        // What was left from before this start is looked at first.
        arrived.notify_one();
        loop {
            let turn = !self.due.is_empty() && self.asking.len() < PUSHES_MAX;
            let wake_at = self.wake_at();
            let done = tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => {
                    if self.finish(&arrived).await.is_ok() {
                        return;
                    }
                    Err(Stopped)
                }
                () = arrived.notified() => self.take_arrivals().await,
                Some(report) = self.calls.join_next_with_id() => self.reported(report.map(|(_, report)| report)).await,
                change = self.changes.recv() => self.changed(change).await,
                () = tokio::time::sleep_until(wake_at) => self.wake().await,
                () = std::future::ready(()), if turn => Ok(()),
            };
            let done = match done {
                Ok(()) => self.take_turns().await,
                stopped => stopped,
            };
            if done.is_err() {
                tracing::error!("the relay's shop has stopped: see the log above, and start the relay again");
                return;
            }
        }
    }

    /// Pushes nothing more; answers that are due are still taken.
    async fn finish(&mut self, arrived: &Notify) -> Result<(), Stopped> {
        let until = Instant::now() + self.config.stop_grace;
        while !self.calls.is_empty() {
            tokio::select! {
                Some(report) = self.calls.join_next_with_id() => match report {
                    Ok((_, Report::Prepared { intent, .. })) => drop(self.asking.remove(&intent)),
                    report => self.reported(report.map(|(_, report)| report)).await?,
                },
                () = arrived.notified() => self.process_callbacks().await?,
                () = tokio::time::sleep_until(until) => {
                    let calls = self.calls.len();
                    tracing::warn!(calls, "answers are not waited for any longer: their payments are unknown");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn wake_at(&self) -> Instant {
        let check_at = self.away.as_ref().map_or(self.check_at, |(until, _)| self.check_at.min(*until));
        let check_at = check_at.min(self.mail_at);
        let asks = self.query_at().into_iter().chain(self.status_at());
        asks.fold(check_at, Instant::min)
    }

    async fn wake(&mut self) -> Result<(), Stopped> {
        self.query_due().await?;
        self.ask_status_due().await?;
        if self.mail_at <= Instant::now() {
            self.mail_at = Instant::now() + self.config.mail_every;
            self.take_mail().await?;
        }
        let checks = self.away.as_ref().map_or(self.check_at, |(until, _)| self.check_at.min(*until));
        if checks <= Instant::now() { self.check().await } else { Ok(()) }
    }

    async fn take_arrivals(&mut self) -> Result<(), Stopped> {
        self.process_callbacks().await?;
        self.take_mail().await
    }

    async fn changed(&mut self, change: Result<Change, broadcast::error::RecvError>) -> Result<(), Stopped> {
        let asked = matches!(change, Ok(Change::Fact { kind: Kind::Payment, .. }) | Err(_));
        self.note_change(change);
        if asked { self.hear_people().await } else { Ok(()) }
    }

    fn note_change(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        let all = match change {
            Ok(Change::Fact { kind, record, device }) => {
                if device != self.ledger.relay {
                    self.heard();
                }
                if kind == Kind::Intent {
                    self.references.add(record);
                    self.list(record);
                }
                matches!(kind, Kind::IntentAddressed | Kind::IntentConfirmed)
            }
            Ok(Change::Document { document, .. }) => {
                self.heard();
                document == DocumentId::Settings
            }
            Ok(Change::Epoch { .. }) | Err(_) => true,
            Ok(Change::Peer { .. } | Change::Quarantined { .. }) => false,
        };
        if all {
            self.check_at = Instant::now();
        }
    }

    /// Something new came, and more may follow: who pays is claimed only after a while of quiet.
    fn heard(&mut self) {
        self.news = Instant::now();
        if self.standing == Some(Standing::Unclaimed) {
            self.check_at = self.check_at.min(self.news + self.config.claim_quiet);
        }
    }

    fn list(&mut self, intent: RecordId) {
        if self.listed.insert(intent) {
            self.due.push_back(intent);
        }
    }

    /// Looks at everything that is open.
    async fn check(&mut self) -> Result<(), Stopped> {
        self.check_at = Instant::now() + self.config.check_every;
        if self.away.as_ref().is_some_and(|(until, _)| *until <= Instant::now()) {
            self.away = None;
        }
        let mut view = View::ask(&self.shop).await?;
        let collects = self.config.mpesa.is_some() || !self.others.is_empty();
        if collects && view.may_claim() {
            let quiet_at = self.news + self.config.claim_quiet;
            let met = view.met_others || self.config.claim_quiet.is_zero();
            if quiet_at > Instant::now() {
                self.check_at = self.check_at.min(quiet_at);
            } else if met {
                let shortcode = self.config.mpesa.as_ref().map(|mpesa| mpesa.shortcode.as_str());
                standing::claim(&self.shop, view.ledger, shortcode).await?;
                view = View::ask(&self.shop).await?;
            }
        }
        self.stand(&view);
        let names: Vec<String> = self.others.keys().cloned().collect();
        if self.standing == Some(Standing::Paying) && !view.names_providers(&names) {
            standing::name_providers(&self.shop, &names).await?;
        }
        let ledger = view.ledger;
        let open = self.shop.ask(move |shop| shop.books().open_intents_for(&ledger).collect::<Vec<_>>()).await?;
        let still: BTreeSet<RecordId> = open.iter().copied().collect();
        self.waiting.retain(|intent, _| still.contains(intent));
        for intent in open {
            self.list(intent);
        }
        self.register();
        self.pull_if_due();
        self.review_old().await?;
        self.hand_over().await?;
        if self.unattributed.is_empty() { Ok(()) } else { self.process_callbacks().await }
    }

    /// Tells the provider where payments that nobody asked for are reported, once a start.
    fn register(&mut self) {
        if self.is_registered || self.registering || self.config.callbacks.is_none() {
            return;
        }
        let Some(provider) = self.mpesa.clone().filter(|_| self.collects()) else { return };
        self.registering = true;
        let path = confirmation_path(&self.token_key);
        self.calls.spawn(async move { Report::Registered(provider.register(&path).await) });
    }

    /// Whether the shop's account is this relay's to read, if only to reconcile it.
    fn collects(&self) -> bool {
        matches!(self.standing, Some(Standing::Paying | Standing::Frozen { .. }))
    }

    fn registered(&mut self, result: Result<(), String>) {
        self.registering = false;
        match result {
            Ok(()) => self.is_registered = true,
            Err(detail) => {
                tracing::warn!(%detail, "payments made by hand are not reported yet: it is tried again");
            }
        }
    }

    fn stand(&mut self, view: &View) {
        let standing = self.standing_in(view);
        if self.standing.as_ref() != Some(&standing) {
            standing::log(&standing);
        }
        self.ledger = view.ledger;
        self.standing = Some(standing);
    }

    fn standing_in(&self, view: &View) -> Standing {
        view.standing(self.config.mpesa.as_ref().map(|mpesa| mpesa.shortcode.as_str()))
    }

    /// Begins pushes while there is room.
    async fn take_turns(&mut self) -> Result<(), Stopped> {
        for _ in 0..LOOKS_MAX {
            if self.asking.len() >= PUSHES_MAX {
                break;
            }
            let Some(intent) = self.due.pop_front() else { break };
            self.listed.remove(&intent);
            self.consider(intent).await?;
        }
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let Some(standing) = &self.standing else { return };
        self.publish.send_if_modified(|status| {
            let (queued, asking) = (self.due.len(), self.asking.len());
            let same = (status.queued, status.asking, status.ledger) == (queued, asking, self.ledger)
                && status.standing == *standing
                && status.waiting == self.waiting;
            if same {
                return false;
            }
            *status = RelayStatus {
                ledger: self.ledger,
                standing: standing.clone(),
                waiting: self.waiting.clone(),
                queued,
                asking,
            };
            true
        });
    }

    fn provider(&self, name: &str) -> Option<Arc<dyn PaymentProvider>> {
        match name {
            MPESA => self.mpesa.clone(),
            CASH => Some(Arc::clone(&self.cash)),
            name => self.others.get(name).cloned(),
        }
    }

    /// An intent's attempts. A call that nobody waits for any more is unknown.
    async fn attempts(&self, intent: RecordId) -> Result<Result<Vec<Attempt>, AttemptsError>, Stopped> {
        let mut attempts = match rows::attempts(self.shop.reader().as_ref(), intent) {
            Ok(attempts) => attempts,
            Err(error) => return Ok(Err(error)),
        };
        if self.asking.contains_key(&intent) {
            return Ok(Ok(attempts));
        }
        for attempt in attempts.iter_mut().filter(|attempt| attempt.state() == AttemptState::Calling) {
            // Only this process can have held the lease, and it holds it no more.
            let at = (self.clock)().0.max(attempt.lease_until_ms().unwrap_or_default());
            if let Err(refused) = attempt.apply(&AttemptEvent::LeaseExpired, at) {
                tracing::error!(%intent, %refused, "a lease can't be ended");
                continue;
            }
            tracing::warn!(%intent, attempt = attempt.number(), "a call was cut off: whether it charged is unknown, and it is not made again");
            self.record(vec![progress_fact(attempt, Stage::Unknown)], vec![rows::put_attempt(attempt)]).await?;
        }
        Ok(Ok(attempts))
    }
}

/// A sender that is gone means the same as being told.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
