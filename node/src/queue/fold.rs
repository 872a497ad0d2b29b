//! How an operation's row follows from what the journals say of it, in whatever order it comes.

use crdt_model::books::Key;
use crdt_model::record::{DeliveryOutcome, DeliveryState, ErrorClass};

use super::row::{Decided, OpRow, Recorded};

/// Something that the journals say of an operation.
#[derive(Debug, Clone)]
pub enum Event {
    /// It was recorded.
    Recorded(Box<Recorded>),
    /// The carrier says what became of it.
    Outcome(Key, Box<DeliveryOutcome>),
    /// Somebody wants it tried again after that outcome.
    Wish(u32),
    /// Somebody decided a conflict.
    Decided(Decided),
}

/// Adds an event to a row. Adding it again changes nothing.
pub fn fold(row: &mut OpRow, event: Event) {
    match event {
        Event::Recorded(recorded) => {
            // Of several copies of one operation the earliest counts, as in the books.
            let order = |recorded: &Recorded| (recorded.time, recorded.place, recorded.index);
            if row.recorded.as_ref().is_none_or(|before| order(&recorded) < order(before)) {
                row.recorded = Some(*recorded);
            }
        }
        Event::Outcome(key, outcome) => {
            let newer = row.outcome.as_ref().is_none_or(|(ordinal, at, _)| (*ordinal, *at) < (outcome.ordinal, key));
            if newer {
                row.tries.attempts = row.tries.attempts.max(outcome.attempts);
                row.tries.used = 0;
                row.tries.not_before_ms = 0;
                // A call that went silent may have been heard all the same.
                let silent = row.tries.in_doubt || outcome.class == Some(ErrorClass::Network);
                row.tries.in_doubt = outcome.state == DeliveryState::Failed && silent;
                if outcome.state == DeliveryState::Synced {
                    row.tries.error = None;
                }
                row.outcome = Some((outcome.ordinal, key, *outcome));
            }
        }
        Event::Wish(after) => {
            if after > row.wished_after {
                row.wished_after = after;
                row.tries.used = 0;
                row.tries.not_before_ms = 0;
            }
        }
        Event::Decided(decided) => {
            let later =
                row.decided.as_ref().is_none_or(|before| (before.ordinal, before.key) < (decided.ordinal, decided.key));
            if later {
                row.decided = Some(decided);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crdt_model::entry::Place;
    use crdt_model::ids::{DeviceId, JournalId, RecordId};
    use crdt_model::time::Hlc;
    use proptest::prelude::*;

    use super::super::row::QueueStatus;
    use super::*;

    fn operation() -> RecordId {
        RecordId(uuid::Uuid::from_u128(7))
    }

    fn key(time: u64) -> Key {
        Key { time: Hlc(time), journal: JournalId([3; 16]), seq: time, index: 0 }
    }

    fn recorded() -> Event {
        Event::Recorded(Box::new(Recorded {
            place: Place { journal: JournalId([1; 16]), seq: 1 },
            index: 0,
            time: Hlc(1),
            device: DeviceId([1; 32]),
            user: None,
            operation_type: "sale".to_owned(),
            source: None,
            carried_by_own: false,
            priority: None,
            lane: operation(),
        }))
    }

    fn outcome(ordinal: u32, time: u64, state: DeliveryState) -> Event {
        let outcome = DeliveryOutcome {
            operation: operation(),
            ordinal,
            state,
            attempts: ordinal,
            server_id: None,
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
        };
        Event::Outcome(key(time), Box::new(outcome))
    }

    fn decided(ordinal: u32, time: u64, choice: &str) -> Event {
        Event::Decided(Decided { ordinal, key: key(time), choice: choice.to_owned(), fields: None })
    }

    fn folded(events: &[Event]) -> OpRow {
        let mut row = OpRow::default();
        events.iter().for_each(|event| fold(&mut row, event.clone()));
        row
    }

    #[test]
    fn a_failed_operation_waits_for_a_wish_and_a_wish_is_good_once() {
        let mut events = vec![recorded()];
        assert_eq!(folded(&events).status(), Some(QueueStatus::Pending));
        events.push(outcome(1, 5, DeliveryState::Failed));
        assert_eq!(folded(&events).status(), Some(QueueStatus::Failed));
        events.push(Event::Wish(1));
        assert_eq!(folded(&events).status(), Some(QueueStatus::Pending));
        events.push(outcome(2, 6, DeliveryState::Failed));
        assert_eq!(folded(&events).status(), Some(QueueStatus::Failed));
        events.push(outcome(3, 7, DeliveryState::Synced));
        assert_eq!(folded(&events).status(), Some(QueueStatus::Synced));
    }

    #[test]
    fn of_two_decisions_the_later_counts_and_is_acted_on_even_after_the_other_was() {
        let mut row = folded(&[recorded(), outcome(1, 5, DeliveryState::Conflict), decided(1, 8, "client")]);
        assert_eq!(row.status(), Some(QueueStatus::Pending));
        let Event::Outcome(at, mut acted) = outcome(2, 9, DeliveryState::Synced) else { unreachable!() };
        acted.decided = Some(key(8));
        fold(&mut row, Event::Outcome(at, acted));
        assert_eq!(row.status(), Some(QueueStatus::Synced));
        fold(&mut row, decided(1, 7, "server"));
        assert_eq!(row.status(), Some(QueueStatus::Synced), "an earlier decision arrives late: it never counted");
        fold(&mut row, decided(1, 10, "server"));
        assert_eq!(row.decision_to_act_on().map(|decided| decided.choice.as_str()), Some("server"));
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let state =
            prop_oneof![Just(DeliveryState::Synced), Just(DeliveryState::Failed), Just(DeliveryState::Conflict)];
        let event = prop_oneof![
            Just(recorded()),
            (1..4_u32, 1..9_u64, state).prop_map(|(ordinal, time, state)| {
                // One place holds one outcome.
                outcome(ordinal, time * 10 + u64::from(ordinal) * 3 + state as u64, state)
            }),
            (1..4_u32).prop_map(Event::Wish),
            (1..4_u32, 1..9_u64).prop_map(|(ordinal, time)| decided(ordinal, time, &time.to_string())),
        ];
        proptest::collection::vec(event, 0..12)
    }

    proptest! {
        #[test]
        fn every_order_of_arrival_gives_the_same(events in events(), seed in any::<u64>()) {
            let mut shuffled = events.clone();
            let mut state = seed | 1;
            for at in (1..shuffled.len()).rev() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                shuffled.swap(at, usize::try_from(state % (at as u64 + 1)).unwrap());
            }
            shuffled.extend(events.iter().take(3).cloned());
            let (one, other) = (folded(&events), folded(&shuffled));
            prop_assert_eq!(one.status(), other.status());
            prop_assert_eq!(&one.outcome, &other.outcome);
            prop_assert_eq!(&one.decided, &other.decided);
        }
    }
}
