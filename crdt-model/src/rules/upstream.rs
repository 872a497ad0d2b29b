//! An operation against what the shop's own server has. What the till recorded stays in its books;
//! a person decides what the server is to have.

use super::{Conflict, ConflictKind, ConflictState, Side};
use crate::books::{Key, RecordAt};
use crate::ids::{DeviceId, RecordId};

/// The side of what the till recorded.
pub const CLIENT: &str = "client";
/// The side of what the server has.
pub const SERVER: &str = "server";

/// The conflict between an operation and the server; `told` is where the carrier said so.
pub(crate) fn upstream(
    id: RecordId,
    operation: RecordId,
    recorded: Option<RecordAt>,
    told: (Key, DeviceId),
    state: ConflictState,
) -> Conflict {
    let client = recorded.map(|at| Side {
        label: CLIENT.to_owned(),
        place: at.place,
        index: at.index,
        time: at.time,
        device: at.device,
        counted: true,
    });
    let (key, device) = told;
    let server =
        Side { label: SERVER.to_owned(), place: key.place(), index: key.index, time: key.time, device, counted: false };
    let sides = client.into_iter().chain([server]).collect();
    Conflict { id, kind: ConflictKind::Upstream, record: Some(operation), sku: None, sides, state }
}
