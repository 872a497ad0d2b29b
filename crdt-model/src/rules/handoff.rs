//! A handoff that an owner decided because contact broke: both sides are kept, and the decision
//! stands beside them. If what was said does not go together (the giver transferred before it
//! heard that the shift stays), the transfer counts, and a person has to look.

use super::{Conflict, ConflictKind, ConflictState, Side};
use crate::books::{Handoff, HandoffPhase, Key};
use crate::ids::{DeviceId, RecordId};

/// What a decision for the giver is called.
pub(crate) const GIVER: &str = "giver";
/// What a decision for the receiver is called.
pub(crate) const RECEIVER: &str = "receiver";

/// The conflict between a giver that holds on to a shift and a receiver that took it.
pub(crate) fn handoff_decided(id: RecordId, handoff: &Handoff, state: ConflictState) -> Conflict {
    let given = handoff.phase == HandoffPhase::Completed;
    let giver = side(GIVER, handoff.offered, handoff.giver, !given);
    let receiver = handoff.accepted.or(handoff.declined);
    let receiver = receiver.map(|key| side(RECEIVER, key, handoff.offer.to, given));
    let mut sides: Vec<Side> = std::iter::once(giver).chain(receiver).collect();
    sides.sort_by_key(|side| !side.counted);
    Conflict { id, kind: ConflictKind::HandoffDecided, record: Some(handoff.id), sku: None, sides, state }
}

/// The conflict between an owner's decision and what the giver had done already.
pub(crate) fn handoff_torn(id: RecordId, handoff: &Handoff, state: ConflictState) -> Conflict {
    let decision = handoff.decision.as_ref();
    let stands = decision
        .is_some_and(|decision| (handoff.phase == HandoffPhase::Completed) == (decision.to == handoff.offer.to));
    let decision = decision.map(|decision| side("decision", decision.key, decision.device, stands));
    let giver = handoff.transferred.or(handoff.withdrawn);
    let giver = giver.map(|key| {
        let label = if handoff.transferred.is_some() { "transfer" } else { "withdrawal" };
        let counted = handoff.transferred.is_some() == (handoff.phase == HandoffPhase::Completed);
        side(label, key, handoff.giver, counted)
    });
    let mut sides: Vec<Side> = decision.into_iter().chain(giver).collect();
    sides.sort_by_key(|side| (!side.counted, side.time));
    Conflict { id, kind: ConflictKind::HandoffTorn, record: Some(handoff.id), sku: None, sides, state }
}

fn side(label: &str, key: Key, device: DeviceId, counted: bool) -> Side {
    Side { label: label.to_owned(), place: key.place(), index: key.index, time: key.time, device, counted }
}
