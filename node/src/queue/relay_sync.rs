//! Sending now where a relay carries: a till meets whoever it can, and looks how far its
//! operations have come. Who asks during a sync joins it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::handle::{Queue, QueueError};
use super::rules::relay_is_connected;
use super::{DeskError, QueueStatus, Shown, SyncSummary};

/// A sync that is under way, for others to join.
#[derive(Debug, Clone, Default)]
pub(super) struct SyncTurn(Arc<Mutex<Option<Joined>>>);

type Joined = Shared<BoxFuture<'static, Result<SyncSummary, Arc<QueueError>>>>;

/// How long a till looks for a relay that is not connected.
const LOOK_MS: u64 = 1_000;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl SyncTurn {
    /// Joins the sync that is under way, or begins one.
    pub(super) async fn join(&self, queue: &Queue, wait: Duration) -> Result<SyncSummary, QueueError> {
        self.joined(queue, wait).await.map_err(|error| {
            if let QueueError::Desk(DeskError::Stopped(stopped)) = error.as_ref() {
                return (*stopped).into();
            }
            // Others wait for the same error, and it can't be copied.
            QueueError::BrokeOff(error.to_string())
        })
    }

    fn joined(&self, queue: &Queue, wait: Duration) -> Joined {
        let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(joined) = turn.as_ref().filter(|joined| joined.peek().is_none()) {
            return joined.clone();
        }
        // Whoever began it may go; the others still wait for it.
        let own = queue.clone();
        let task = tokio::spawn(async move { all(&own, wait).await.map_err(Arc::new) });
        let joined =
            async move { task.await.unwrap_or_else(|error| Err(Arc::new(QueueError::BrokeOff(error.to_string())))) };
        let joined = joined.boxed().shared();
        *turn = Some(joined.clone());
        joined
    }
}

/// Sends one operation.
pub(super) async fn one(queue: &Queue, found: &Shown, wait: Duration) -> Result<SyncSummary, QueueError> {
    let begun = Instant::now();
    let waits = |status: Option<QueueStatus>| matches!(status, Some(QueueStatus::Pending | QueueStatus::Syncing));
    queue.meet().await?;
    let id = found.id.to_string();
    let last = until(queue, wait, begun, || async {
        let now = queue.find("", &id).await?.status;
        Ok((now, !waits(now)))
    });
    let last = last.await?;
    let mut summary = SyncSummary { duration: begun.elapsed(), ..SyncSummary::default() };
    if waits(found.status) {
        summary.total = 1;
        match last {
            Some(QueueStatus::Synced) => summary.success = 1,
            Some(QueueStatus::Conflict) => summary.conflict = 1,
            Some(QueueStatus::Pending | QueueStatus::Syncing | QueueStatus::Failed) | None => summary.failed = 1,
        }
    }
    Ok(summary)
}

async fn all(queue: &Queue, wait: Duration) -> Result<SyncSummary, QueueError> {
    let begun = Instant::now();
    let before = counts(queue).await?;
    queue.meet().await?;
    let after = until(queue, wait, begun, || async {
        let now = counts(queue).await?;
        Ok((now, now.0 == 0))
    });
    let (waiting, failed, conflict) = after.await?;
    let (failed, conflict) = (failed.saturating_sub(before.1), conflict.saturating_sub(before.2));
    // What was recorded meanwhile is not counted.
    let failed = (failed + waiting.min(before.0)).min(before.0);
    let conflict = conflict.min(before.0 - failed);
    Ok(SyncSummary {
        success: before.0 - failed - conflict,
        failed,
        conflict,
        total: before.0,
        duration: begun.elapsed(),
    })
}

/// How many wait, failed and conflict.
async fn counts(queue: &Queue) -> Result<(u64, u64, u64), DeskError> {
    if queue.desk().is_engaged().await? {
        let counters = queue.desk().counters().await?;
        let waiting = counters.of(QueueStatus::Pending) + counters.of(QueueStatus::Syncing);
        return Ok((waiting, counters.of(QueueStatus::Failed), counters.of(QueueStatus::Conflict)));
    }
    Ok((queue.shop().ask(|shop| shop.status()).await?.pending, 0, 0))
}

/// Looks until it is done, time is up, or no relay is there.
async fn until<T, F: Future<Output = Result<(T, bool), QueueError>>>(
    queue: &Queue,
    wait: Duration,
    begun: Instant,
    mut look: impl FnMut() -> F,
) -> Result<T, QueueError> {
    loop {
        let (seen, done) = look().await?;
        let connected = queue.shop().ask(relay_is_connected).await?;
        let patience = if connected { wait } else { wait.min(Duration::from_millis(LOOK_MS)) };
        if done || begun.elapsed() >= patience {
            return Ok(seen);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
