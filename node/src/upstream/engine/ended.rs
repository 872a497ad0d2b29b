//! What a call came back with, and what follows: an outcome for everybody, another try, or
//! another call. Outcomes and the ends of their calls are one commit.

use std::collections::BTreeSet;

use crdt_model::ids::RecordId;
use crdt_model::record::{DeliveryOutcome, DeliveryState, ErrorClass, Fact, Strategy, UpstreamFact, VERSION_BYTES_MAX};
use crdt_model::shop::Operation;

use super::super::classify::{Against, Health, Verdict};
use super::super::policy::is_metered;
use super::super::request::{self, NotReady};
use super::super::resolve::{Instead, Step, by_rule};
use super::super::runs::Came;
use super::super::schedule::Left;
use super::calls::{Report, Starting, endpoint};
use super::{CLOSED_MS, Engine, now_ms};
use crate::queue::attempts::{Attempt, AttemptResult, under_way_row};
use crate::queue::{Decided, DeskError, OpRow, RowChange, Shown, TryError};
use crate::storage::RowWrite;

/// Calls for one operation in a row that its conflicts may cause.
const TURNS_MAX: u32 = 4;
/// Outcomes that one entry holds.
const TOGETHER_MAX: usize = 32;

/// What is to be written of some calls.
#[derive(Default)]
pub(in super::super) struct Written {
    facts: Vec<Fact>,
    rows: Vec<RowWrite>,
    /// Calls that ended, for the figures.
    attempts: Vec<Attempt>,
    changes: Vec<(RecordId, RowChange)>,
    came: Vec<(RecordId, Came)>,
    /// Other calls that follow at once.
    following: Vec<Starting>,
    /// Operations that the network alone keeps from being sent.
    cut_off: Vec<RecordId>,
}

impl Engine {
    /// A call has ended; what ended meanwhile is recorded with it.
    pub(super) async fn ended_with_others(&mut self, first: Option<Report>) -> Result<(), DeskError> {
        let mut reports: Vec<Report> = first.into_iter().collect();
        while reports.len() < TOGETHER_MAX
            && let Some(more) = self.calls.try_join_next()
        {
            reports.extend(more.ok());
        }
        let mut written = Written::default();
        for report in reports {
            self.weigh(report, &mut written);
        }
        self.write(written).await.map(drop)
    }

    /// Nothing has to be sent: a person said that the server is right.
    pub(super) fn synced_by_word(
        shown: &Shown,
        outcome: &DeliveryOutcome,
        decided: &Decided,
        strategy: Option<Strategy>,
        written: &mut Written,
    ) {
        let fact = DeliveryOutcome {
            ordinal: shown.row.next_ordinal(),
            state: DeliveryState::Synced,
            strategy,
            decided: Some(decided.key),
            class: None,
            code: None,
            detail: None,
            ..outcome.clone()
        };
        written.facts.push(outcome_fact(fact));
        written.came.push((shown.id, Came::Synced));
    }

    /// A decision could not be followed: the conflict is told again.
    pub(super) fn conflict_again(shown: &Shown, outcome: &DeliveryOutcome, decided: &Decided, written: &mut Written) {
        let fact = DeliveryOutcome {
            ordinal: shown.row.next_ordinal(),
            state: DeliveryState::Conflict,
            strategy: Some(Strategy::Manual),
            decided: Some(decided.key),
            detail: Some("that decision can't be followed here: decide otherwise".to_owned()),
            ..outcome.clone()
        };
        written.facts.push(outcome_fact(fact));
        written.came.push((shown.id, Came::Conflict));
    }

    /// It can't be sent at all.
    pub(super) fn refused_unsent(shown: &Shown, error: &TryError, written: &mut Written) {
        tracing::error!(operation = %shown.id, code = %error.code, detail = %error.detail, "an operation can't be sent");
        written.facts.push(outcome_fact(failed(shown, shown.row.tries.attempts, error)));
        written.came.push((shown.id, Came::Failed));
    }

    fn weigh(&mut self, report: Report, written: &mut Written) {
        let id = report.shown.id;
        let verdict = report.verdict.clone();
        match verdict {
            Verdict::Done { server_id, tag } => {
                self.server_is_up();
                let fact = self.done(&report, server_id, tag);
                self.log(&report, AttemptResult::Success, None, written);
                written.facts.push(outcome_fact(fact));
                written.came.push((id, Came::Synced));
            }
            Verdict::Refused(error) => {
                self.server_is_up();
                tracing::error!(operation = %id, code = %error.code, detail = %error.detail, "the server refuses an operation");
                self.log(&report, AttemptResult::Failed, Some(&error), written);
                written.facts.push(outcome_fact(failed(&report.shown, report.number, &error)));
                written.came.push((id, Came::Failed));
            }
            Verdict::Again { error, after_ms, counts, server } => {
                self.again(&report, error, after_ms, counts, server, written);
            }
            Verdict::Conflict(against) => {
                self.server_is_up();
                self.contradicted(report, against, written);
            }
        }
    }

    fn done(&mut self, report: &Report, server_id: Option<String>, tag: Option<String>) -> DeliveryOutcome {
        let shown = &report.shown;
        let maybe_twice = shown.row.tries.in_doubt && !self.config.honours_key;
        if maybe_twice {
            tracing::error!(operation = %shown.id, "it was sent again after a crash to a server that does not honour keys: look there for a second one");
        }
        DeliveryOutcome {
            server_id: server_id.or_else(|| shown.row.server_id().map(str::to_owned)),
            server_tag: tag,
            http_status: report.http_status,
            strategy: report.strategy,
            decided: report.decided.as_ref().map(|decided| decided.key).or_else(|| before(shown)?.decided),
            maybe_twice,
            ..outcome(shown, report.number, DeliveryState::Synced)
        }
    }

    fn again(
        &mut self,
        report: &Report,
        error: TryError,
        after_ms: Option<u64>,
        counts: bool,
        server: Health,
        written: &mut Written,
    ) {
        let (id, now) = (report.shown.id, now_ms());
        let entropy = self.chance();
        match server {
            Health::Up => self.server_is_up(),
            Health::Down => self.breaker.failed(now, entropy),
            Health::Closed => {
                self.breaker.nothing_learnt();
                tracing::error!(code = %error.code, detail = %error.detail, "the server does not let the carrier in: nothing is sent meanwhile");
                self.paused = Some((now + CLOSED_MS, "not_let_in", error.detail.clone()));
            }
            Health::Busy => {
                self.breaker.nothing_learnt();
                let until = now + after_ms.unwrap_or(self.config.backoff_base_ms);
                self.paused = Some((until, "rate_limited", error.detail.clone()));
            }
        }
        self.log(report, AttemptResult::Failed, Some(&error), written);
        let used = report.shown.row.tries.used + u32::from(counts);
        if u64::from(used) >= self.queue.max_retries {
            tracing::error!(operation = %id, tries = used, code = %error.code, "an operation failed: it is not tried again until somebody says so");
            written.facts.push(outcome_fact(failed(&report.shown, report.number, &error)));
            written.came.push((id, Came::Failed));
            return;
        }
        let backoff =
            super::super::backoff::Backoff { base_ms: self.config.backoff_base_ms, cap_ms: self.config.backoff_cap_ms };
        let pause = after_ms.unwrap_or_else(|| backoff.pause_ms(used.max(1), entropy));
        if error.class == ErrorClass::Network {
            written.cut_off.push(id);
        }
        let in_doubt = error.class == ErrorClass::Network && counts;
        let change: RowChange = Box::new(move |row: &mut OpRow| {
            row.tries.used = used;
            row.tries.not_before_ms = now + pause;
            row.tries.in_doubt |= in_doubt;
            row.tries.error = Some(error);
        });
        written.changes.push((id, change));
        written.came.push((id, Came::Failed));
    }

    /// The server has something else.
    fn contradicted(&mut self, report: Report, against: Against, written: &mut Written) {
        let id = report.shown.id;
        let own = match &report.shown.fact {
            Some(Fact::Custom(custom)) => custom.strategy,
            _ => None,
        };
        let operation_type = report.shown.row.recorded.as_ref().map(|recorded| recorded.operation_type.as_str());
        let strategy = own.unwrap_or_else(|| self.queue.strategy_for(operation_type.unwrap_or_default()));
        let turns = self.turns.get(&id).copied().unwrap_or_default();
        let step = by_rule(&report.prepared.sent, &against, strategy);
        let error = TryError {
            class: ErrorClass::Conflict,
            code: against.kind.word().to_owned(),
            detail: against.detail.clone(),
            http_status: Some(against.http_status),
        };
        match step {
            Step::Send(instead) if turns < TURNS_MAX => match self.following(&report, instead) {
                Ok(next) => {
                    self.log(&report, AttemptResult::Partial, Some(&error), written);
                    written.following.push(next);
                }
                Err(_) => self.hand_to_person(&report, &against, &error, BTreeSet::new(), written),
            },
            Step::Synced { strategy } => {
                self.log(&report, AttemptResult::Success, None, written);
                let fact = DeliveryOutcome {
                    server_id: against.server_id.clone(),
                    server_tag: against.tag.clone(),
                    http_status: Some(against.http_status),
                    conflict: strategy.is_some().then_some(against.kind),
                    strategy,
                    ..outcome(&report.shown, report.number, DeliveryState::Synced)
                };
                written.facts.push(outcome_fact(fact));
                written.came.push((id, Came::Synced));
            }
            Step::Send(_) => self.hand_to_person(&report, &against, &error, BTreeSet::new(), written),
            Step::Person { disputed } => self.hand_to_person(&report, &against, &error, disputed, written),
        }
    }

    fn following(&self, report: &Report, instead: Instead) -> Result<Starting, NotReady> {
        let strategy = instead.strategy;
        let mut shown = report.shown.clone();
        shown.row.tries.attempts = report.number;
        let prepared = request::instead(&shown, &report.prepared.sent, instead, &self.config, &self.queue)?;
        Ok(Starting::new(shown, prepared, report.decided.clone(), Some(strategy)))
    }

    fn hand_to_person(
        &mut self,
        report: &Report,
        against: &Against,
        error: &TryError,
        disputed: BTreeSet<String>,
        written: &mut Written,
    ) {
        let id = report.shown.id;
        tracing::warn!(operation = %id, kind = against.kind.word(), "the server has something else: a person decides");
        self.log(report, AttemptResult::Failed, Some(error), written);
        let server = against.server.as_ref().map(ToString::to_string);
        let fact = DeliveryOutcome {
            server_id: against.server_id.clone(),
            http_status: Some(against.http_status),
            class: Some(ErrorClass::Conflict),
            code: Some(against.kind.word().to_owned()),
            detail: Some(against.detail.clone()),
            conflict: Some(against.kind),
            strategy: Some(Strategy::Manual),
            server: server.filter(|text| text.len() <= VERSION_BYTES_MAX),
            server_tag: against.tag.clone(),
            disputed: disputed
                .into_iter()
                .filter(|field| field.len() <= DISPUTED_BYTES_MAX)
                .take(DISPUTED_MAX)
                .collect(),
            ..outcome(&report.shown, report.number, DeliveryState::Conflict)
        };
        written.facts.push(outcome_fact(fact));
        written.came.push((id, Came::Conflict));
    }

    /// The server answers: what only waited for that goes at once.
    fn server_is_up(&mut self) {
        if self.breaker.open_until_ms().is_some() {
            self.schedule.hurry();
        }
        self.breaker.answered();
        self.hurry_what_was_cut_off();
    }

    /// What only the network kept from being sent goes at once.
    pub(super) fn hurry_what_was_cut_off(&mut self) {
        for id in std::mem::take(&mut self.cut_off) {
            self.schedule.hurry_one(id);
        }
    }

    /// Adds a call to the chain.
    fn log(&mut self, report: &Report, result: AttemptResult, error: Option<&TryError>, written: &mut Written) {
        let bytes_sent = report.prepared.body.as_ref().map_or(0, Vec::len) as u64;
        let network_type = self.desk.network_type();
        if is_metered(network_type.as_deref()) {
            let today = self.day_of(now_ms());
            let before = if self.metered.0 == today { self.metered.1 } else { 0 };
            self.metered = (today, before + bytes_sent + report.bytes_received);
        }
        let recorded = report.shown.row.recorded.as_ref();
        let attempt = Attempt {
            operation: report.shown.id,
            number: report.number,
            at: report.at,
            duration_ms: report.duration_ms,
            result,
            http_status: report.http_status,
            class: error.map(|error| error.class),
            code: error.map(|error| error.code.clone()),
            detail: error.map(|error| error.detail.clone()),
            bytes_sent,
            bytes_received: report.bytes_received,
            device: recorded.map_or(self.device, |recorded| recorded.device),
            network_type,
            endpoint: endpoint(&report.prepared),
            operation_type: recorded.map(|recorded| recorded.operation_type.clone()),
        };
        written.attempts.push(attempt.clone());
        written.rows.extend(self.chain.add(attempt));
        written.rows.push(under_way_row(report.shown.id, None));
    }

    /// Writes what became of calls, and makes those that may be made now: what ended and what
    /// begins is durable in one commit. Says whether there was anything.
    pub(super) async fn write(&mut self, mut written: Written) -> Result<bool, DeskError> {
        let mut starting = std::mem::take(&mut written.following);
        for _ in &starting {
            self.breaker.begun();
        }
        self.pick(&mut starting, &mut written)?;
        let Written { facts, mut rows, attempts, mut changes, came, cut_off, following: _ } = written;
        if starting.is_empty() && came.is_empty() {
            return Ok(false);
        }
        for attempt in &attempts {
            self.figures.note(self.shop.reader().as_ref(), attempt)?;
        }
        rows.extend(self.figures.rows());
        for (id, _) in &came {
            let change: RowChange = Box::new(|row: &mut OpRow| row.tries.calling = false);
            changes.push((*id, change));
            self.turns.remove(id);
            self.cut_off.remove(id);
        }
        self.cut_off.extend(cut_off);
        rows.extend(starting.iter().map(Starting::row));
        // Tries that did not do are told to nobody, and can't be made again from the journals.
        let lasting = changes.len() > came.len();
        changes.extend(starting.iter().map(Starting::change));
        let mut entries = entries(facts).into_iter().peekable();
        let no_facts = entries.peek().is_none();
        while let Some(facts) = entries.next() {
            let operation = Operation { facts, ..Operation::default() };
            // With the last one: until then all of these calls count as under way.
            let rows = if entries.peek().is_none() { std::mem::take(&mut rows) } else { Vec::new() };
            self.shop.record_with(operation, rows).await?;
        }
        match no_facts || lasting {
            true => self.desk.change(changes, rows).await?,
            false => self.desk.change_derived(changes).await?,
        }
        let mut touched = self.desk.changed().await?;
        for (id, _) in &came {
            self.schedule.ended(*id, Left::Held);
            touched.insert(*id);
        }
        for id in touched {
            if let Some(row) = self.desk.row(id)? {
                self.place(id, &row);
            }
        }
        for (id, came) in came {
            self.runs.iter_mut().for_each(|run| run.note(id, came));
        }
        for one in starting {
            self.send(one);
        }
        Ok(true)
    }
}

/// Outcomes by the entries that they fit in: a server's version may take half of one.
fn entries(facts: Vec<Fact>) -> Vec<Vec<Fact>> {
    let mut entries: Vec<(usize, Vec<Fact>)> = Vec::new();
    for fact in facts {
        let bytes = minicbor::to_vec(&fact).map_or(0, |bytes| bytes.len());
        match entries.last_mut() {
            Some((sum, together)) if *sum + bytes <= ENTRY_BYTES => {
                *sum += bytes;
                together.push(fact);
            }
            _ => entries.push((bytes, vec![fact])),
        }
    }
    entries.into_iter().map(|(_, facts)| facts).collect()
}

/// Well below what an entry takes.
const ENTRY_BYTES: usize = 48 * 1024;
const DISPUTED_MAX: usize = 64;
const DISPUTED_BYTES_MAX: usize = 256;

fn before(shown: &Shown) -> Option<&DeliveryOutcome> {
    shown.row.outcome.as_ref().map(|(_, _, outcome)| outcome)
}

fn outcome_fact(outcome: DeliveryOutcome) -> Fact {
    Fact::Upstream(UpstreamFact::Outcome(outcome))
}

fn failed(shown: &Shown, attempts: u32, error: &TryError) -> DeliveryOutcome {
    DeliveryOutcome {
        class: Some(error.class),
        code: Some(error.code.clone()),
        detail: Some(error.detail.clone()),
        http_status: error.http_status,
        ..outcome(shown, attempts, DeliveryState::Failed)
    }
}

fn outcome(shown: &Shown, attempts: u32, state: DeliveryState) -> DeliveryOutcome {
    DeliveryOutcome {
        operation: shown.id,
        ordinal: shown.row.next_ordinal(),
        state,
        attempts,
        server_id: shown.row.server_id().map(str::to_owned),
        http_status: None,
        class: None,
        code: None,
        detail: None,
        conflict: None,
        strategy: None,
        server: None,
        server_tag: None,
        disputed: Vec::new(),
        maybe_twice: false,
        decided: None,
    }
}
