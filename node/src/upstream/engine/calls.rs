//! From an operation that is due to a call, durable as under way before anything is sent.

use crdt_model::ids::RecordId;
use crdt_model::record::{DeliveryState, UpstreamConflict};
use crdt_model::time::Timestamp;
use tokio::time::Instant;

use super::super::classify::{Answer, NoAnswer, Verdict, classify};
use super::super::request::{self, NotReady, Prepared};
use super::super::resolve::{Step, by_person};
use super::super::schedule::Left;
use super::{Engine, now_ms};
use crate::queue::attempts::{UnderWay, under_way_row};
use crate::queue::{Decided, DeskError, OpRow, QueueStatus, RowChange, Shown};

/// A call that ended.
#[derive(Debug)]
pub(in super::super) struct Report {
    pub(super) shown: Shown,
    pub(super) number: u32,
    pub(super) at: Timestamp,
    pub(super) duration_ms: u64,
    pub(super) prepared: Prepared,
    pub(super) decided: Option<Decided>,
    pub(super) strategy: Option<crdt_model::record::Strategy>,
    pub(super) verdict: Verdict,
    pub(super) http_status: Option<u16>,
    pub(super) bytes_received: u64,
}

impl Engine {
    /// Begins an operation's call, or says why there is none.
    pub(super) async fn begin(&mut self, id: RecordId) -> Result<(), DeskError> {
        let Some(shown) = self.desk.one(id).await? else {
            self.schedule.ended(id, Left::Gone);
            return Ok(());
        };
        if shown.row.status() != Some(QueueStatus::Pending) {
            self.schedule.ended(id, Left::Held);
            self.place(id, &shown.row);
            return Ok(());
        }
        let prepared = match request::prepare(&shown, &self.desk, &self.config, &self.queue)? {
            Ok(prepared) => prepared,
            Err(not_ready) => return self.not_ready(id, &shown, not_ready).await,
        };
        let Some(decided) = shown.row.decision_to_act_on().cloned() else {
            return self.call(shown, prepared, None, None).await;
        };
        let Some((_, _, outcome)) = shown.row.outcome.clone() else { return Ok(()) };
        let undoes = outcome.state != DeliveryState::Conflict;
        match by_person(&prepared.sent, &outcome, &decided, undoes) {
            Step::Synced { strategy } => self.synced_by_word(&shown, &outcome, &decided, strategy).await,
            Step::Person { .. } => {
                // A word that can't be followed: it stays as it is, for another word.
                tracing::warn!(operation = %id, choice = %decided.choice, "the decision can't be followed: decide otherwise");
                self.conflict_again(&shown, &outcome, &decided).await
            }
            Step::Send(instead) => {
                let strategy = instead.strategy;
                match request::instead(&shown, &prepared.sent, instead, &self.config, &self.queue) {
                    Ok(prepared) => self.call(shown, prepared, Some(decided), Some(strategy)).await,
                    Err(not_ready) => self.not_ready(id, &shown, not_ready).await,
                }
            }
        }
    }

    async fn not_ready(&mut self, id: RecordId, shown: &Shown, why: NotReady) -> Result<(), DeskError> {
        match why {
            NotReady::WaitsFor(other) => {
                self.schedule.ended(id, Left::For(other));
                Ok(())
            }
            NotReady::Nothing => {
                self.schedule.ended(id, Left::Held);
                Ok(())
            }
            NotReady::Refused(error) => self.refused_unsent(shown, error).await,
        }
    }

    /// Makes a call durable as under way, and sends it.
    pub(super) async fn call(
        &mut self,
        shown: Shown,
        prepared: Prepared,
        decided: Option<Decided>,
        strategy: Option<crdt_model::record::Strategy>,
    ) -> Result<(), DeskError> {
        let id = shown.id;
        let number = shown.row.tries.attempts.saturating_add(1);
        let at = Timestamp(now_ms());
        let endpoint = endpoint(&prepared);
        let under_way = UnderWay { number, at, endpoint };
        let change: RowChange = Box::new(move |row: &mut OpRow| {
            row.tries.calling = true;
            row.tries.attempts = row.tries.attempts.max(number);
        });
        self.desk.change(vec![(id, change)], vec![under_way_row(id, Some(&under_way))]).await?;
        *self.turns.entry(id).or_default() += 1;
        self.breaker.begun();
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
        Ok(())
    }
}

fn read_of(answer: &Result<Answer, NoAnswer>) -> (Option<u16>, u64) {
    answer.as_ref().map_or((None, 0), |answer| (Some(answer.status), answer.bytes))
}

pub(super) fn endpoint(prepared: &Prepared) -> String {
    let path: String = prepared.sent.path.chars().take(200).collect();
    format!("{} {path}", prepared.sent.method)
}
