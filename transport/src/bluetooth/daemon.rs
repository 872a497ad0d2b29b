//! Notices when bluetoothd goes: whatever a program has registered with it is gone, too, and another
//! one knows nothing of it.

use std::time::Duration;

use dbus::{message::MatchRule, nonblock::Proxy};
use futures::StreamExt;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::PeripheralError;

/// Cancels a token once the bluetoothd that runs now has ended; until this is dropped.
pub(super) struct Watch {
    pub(super) gone: CancellationToken,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Watch {
    pub(super) async fn begin() -> Result<Self, PeripheralError> {
        let (io, bus) = dbus_tokio::connection::new_system_sync().map_err(refused)?;
        let gone = CancellationToken::new();
        let lost = gone.clone();
        let io = tokio::spawn(async move {
            let error = io.await;
            tracing::debug!(%error, "the system's bus is gone");
            lost.cancel();
        });
        let rule = MatchRule::new_signal(BUS, "NameOwnerChanged").with_sender(BUS);
        let (matching, mut changes) = bus.add_match(rule).await.map_err(refused)?.stream::<(String, String, String)>();
        let ended = gone.clone();
        let there = bus.clone();
        let watching = tokio::spawn(async move {
            while let Some((_, (name, _, _))) = changes.next().await {
                if name == DAEMON {
                    break;
                }
            }
            tracing::debug!("bluetoothd has ended, or another has begun");
            drop((matching, there));
            ended.cancel();
        });
        let watch = Self { gone, _tasks: [AbortOnDropHandle::new(io), AbortOnDropHandle::new(watching)] };
        // It may have gone before anybody watched.
        let bus = Proxy::new(BUS, "/org/freedesktop/DBus", ANSWER_MAX, bus);
        let _owner: (String,) = bus.method_call(BUS, "GetNameOwner", (DAEMON,)).await.map_err(refused)?;
        Ok(watch)
    }
}

fn refused(error: dbus::Error) -> PeripheralError {
    PeripheralError::Refused(error.to_string())
}

const BUS: &str = "org.freedesktop.DBus";
const DAEMON: &str = "org.bluez";
const ANSWER_MAX: Duration = Duration::from_secs(5);
