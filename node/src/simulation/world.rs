//! One shop over some days of virtual time: customers come, the relay dies and is started again,
//! and in the end the books are compared with the truth.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crdt_model::ids::{DeviceId, OwnerKey, RecordId};
use crdt_model::money::Currency;
use crdt_model::record::{Certificate, Genesis, Role};
use crdt_model::shop::Identity;
use crdt_model::time::Timestamp;
use ed25519_dalek::SigningKey;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::crash::{Killable, Steps};
use super::customers::{Counter, Customer};
use super::verdict::Books;
use super::wires::{ToProvider, ToRelay};
use super::{Between, Outcome, SimulationError};
use crate::clock::{self, VirtualClock};
use crate::links::LinkTable;
use crate::payments::simulator::{Dice, Offline, SimulatorConfig};
use crate::payments::{MpesaClient, MpesaConfig};
use crate::relay::{Relay, RelayConfig};
use crate::shop_handle::ShopHandle;
use crate::shop_loop::ShopLoop;
use crate::storage::FileInMemory;

const BEGAN: Timestamp = Timestamp(1_750_000_000_000);
/// After the last customer: two days until a person must look, and a little for the last list.
const DAYS: Duration = Duration::from_secs((6 + 4 + 48 + 2) * 3_600);
/// How often one looks whether all is settled.
const LOOK: Duration = Duration::from_secs(1_200);
/// Everything happens within this after all is settled: late callbacks, late lists.
const AFTERMATH: Duration = Duration::from_secs(4 * 3_600);
/// The relay dies within so many steps, again and again, while the shop is open.
const KILL_WITHIN: [u64; 5] = [3, 20, 100, 400, 1_500];
const KILLS_MAX: u64 = 40;

struct World {
    file: FileInMemory,
    steps: Arc<Steps>,
    provider: Arc<Offline>,
    to_relay: Arc<ToRelay>,
    counter: Arc<Counter>,
    identity: Identity,
    dice: Dice,
    starts: u64,
    crashes: u64,
}

/// A running relay: dropped, it is a killed process.
struct Process {
    relay: Relay,
    shop: ShopHandle,
    shop_loop: JoinHandle<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shop_loop.abort();
    }
}

pub(super) async fn run(seed: u64, number: u64, intents: u64, between: &Between) -> Result<Outcome, SimulationError> {
    let _quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    let _clock = VirtualClock::start(BEGAN);
    let mut world = World::new(seed, number)?;
    let promises: Arc<Mutex<Vec<RecordId>>> = Arc::default();
    let mut customers = JoinSet::new();
    for customer in 0..intents {
        let customer = Customer {
            counter: Arc::clone(&world.counter),
            provider: Arc::clone(&world.provider),
            dice: Dice::of(seed, &format!("customer {number} {customer}")),
            key: customer.to_string(),
            promises: Arc::clone(&promises),
        };
        customers.spawn(customer.visit());
    }
    let end = Instant::now() + DAYS;
    let mut settled_at = None;
    let mut process = world.start(between).await?;
    let books = loop {
        let look = (Instant::now() + LOOK).min(end);
        tokio::select! {
            biased;
            () = world.steps.killed() => {
                drop(process);
                world.bury();
                tokio::time::sleep(world.downtime()).await;
                process = world.start(between).await?;
                continue;
            }
            () = tokio::time::sleep_until(look) => {}
        }
        let all = promises.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = all.len() as u64;
        let Ok(books) = process.shop.ask(move |shop| Books::of(shop, &all)).await else { continue };
        let done = count == intents && books.are_settled() && !world.provider.is_busy();
        let done = done && books.hold(&world.provider.charges()) && customers.is_empty_now();
        settled_at = if done { settled_at.or(Some(Instant::now())) } else { None };
        let over = settled_at.is_some_and(|at| at.elapsed() >= AFTERMATH);
        if over || Instant::now() >= end {
            break books;
        }
    };
    customers.abort_all();
    let mut outcome = books.judge(&world.provider.charges());
    if !outcome.is_sound() {
        for (intent, fault) in books.faults(&world.provider.charges()) {
            let attempts = intent.map(|intent| crate::relay::attempts(&process.shop, intent));
            let payment = match intent {
                Some(intent) => process.shop.ask(move |shop| shop.books().payment(intent)).await.ok().flatten(),
                None => None,
            };
            outcome.details.push(format!("world {number}: {fault}; {attempts:?}; {payment:?}"));
        }
    }
    outcome.unsettled += intents - outcome.intents;
    outcome.intents = intents;
    outcome.unproven_receipts += world.provider.counts().forgeries_taken;
    (outcome.crashes, outcome.steps, outcome.seed) = (world.crashes, world.steps.passed(), seed);
    world.counter.close();
    Ok(outcome)
}

trait IsEmptyNow {
    fn is_empty_now(&mut self) -> bool;
}

impl IsEmptyNow for JoinSet<()> {
    /// Whether every task has ended.
    fn is_empty_now(&mut self) -> bool {
        while self.try_join_next().is_some() {}
        self.is_empty()
    }
}

impl World {
    fn new(seed: u64, number: u64) -> Result<Self, SimulationError> {
        let mut run = [0_u8; 32];
        for (to, from) in run.iter_mut().zip(seed.to_le_bytes().into_iter().chain(number.to_le_bytes())) {
            *to = from;
        }
        let to_relay = Arc::new(ToRelay::default());
        let config = SimulatorConfig {
            seed: seed.wrapping_mul(1_000_003).wrapping_add(number),
            chaos: true,
            queries_a_minute: Some(5),
            pushes_a_minute: Some(20),
            ..SimulatorConfig::default()
        };
        let provider = Offline::new(config, Arc::clone(&to_relay) as Arc<_>, run)?;
        Ok(Self {
            file: FileInMemory::create()?,
            steps: Arc::default(),
            provider: Arc::new(provider),
            to_relay,
            counter: Arc::default(),
            identity: identity(),
            dice: Dice::of(seed, &format!("world {number}")),
            starts: 0,
            crashes: 0,
        })
    }

    /// Starts the relay, again if it dies while it starts.
    async fn start(&mut self, between: &Between) -> Result<Process, SimulationError> {
        loop {
            let within = self.dice.one_of(&KILL_WITHIN, 100);
            let kill_in = if self.crashes < KILLS_MAX { 1 + self.dice.below(within) } else { 0 };
            self.steps.begin(kill_in);
            let steps = Arc::clone(&self.steps);
            let started = tokio::select! {
                biased;
                started = self.start_once(between) => started,
                () = steps.killed() => {
                    self.bury();
                    continue;
                }
            };
            match started {
                Ok(process) => {
                    *self.to_relay.running.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(process.relay.callback_router());
                    self.counter.open(process.shop.clone(), process.relay.watch());
                    return Ok(process);
                }
                Err(error) if !self.steps.is_dead() => return Err(error),
                Err(_) => {
                    // The notice of its death is used up with it.
                    self.steps.killed().await;
                    self.bury();
                }
            }
        }
    }

    async fn start_once(&mut self, between: &Between) -> Result<Process, SimulationError> {
        self.starts += 1;
        let mut identity = self.identity.clone();
        for (to, from) in identity.entropy.iter_mut().zip(self.starts.to_le_bytes()) {
            *to = from;
        }
        let storage = Killable { storage: self.file.open()?, steps: Arc::clone(&self.steps) };
        let changes = broadcast::Sender::new(4_096);
        let links = Arc::new(LinkTable::default());
        let opened = ShopLoop::open(Box::new(storage), identity.clone(), false, links, changes, None)?;
        let (shop, attendant) = ShopHandle::open(opened);
        // A crash ends it with an error, which is what is wanted.
        let shop_loop = tokio::spawn(async move { drop(attendant.run().await) });
        let wire = ToProvider {
            router: self.provider.router(),
            steps: Arc::clone(&self.steps),
            dice: Mutex::new(Dice::new(self.dice.any())),
        };
        let text = SimulatorConfig::default().credentials_toml("http://127.0.0.1:2", "http://127.0.0.1:1");
        let mpesa = MpesaConfig::from_toml(&text)?;
        let config = RelayConfig {
            mpesa: Some(mpesa.clone()),
            callbacks: Some(([127, 0, 0, 1], 1).into()),
            claim_quiet: Duration::ZERO,
            check_every: Duration::from_secs(60),
            mail_every: Duration::from_secs(60),
            ..RelayConfig::default()
        };
        let client = between(Arc::new(MpesaClient::over(mpesa, Arc::new(wire))));
        let now = Arc::new(clock::now);
        let process = Relay::start_over(shop.clone(), &identity, config, now, Some(client), None).await;
        match process {
            Ok(relay) => Ok(Process { relay, shop, shop_loop }),
            Err(error) => {
                shop_loop.abort();
                Err(error.into())
            }
        }
    }

    /// What a killed process still wanted to write is gone.
    fn bury(&mut self) {
        self.file.cut_off();
        *self.to_relay.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.counter.close();
        self.crashes += 1;
    }

    fn downtime(&mut self) -> Duration {
        Duration::from_secs(self.dice.one_of(&[0, 0, 1, 30, 600, 2_700], 1))
    }
}

fn identity() -> Identity {
    let owner = SigningKey::from_bytes(&[250; 32]);
    let genesis = Genesis {
        name: "Duka".to_owned(),
        currency: Currency::KES,
        founded: BEGAN,
        owners: vec![OwnerKey(owner.verifying_key().to_bytes())],
        recovery: OwnerKey([9; 32]),
        utc_offset_minutes: 180,
        nonce: [4; 16],
    };
    let key = SigningKey::from_bytes(&[1; 32]);
    let device = DeviceId(key.verifying_key().to_bytes());
    let certificate = Certificate::sign(genesis.business(), device, "relay".to_owned(), Role::Relay, BEGAN, &owner);
    Identity { genesis, certificate, key, entropy: [1; 32], carries_own: false }
}
