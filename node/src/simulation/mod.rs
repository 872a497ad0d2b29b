//! Payments by the thousand against a provider that misbehaves in every way, with a relay that
//! is killed at every step. The relay's code, its storage engine and its client are the real
//! ones; time, network and disk are not. What the provider really charged is compared with the
//! books.

mod crash;
mod customers;
mod verdict;
mod wires;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::payments::PaymentProvider;
use crate::shop_loop::LoopError;

/// Intents of one simulated shop; each shop has days of its own.
const WORLD_INTENTS: u64 = 250;
/// How many faults are told in full.
const DETAILS_MAX: usize = 20;

/// What came of a simulation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// How many payments were promised.
    pub intents: u64,
    /// Intents whose customer was charged more than once. Must be 0.
    pub charged_twice: u64,
    /// Money that was charged and is not in the books, in minor units. Must be 0.
    pub lost_minor: i64,
    /// Receipts that nothing was charged for. Must be 0.
    pub unproven_receipts: u64,
    /// Intents that were neither settled nor in review after 48 hours. Must be 0.
    pub unsettled: u64,
    /// Intents that are paid.
    pub paid: u64,
    /// Intents that are declined.
    pub declined: u64,
    /// Intents that were given up.
    pub void: u64,
    /// Intents that people must look at.
    pub in_review: u64,
    /// Sums in suspense.
    pub in_suspense: u64,
    /// What the provider really charged.
    pub charges: u64,
    /// How often the relay was killed.
    pub crashes: u64,
    /// Steps at which it could be.
    pub steps: u64,
    /// The seed that repeats it.
    pub seed: u64,
    /// The first world that broke a rule, to be run alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_world: Option<u64>,
    /// What is wrong in it, payment by payment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// Why a simulation can't be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// No runtime.
    #[error("the simulation can't start: {0}")]
    Runtime(#[from] std::io::Error),
    /// The simulated disk.
    #[error("the simulated disk failed: {0}")]
    Storage(#[from] crate::storage::StorageError),
    /// The simulated disk can't be opened again: a fault of the storage.
    #[error("the simulated disk can't be opened after a crash: {0}")]
    Open(#[from] crate::storage::OpenError),
    /// The shop.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// The provider.
    #[error(transparent)]
    Provider(#[from] crate::payments::simulator::SimulatorError),
    /// The relay's configuration.
    #[error(transparent)]
    Config(#[from] crate::payments::mpesa::ConfigError),
    /// The relay.
    #[error(transparent)]
    Relay(#[from] crate::relay::StartError),
    /// The shop ended when nothing had happened to it.
    #[error("the simulated shop stopped by itself: a fault of the node")]
    Stopped(#[from] crate::shop_handle::Stopped),
}

impl Outcome {
    /// Whether every rule was kept.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.charged_twice == 0 && self.lost_minor == 0 && self.unproven_receipts == 0 && self.unsettled == 0
    }

    fn add(&mut self, world: u64, other: &Self) {
        self.intents += other.intents;
        self.charged_twice += other.charged_twice;
        self.lost_minor += other.lost_minor;
        self.unproven_receipts += other.unproven_receipts;
        self.unsettled += other.unsettled;
        self.paid += other.paid;
        self.declined += other.declined;
        self.void += other.void;
        self.in_review += other.in_review;
        self.in_suspense += other.in_suspense;
        self.charges += other.charges;
        self.crashes += other.crashes;
        self.steps += other.steps;
        if !other.is_sound() {
            self.broken_world = Some(self.broken_world.map_or(world, |known| known.min(world)));
            self.details.extend(other.details.iter().take(DETAILS_MAX - self.details.len().min(DETAILS_MAX)).cloned());
        }
    }
}

/// Runs `intents` payments, shop by shop, on as many threads as there are processors. `told` is
/// given how many are done.
///
/// # Errors
/// [`SimulationError`].
pub fn run(intents: u64, seed: u64, told: &(dyn Fn(u64) + Sync)) -> Result<Outcome, SimulationError> {
    let worlds = intents.div_ceil(WORLD_INTENTS);
    let next = AtomicU64::new(0);
    let total = Mutex::new((Outcome { seed, ..Outcome::default() }, None));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let world = next.fetch_add(1, Ordering::Relaxed);
                    if world >= worlds {
                        return;
                    }
                    let count = WORLD_INTENTS.min(intents - world * WORLD_INTENTS);
                    let outcome = run_world(seed, world, count);
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match outcome {
                        Ok(outcome) => {
                            total.0.add(world, &outcome);
                            told(total.0.intents);
                        }
                        Err(error) => {
                            next.store(worlds, Ordering::Relaxed);
                            total.1.get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    let (outcome, error) = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    error.map_or(Ok(outcome), Err)
}

/// Runs one shop.
///
/// # Errors
/// [`SimulationError`].
pub fn run_world(seed: u64, world: u64, intents: u64) -> Result<Outcome, SimulationError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(world::run(seed, world, intents, &|provider| provider))
}

/// Puts something between the relay and its provider, such as a fault that must be noticed.
type Between = dyn Fn(Arc<dyn PaymentProvider>) -> Arc<dyn PaymentProvider>;

#[cfg(test)]
mod planted;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shop_whose_relay_is_killed_at_every_step_charges_once_and_books_everything() {
        for world in 0..4 {
            let outcome = run_world(1, world, 60).unwrap();
            eprintln!("seed 1, world {world}: {outcome:?}");
            assert!(outcome.is_sound(), "seed 1, world {world}: {outcome:?}");
            assert!(outcome.crashes > 3 && outcome.paid > 10 && outcome.charges >= outcome.paid, "{outcome:?}");
        }
    }

    #[test]
    fn each_broken_rule_makes_an_outcome_unsound() {
        for broken in [
            Outcome { charged_twice: 1, ..Outcome::default() },
            Outcome { lost_minor: 1, ..Outcome::default() },
            Outcome { unproven_receipts: 1, ..Outcome::default() },
            Outcome { unsettled: 1, ..Outcome::default() },
        ] {
            let mut total = Outcome::default();
            total.add(3, &Outcome::default());
            total.add(7, &broken);
            assert!(!total.is_sound());
            assert_eq!(total.broken_world, Some(7));
        }
    }
}
