//! One ticket closed with two different sales: a ticket's sale has an id of its own, so this
//! is one id with several bodies, told in the shop's words.

use super::{Conflict, ConflictKind};

/// Names a conflict between the sales that closed one ticket.
pub(crate) fn ticket_closed_twice(conflict: Conflict) -> Conflict {
    Conflict { kind: ConflictKind::TicketClosedTwice, ..conflict }
}
