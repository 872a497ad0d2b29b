//! A sync that somebody asked for: what was to be sent when it began, and what became of it.
//! Whoever asks meanwhile joins it.

use std::collections::BTreeSet;

use crdt_model::ids::RecordId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::queue::SyncSummary;

/// What became of one operation in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Synced,
    Conflict,
    Failed,
}

#[derive(Debug)]
pub(super) struct Run {
    only: Option<RecordId>,
    left: BTreeSet<RecordId>,
    summary: SyncSummary,
    begun: Instant,
    replies: Vec<oneshot::Sender<SyncSummary>>,
}

impl Run {
    pub(super) fn new(
        only: Option<RecordId>,
        operations: BTreeSet<RecordId>,
        reply: oneshot::Sender<SyncSummary>,
    ) -> Self {
        let summary = SyncSummary { total: operations.len() as u64, ..SyncSummary::default() };
        Self { only, left: operations, summary, begun: Instant::now(), replies: vec![reply] }
    }

    /// Another one who asks for the same.
    pub(super) fn join(
        &mut self,
        only: Option<RecordId>,
        reply: oneshot::Sender<SyncSummary>,
    ) -> Option<oneshot::Sender<SyncSummary>> {
        if self.only != only {
            return Some(reply);
        }
        self.replies.push(reply);
        None
    }

    pub(super) fn note(&mut self, id: RecordId, came: Came) {
        if !self.left.remove(&id) {
            return;
        }
        let count = match came {
            Came::Synced => &mut self.summary.success,
            Came::Conflict => &mut self.summary.conflict,
            Came::Failed => &mut self.summary.failed,
        };
        *count += 1;
    }

    /// Whether an operation is still to be sent in it.
    pub(super) fn wants(&self, id: RecordId) -> bool {
        self.left.contains(&id)
    }

    pub(super) fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Ends it; what was not sent counts as failed.
    pub(super) fn end(mut self) {
        self.summary.failed += self.left.len() as u64;
        self.summary.duration = self.begun.elapsed();
        tracing::info!(
            success = self.summary.success,
            failed = self.summary.failed,
            conflict = self.summary.conflict,
            "synced with the shop's server"
        );
        for reply in self.replies {
            if reply.send(self.summary).is_err() {
                tracing::debug!("nobody waits for the sync any more");
            }
        }
    }
}
