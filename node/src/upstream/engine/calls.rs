//! From an operation that is due to a call, which is durable as under way before anything is sent.

use crdt_model::ids::RecordId;
use crdt_model::record::{DeliveryState, Strategy, UpstreamConflict};
use crdt_model::time::Timestamp;
use tokio::time::Instant;

use super::super::classify::{Answer, NoAnswer, Verdict, classify};
use super::super::request::{self, NotReady, Prepared};
use super::super::resolve::{Step, by_person};
use super::super::schedule::Left;
use super::ended::Written;
use super::{Engine, now_ms};
use crate::queue::attempts::{UnderWay, under_way_row};
use crate::queue::{Decided, DeskError, OpRow, QueueStatus, RowChange, Shown};
use crate::storage::RowWrite;

/// A call that ended.
#[derive(Debug)]
pub(in super::super) struct Report {
    pub(super) shown: Shown,
    pub(super) number: u32,
    pub(super) at: Timestamp,
    pub(super) duration_ms: u64,
    pub(super) prepared: Prepared,
    pub(super) decided: Option<Decided>,
    pub(super) strategy: Option<Strategy>,
    pub(super) verdict: Verdict,
    pub(super) http_status: Option<u16>,
    pub(super) bytes_received: u64,
}

/// A call that is about to be made; it is durable as under way before it is.
pub(in super::super) struct Starting {
    pub(super) shown: Shown,
    pub(super) prepared: Prepared,
    pub(super) decided: Option<Decided>,
    pub(super) strategy: Option<Strategy>,
    number: u32,
    at: Timestamp,
}

impl Starting {
    pub(super) fn new(shown: Shown, prepared: Prepared, decided: Option<Decided>, strategy: Option<Strategy>) -> Self {
        let number = shown.row.tries.attempts.saturating_add(1);
        Self { shown, prepared, decided, strategy, number, at: Timestamp(now_ms()) }
    }

    /// What says that it is under way.
    pub(super) fn row(&self) -> RowWrite {
        let under_way = UnderWay { number: self.number, at: self.at, endpoint: endpoint(&self.prepared) };
        under_way_row(self.shown.id, Some(&under_way))
    }

    pub(super) fn change(&self) -> (RecordId, RowChange) {
        let number = self.number;
        let change: RowChange = Box::new(move |row: &mut OpRow| {
            row.tries.calling = true;
            row.tries.attempts = row.tries.attempts.max(number);
        });
        (self.shown.id, change)
    }
}

impl Engine {
    /// Picks what may be sent now; what can't be sent after all goes to what is written.
    pub(super) fn pick(&mut self, starting: &mut Vec<Starting>, written: &mut Written) -> Result<(), DeskError> {
        while self.may_send(starting.len()) {
            let Some(id) = self.next() else { break };
            if let Some(one) = self.ready(id, written)? {
                self.breaker.begun();
                starting.push(one);
            }
        }
        Ok(())
    }

    /// The next one: of all, or where nothing is sent by itself now, of those that somebody asked for.
    fn next(&mut self) -> Option<RecordId> {
        if self.queue.auto_sync_enabled && self.not_now().is_none() {
            return self.schedule.next(now_ms());
        }
        let runs = &self.runs;
        self.schedule.next_of(now_ms(), |id| runs.iter().any(|run| run.wants(id)))
    }

    /// An operation's call, unless there is none.
    fn ready(&mut self, id: RecordId, written: &mut Written) -> Result<Option<Starting>, DeskError> {
        let Some(shown) = self.desk.look_up(id)? else {
            self.schedule.ended(id, Left::Gone);
            return Ok(None);
        };
        if shown.status != Some(QueueStatus::Pending) {
            self.schedule.ended(id, Left::Held);
            self.place(id, &shown.row);
            return Ok(None);
        }
        let prepared = match request::prepare(&shown, &self.desk, &self.config, &self.queue)? {
            Ok(prepared) => prepared,
            Err(not_ready) => {
                self.not_ready(&shown, not_ready, written);
                return Ok(None);
            }
        };
        let Some(decided) = shown.row.decision_to_act_on().cloned() else {
            return Ok(Some(Starting::new(shown, prepared, None, None)));
        };
        let Some((_, _, outcome)) = shown.row.outcome.clone() else { return Ok(None) };
        let undoes = outcome.state != DeliveryState::Conflict;
        match by_person(&prepared.sent, &outcome, &decided, undoes) {
            Step::Synced { strategy } => {
                Self::synced_by_word(&shown, &outcome, &decided, strategy, written);
                Ok(None)
            }
            Step::Person { .. } => {
                // A word that can't be followed: it stays as it is, for another word.
                tracing::warn!(operation = %id, choice = %decided.choice, "the decision can't be followed: decide otherwise");
                Self::conflict_again(&shown, &outcome, &decided, written);
                Ok(None)
            }
            Step::Send(instead) => {
                let strategy = instead.strategy;
                match request::instead(&shown, &prepared.sent, instead, &self.config, &self.queue) {
                    Ok(prepared) => Ok(Some(Starting::new(shown, prepared, Some(decided), Some(strategy)))),
                    Err(not_ready) => {
                        self.not_ready(&shown, not_ready, written);
                        Ok(None)
                    }
                }
            }
        }
    }

    fn not_ready(&mut self, shown: &Shown, why: NotReady, written: &mut Written) {
        match why {
            NotReady::WaitsFor(other) => self.schedule.ended(shown.id, Left::For(other)),
            NotReady::Nothing => self.schedule.ended(shown.id, Left::Held),
            NotReady::Refused(error) => Self::refused_unsent(shown, &error, written),
        }
    }

    /// Makes a call that is durable as under way.
    pub(super) fn send(&mut self, starting: Starting) {
        let Starting { shown, prepared, decided, strategy, number, at } = starting;
        let id = shown.id;
        *self.turns.entry(id).or_default() += 1;
        let client = self.client.clone();
        let span = tracing::info_span!("upstream", operation = %id, call = number);
        let work = async move {
            let begun = Instant::now();
            let answer = client.send(&prepared).await;
            let mut verdict = classify(&prepared.sent.method, &answer);
            if let Verdict::Conflict(against) = &mut verdict
                && against.server.is_none()
            {
                let more = match (against.kind, prepared.sent.method.as_str()) {
                    (UpstreamConflict::Duplicate, "POST") => against.server_id.clone(),
                    (_, _) => None,
                };
                let look = more.is_some() || against.kind == UpstreamConflict::VersionMismatch;
                if let Some(Ok(Answer { status: 200, body: Some(body), etag, .. })) = match look {
                    true => Some(client.look(&prepared, more.as_deref()).await),
                    false => None,
                } {
                    let version = body.get("version").and_then(serde_json::Value::as_str).map(str::to_owned);
                    against.server = Some(body);
                    against.tag = etag.or(version).or_else(|| against.tag.take());
                }
            }
            let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (http_status, bytes_received) = read_of(&answer);
            Report { shown, number, at, duration_ms, prepared, decided, strategy, verdict, http_status, bytes_received }
        };
        self.calls.spawn(tracing::Instrument::instrument(work, span));
    }
}

fn read_of(answer: &Result<Answer, NoAnswer>) -> (Option<u16>, u64) {
    answer.as_ref().map_or((None, 0), |answer| (Some(answer.status), answer.bytes))
}

pub(super) fn endpoint(prepared: &Prepared) -> String {
    let path: String = prepared.sent.path.chars().take(200).collect();
    format!("{} {path}", prepared.sent.method)
}
