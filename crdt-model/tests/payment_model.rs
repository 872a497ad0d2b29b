//! Every order of events that two relay processes, three attempts and three crashes allow,
//! explored with the machine as the relay uses it. Each weakening that the design warns of is
//! planted, and must be caught.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::io::Write;

use crdt_model::payment::{
    ATTEMPTS_MAX, Answer, Attempt, AttemptEvent, AttemptState, CallbackResult, Effect, Evidence, IntentState,
    ProviderIds, intent_state, next_attempt_number,
};
use stateright::{Checker, Model, Property};
use uuid::Uuid;

const INTENT: Uuid = Uuid::from_u128(42);
const AMOUNT_MINOR: i64 = 6_500;
const CRASHES_MAX: u8 = 3;

/// A rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weakness {
    None,
    RetryOnUnknown,
    NegativeQueryFinal,
    ServerErrorFinal,
    NoDurableRow,
    NoUniqueIndex,
    SoftFailFinal,
}

/// What is explored.
#[derive(Debug, Clone, Copy)]
struct Relays {
    weakness: Weakness,
    /// The provider may once report a certain failure of a push that is paid after all.
    liar: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// What is durable, in the order of the attempts' numbers.
    rows: Vec<Attempt>,
    relays: [Relay; 2],
    /// What really happened, by attempt.
    truth: [Truth; ATTEMPTS_MAX],
    booked: BTreeSet<String>,
    suspended: BTreeSet<String>,
    booked_again: bool,
    crashes: u8,
    lied: bool,
}

/// What one relay process holds in memory alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Relay {
    Idle,
    /// It saw that an attempt should be made.
    Inserting(u32),
    /// It saw a ready attempt.
    Claiming(Attempt),
    /// It holds the lease, and has not called yet.
    Calling(u32),
    /// It has an answer that is not stored yet.
    Answered(u32, Answer),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Truth {
    sent: u8,
    open_prompts: u8,
    charged: u8,
    refused: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sent {
    /// The customer is asked, and the answer says so.
    Accepted,
    /// The customer is asked, and the answer is a 5xx, a timeout or a broken connection.
    TakenUnseen,
    /// The customer is not asked, and nothing certain is heard.
    LostUnseen,
    /// Refused with a certain error.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Look(usize),
    Store(usize),
    Send(usize, Sent),
    Crash(usize),
    LeaseEnds(u32),
    Pay(u32),
    Refuse(u32),
    Callback(u32, &'static str),
    Query(u32, &'static str),
    Found(u32),
    Absent(u32),
}

impl Model for Relays {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            rows: Vec::new(),
            relays: [Relay::Idle, Relay::Idle],
            truth: Default::default(),
            booked: BTreeSet::new(),
            suspended: BTreeSet::new(),
            booked_again: false,
            crashes: 0,
            lied: false,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for (at, relay) in world.relays.iter().enumerate() {
            match relay {
                Relay::Idle => steps.push(Step::Look(at)),
                Relay::Inserting(_) | Relay::Claiming(_) | Relay::Answered(..) => steps.push(Step::Store(at)),
                Relay::Calling(_) => {
                    for how in [Sent::Accepted, Sent::TakenUnseen, Sent::LostUnseen, Sent::Refused] {
                        steps.push(Step::Send(at, how));
                    }
                }
            }
            if *relay != Relay::Idle && world.crashes < CRASHES_MAX {
                steps.push(Step::Crash(at));
            }
        }
        for row in &world.rows {
            let number = row.number();
            let truth = &world.truth[place(number)];
            if row.state() == AttemptState::Calling {
                steps.push(Step::LeaseEnds(number));
            }
            if truth.open_prompts > 0 {
                steps.extend([Step::Pay(number), Step::Refuse(number)]);
            }
            if truth.sent > 0 {
                steps.extend([Step::Callback(number, "1037"), Step::Callback(number, "77")]);
            }
            if truth.refused > 0 || (self.liar && !world.lied && truth.open_prompts > 0) {
                steps.push(Step::Callback(number, "1032"));
            }
            if row.ids().is_some() {
                steps.push(Step::Query(number, "1032"));
            }
            if truth.charged > 0 {
                steps.extend([Step::Callback(number, "0"), Step::Found(number)]);
                if row.ids().is_some() {
                    steps.push(Step::Query(number, "0"));
                }
            }
            let calling = world.relays.contains(&Relay::Calling(number));
            if truth.charged == 0 && truth.open_prompts == 0 && !calling {
                steps.push(Step::Absent(number));
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Look(at) => world.relays[at] = self.look(last)?,
            Step::Store(at) => self.store(&mut world, at),
            Step::Send(at, how) => self.send(&mut world, at, how),
            Step::Crash(at) => {
                world.relays[at] = Relay::Idle;
                world.crashes += 1;
            }
            Step::LeaseEnds(number) => world.happens(number, &AttemptEvent::LeaseExpired),
            Step::Pay(number) => {
                let truth = &mut world.truth[place(number)];
                truth.open_prompts -= 1;
                truth.charged += 1;
            }
            Step::Refuse(number) => {
                let truth = &mut world.truth[place(number)];
                truth.open_prompts -= 1;
                truth.refused = 1;
            }
            Step::Callback(number, code) => {
                if code == "1032" && world.truth[place(number)].refused == 0 {
                    world.lied = true;
                }
                self.callback(&mut world, number, code);
            }
            Step::Query(number, code) => {
                let event = if self.weakness == Weakness::NegativeQueryFinal && code != "0" {
                    AttemptEvent::Absent
                } else {
                    AttemptEvent::Queried { result_code: code.to_owned() }
                };
                world.happens(number, &event);
            }
            Step::Found(number) => {
                let event = found(number, world.truth[place(number)].charged);
                world.happens(number, &event);
            }
            Step::Absent(number) => world.happens(number, &AttemptEvent::Absent),
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no customer is charged twice", |_: &Self, world: &World| {
                let charged: u8 = world.truth.iter().map(|truth| truth.charged).sum();
                charged <= 1 || world.lied
            }),
            Property::always("two charges are both seen by a person", |_, world: &World| {
                let booked = world.booked.len() + world.suspended.len();
                booked <= 1 || intent_state(&world.rows, false) == IntentState::Review
            }),
            Property::always("no attempt is called twice", |_, world: &World| {
                world.truth.iter().all(|truth| truth.sent <= 1)
            }),
            Property::always("nothing is booked without proof, or twice", |_, world: &World| {
                let real = |receipt: &String| {
                    (1..).zip(&world.truth).any(|(number, truth)| {
                        (1..=truth.charged).any(|charge| *receipt == receipt_number(number, charge))
                    })
                };
                !world.booked_again && world.booked.iter().all(real)
            }),
            Property::always("money that arrived can always be booked", |_, world: &World| {
                world.rows.iter().all(|row| {
                    let charged = world.truth[place(row.number())].charged;
                    (1..=charged).all(|charge| {
                        let receipt = receipt_number(row.number(), charge);
                        world.booked.contains(&receipt)
                            || world.suspended.contains(&receipt)
                            || matches!(
                                row.clone().apply(&found(row.number(), charge), 0),
                                Ok(Effect::Book { .. } | Effect::BookLate { .. } | Effect::Suspend { .. })
                            )
                    })
                })
            }),
            Property::always("at most one attempt bars the others", |_, world: &World| {
                world.rows.iter().filter(|row| row.state().bars_another()).count() <= 1
            }),
            Property::always("a late payment is seen by a person", |_, world: &World| {
                !world.rows.iter().any(|row| row.state() == AttemptState::LatePaid)
                    || intent_state(&world.rows, false) == IntentState::Review
            }),
            // A failure that is taken back needs a provider that goes back on its word.
            if self.liar {
                Property::sometimes("an attempt is paid late", |_, world: &World| has(world, AttemptState::LatePaid))
            } else {
                Property::always("no attempt is paid late", |_, world: &World| !has(world, AttemptState::LatePaid))
            },
            Property::sometimes("an attempt is in quarantine", |_, world: &World| has(world, AttemptState::Quarantine)),
            Property::sometimes("an attempt of quarantine pays", |_, world: &World| {
                world.rows.iter().any(|row| row.state() == AttemptState::Paid && row.result_code() == Some("1037"))
            }),
            Property::sometimes("the third attempt pays", |_, world: &World| {
                world.rows.len() == ATTEMPTS_MAX && world.rows[2].state() == AttemptState::Paid
            }),
            Property::sometimes("every crash is used", |_, world: &World| world.crashes == CRASHES_MAX),
        ]
    }
}

impl Relays {
    fn look(self, world: &World) -> Option<Relay> {
        if let Some(ready) = world.rows.iter().find(|row| row.state() == AttemptState::Ready) {
            return Some(Relay::Claiming(ready.clone()));
        }
        let mut rows = world.rows.clone();
        if self.weakness == Weakness::RetryOnUnknown {
            rows.retain(|row| row.state() != AttemptState::Unknown);
            if rows.len() < world.rows.len() && world.rows.len() < ATTEMPTS_MAX {
                return Some(Relay::Inserting(u32::try_from(world.rows.len()).unwrap() + 1));
            }
        }
        next_attempt_number(&rows).ok().map(Relay::Inserting)
    }

    /// A relay makes its plan or its answer durable. The store refuses a second row of one
    /// number, a second one that bars the others, and a claim of a row that has changed since.
    fn store(self, world: &mut World, at: usize) {
        let relay = std::mem::replace(&mut world.relays[at], Relay::Idle);
        match relay {
            Relay::Inserting(number) => {
                let taken = world.rows.iter().any(|row| row.number() == number);
                let barred = world.rows.iter().any(|row| row.state().bars_another());
                let allowed = !taken && (!barred || self.weakness == Weakness::RetryOnUnknown);
                if allowed {
                    world.rows.push(Attempt::new(INTENT, number, AMOUNT_MINOR, 0));
                }
            }
            Relay::Claiming(mut seen) => {
                let unchanged = world.rows.contains(&seen);
                if !unchanged && self.weakness != Weakness::NoUniqueIndex {
                    return;
                }
                let number = seen.number();
                if seen.apply(&AttemptEvent::Claimed { lease_until_ms: 0 }, 0) == Ok(Effect::Call) {
                    if self.weakness != Weakness::NoDurableRow {
                        world.rows[place(number)] = seen;
                    }
                    world.relays[at] = Relay::Calling(number);
                }
            }
            Relay::Answered(number, answer) => world.happens(number, &AttemptEvent::Answered(answer)),
            Relay::Idle | Relay::Calling(_) => {}
        }
    }

    fn send(self, world: &mut World, at: usize, how: Sent) {
        let Relay::Calling(number) = world.relays[at] else { return };
        let truth = &mut world.truth[place(number)];
        if matches!(how, Sent::Accepted | Sent::TakenUnseen) {
            truth.sent += 1;
            truth.open_prompts += 1;
        }
        let answer = match how {
            Sent::Accepted => Answer::Accepted(ids(number)),
            Sent::TakenUnseen | Sent::LostUnseen if self.weakness == Weakness::ServerErrorFinal => Answer::NotSent,
            Sent::TakenUnseen | Sent::LostUnseen => Answer::Ambiguous,
            Sent::Refused => Answer::NotSent,
        };
        world.relays[at] = Relay::Answered(number, answer);
    }

    fn callback(self, world: &mut World, number: u32, code: &str) {
        let paid = code == "0";
        let charged = world.truth[place(number)].charged;
        let code = if code == "1037" && self.weakness == Weakness::SoftFailFinal { "1032" } else { code };
        let event = AttemptEvent::CalledBack(CallbackResult {
            ids: ids(number),
            result_code: code.to_owned(),
            amount_minor: paid.then_some(AMOUNT_MINOR),
            receipt_number: paid.then(|| receipt_number(number, charged)),
        });
        world.happens(number, &event);
    }
}

impl World {
    fn happens(&mut self, number: u32, event: &AttemptEvent) {
        let Some(row) = self.rows.get_mut(place(number)) else { return };
        match row.apply(event, 0) {
            Ok(Effect::Book { receipt_number } | Effect::BookLate { receipt_number }) => {
                self.booked_again |= !self.booked.insert(receipt_number);
            }
            Ok(Effect::Suspend { receipt_number: Some(receipt_number), .. }) => {
                self.suspended.insert(receipt_number);
            }
            Ok(_) | Err(_) => {}
        }
    }
}

fn has(world: &World, state: AttemptState) -> bool {
    world.rows.iter().any(|row| row.state() == state)
}

fn place(number: u32) -> usize {
    number as usize - 1
}

fn ids(number: u32) -> ProviderIds {
    ProviderIds { request_id: format!("r{number}"), checkout_id: format!("c{number}") }
}

fn receipt_number(number: u32, charge: u8) -> String {
    format!("TEST{number}-{charge}")
}

fn found(number: u32, charge: u8) -> AttemptEvent {
    AttemptEvent::Found {
        evidence: Evidence::Pull,
        receipt_number: receipt_number(number, charge),
        amount_minor: AMOUNT_MINOR,
    }
}

#[test]
fn no_order_of_events_charges_twice_or_loses_money() {
    for liar in [false, true] {
        let checker = Relays { weakness: Weakness::None, liar }.checker().threads(2).spawn_bfs().join();
        // Written past the capture of passing tests: every run says how much it looked at.
        writeln!(
            std::io::stderr(),
            "payment model, provider {}: {} states, depth {}",
            if liar { "that may report a failure wrongly" } else { "that keeps its word" },
            checker.unique_state_count(),
            checker.max_depth()
        )
        .unwrap();
        checker.assert_properties();
        assert!(checker.unique_state_count() > 10_000, "{}", checker.unique_state_count());
        assert!(checker.is_done());
    }
}

#[test]
fn every_planted_weakness_is_caught() {
    for (weakness, caught_by) in [
        (Weakness::RetryOnUnknown, "no customer is charged twice"),
        (Weakness::NegativeQueryFinal, "no customer is charged twice"),
        (Weakness::ServerErrorFinal, "no customer is charged twice"),
        (Weakness::SoftFailFinal, "no customer is charged twice"),
        (Weakness::NoDurableRow, "no attempt is called twice"),
        (Weakness::NoUniqueIndex, "no attempt is called twice"),
    ] {
        let model = Planted(Relays { weakness, liar: false }, caught_by);
        let checker = model.checker().threads(2).spawn_bfs().join();
        let path = checker.discovery(caught_by).unwrap_or_else(|| panic!("{weakness:?} was not caught"));
        eprintln!(
            "{weakness:?} is caught after {} steps: {:?}",
            path.clone().into_actions().len(),
            path.into_actions()
        );
    }
}

/// The same model with one property, so that the search ends where it is broken.
#[derive(Debug, Clone, Copy)]
struct Planted(Relays, &'static str);

impl Model for Planted {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        self.0.init_states()
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.0.actions(world, steps);
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        self.0.next_state(last, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let charged: fn(&Self, &World) -> bool =
            |_, world| world.truth.iter().map(|truth| truth.charged).sum::<u8>() <= 1;
        let called: fn(&Self, &World) -> bool = |_, world| world.truth.iter().all(|truth| truth.sent <= 1);
        let condition = if self.1 == "no attempt is called twice" { called } else { charged };
        vec![Property::always(self.1, condition)]
    }
}
