//! `ShopNet`: several shops in one process, in virtual time, with links that can be cut and
//! devices that can crash. Everything follows from the seed.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use crdt_model::document::{DELETED, DocumentId, FieldValue};
use crdt_model::entry::{Entry, Place};
use crdt_model::ids::{DeviceId, JournalId, OwnerKey};
use crdt_model::journal::JournalInfo;
use crdt_model::money::Currency;
use crdt_model::record::{Certificate, Fact, Genesis, Line, Role, Sale, Tender, TenderKind};
use crdt_model::shop::{
    ActError, Acted, Identity, Input, LOAD_ENTRIES_MAX, LinkId, LinkKind, Operation, Output, Shop, Split, Stored,
};
use crdt_model::sync::codec::RunBuilder;
use crdt_model::sync::compact::range_frame;
use crdt_model::sync::message::Message;
use crdt_model::time::Timestamp;
use ed25519_dalek::SigningKey;

/// What survives a crash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) entries: BTreeMap<(JournalId, u64), Vec<u8>>,
    pub(crate) journals: BTreeMap<JournalId, JournalInfo>,
    pub(crate) snapshot: Option<Vec<u8>>,
}

/// One device of the net.
pub(crate) struct Device {
    pub(crate) identity: Identity,
    pub(crate) disk: Disk,
    pub(crate) shop: Option<Shop>,
    /// The peer and our end's number, for each link that is up.
    links: BTreeMap<LinkId, (usize, LinkId)>,
    inbox: VecDeque<(Timestamp, Input)>,
    wakes: Vec<Timestamp>,
    pub(crate) frames_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) refused: Vec<String>,
    starts: u8,
}

/// Several shops, in virtual time.
pub(crate) struct ShopNet {
    pub(crate) devices: Vec<Device>,
    pub(crate) now: Timestamp,
    seed: u64,
    next_link: u64,
    latency_ms: u64,
}

/// A small generator, so that a seed replays exactly everywhere (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// The owner of the net's business.
pub(crate) fn owner() -> SigningKey {
    SigningKey::from_bytes(&[250; 32])
}

/// A cash sale of one line.
pub(crate) fn bread(quantity: i64, key: Option<&str>) -> Operation {
    let source = key.map(|key| crdt_model::record::Source { instance: "test".to_owned(), key: key.to_owned() });
    let lines = vec![Line {
        sku: "BREAD".to_owned(),
        quantity_milli: quantity * 1000,
        unit_price_minor: 6500,
        discount_minor: 0,
        tax_rate_bp: None,
    }];
    let tenders = vec![Tender { kind: TenderKind::Cash, amount_minor: quantity * 6500 }];
    let sale = Sale {
        source,
        occurred: None,
        currency: Currency::KES,
        lines,
        tenders,
        customer: None,
        note: None,
        ticket: None,
    };
    Operation { facts: vec![Fact::Sale(sale)], ..Operation::default() }
}

impl ShopNet {
    /// `tills` tills and then one relay, not linked yet.
    pub(crate) fn new(seed: u64, tills: usize) -> Self {
        println!("ShopNet seed {seed}");
        let owner = owner();
        let genesis = Genesis {
            name: "Duka".to_owned(),
            currency: Currency::KES,
            founded: Timestamp(1_700_000_000_000),
            owners: vec![OwnerKey(owner.verifying_key().to_bytes())],
            recovery: OwnerKey([9; 32]),
            utc_offset_minutes: 180,
            nonce: [4; 16],
        };
        let now = Timestamp(1_700_000_100_000);
        let mut net = Self { devices: Vec::new(), now, seed, next_link: 0, latency_ms: 2 };
        for index in 0..=tills {
            let key = SigningKey::from_bytes(&[u8::try_from(index).unwrap() + 1; 32]);
            let role = if index == tills { Role::Relay } else { Role::Till };
            let device = DeviceId(key.verifying_key().to_bytes());
            let name = format!("device {index}");
            let certificate = Certificate::sign(genesis.business(), device, name, role, now, &owner);
            let identity =
                Identity { genesis: genesis.clone(), certificate, key, entropy: [0; 32], carries_own: false };
            net.add(identity, Disk::default());
        }
        net
    }

    /// Adds a device, such as a copy of another one's disk.
    pub(crate) fn add(&mut self, identity: Identity, disk: Disk) -> usize {
        self.devices.push(Device {
            identity,
            disk,
            shop: None,
            links: BTreeMap::new(),
            inbox: VecDeque::new(),
            wakes: Vec::new(),
            frames_sent: 0,
            bytes_sent: 0,
            refused: Vec::new(),
            starts: 0,
        });
        let index = self.devices.len() - 1;
        self.start(index, false);
        index
    }

    pub(crate) fn start(&mut self, index: usize, begin_epoch: bool) {
        let device = &mut self.devices[index];
        device.starts += 1;
        let mut entropy = [device.starts; 32];
        entropy[..8].copy_from_slice(&self.seed.to_le_bytes());
        entropy[8] = u8::try_from(index).unwrap();
        device.identity.entropy = entropy;
        let stored = Stored {
            snapshot: device.disk.snapshot.clone(),
            journals: device.disk.journals.values().cloned().collect(),
            begin_epoch,
        };
        let (shop, outputs) = Shop::open(device.identity.clone(), stored).unwrap();
        device.shop = Some(shop);
        self.carry_out(index, outputs);
    }

    /// Pulls the plug: what was not committed is gone, and so are the links.
    pub(crate) fn crash(&mut self, index: usize) {
        for (peer, link) in std::mem::take(&mut self.devices[index].links).into_values() {
            self.devices[peer].links.remove(&link);
            self.devices[peer].inbox.push_back((self.now, Input::LinkDown(link)));
        }
        let device = &mut self.devices[index];
        device.shop = None;
        device.inbox.clear();
        device.wakes.clear();
    }

    /// Takes a snapshot, as a long run or an orderly stop does.
    pub(crate) fn snapshot(&mut self, index: usize) {
        let device = &mut self.devices[index];
        device.disk.snapshot = device.shop.as_ref().map(Shop::snapshot);
    }

    /// Links two devices.
    pub(crate) fn heal(&mut self, a: usize, b: usize) {
        let (left, right) = (LinkId(self.next_link), LinkId(self.next_link + 1));
        self.next_link += 2;
        self.devices[a].links.insert(left, (b, right));
        self.devices[b].links.insert(right, (a, left));
        let (key_a, key_b) = (self.shop(a).device(), self.shop(b).device());
        self.devices[a].inbox.push_back((self.now, Input::LinkUp(left, key_b, LinkKind::Memory)));
        self.devices[b].inbox.push_back((self.now, Input::LinkUp(right, key_a, LinkKind::Memory)));
    }

    /// Cuts every link between two devices; frames on their way are lost.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let cut: Vec<LinkId> =
                self.devices[from].links.iter().filter(|(_, (peer, _))| *peer == to).map(|(link, _)| *link).collect();
            for link in cut {
                self.devices[from].links.remove(&link);
                self.devices[from].inbox.retain(|(_, input)| !matches!(input, Input::Received(on, _) if *on == link));
                self.devices[from].inbox.push_back((self.now, Input::LinkDown(link)));
            }
        }
    }

    pub(crate) fn shop(&self, index: usize) -> &Shop {
        self.devices[index].shop.as_ref().expect("the device is running")
    }

    /// Records an operation on a device; it is durable when this answers.
    pub(crate) fn act(&mut self, index: usize, operation: Operation) -> Result<Acted, ActError> {
        let now = self.now;
        let outputs = self.devices[index].shop.as_mut().unwrap().handle(Input::Act(Box::new(operation)), now);
        self.carry_out(index, outputs).pop().expect("an answer")
    }

    /// Records an operation on a device that loses power right after it was acknowledged, before
    /// anything was signed or sent.
    pub(crate) fn act_and_crash(&mut self, index: usize, operation: Operation) {
        let now = self.now;
        let shop = self.devices[index].shop.as_mut().unwrap();
        let mut outputs = shop.handle(Input::Act(Box::new(operation)), now);
        outputs.extend(shop.handle(Input::Stage, now));
        assert!(outputs.iter().any(|output| matches!(output, Output::Acted(Ok(_)))));
        self.commit(index, &outputs);
        self.crash(index);
    }

    /// Carries out outputs as the real loop does: commit first, then the rest in order.
    fn carry_out(&mut self, index: usize, mut outputs: Vec<Output>) -> Vec<Result<Acted, ActError>> {
        let mut answers = Vec::new();
        outputs.extend(self.devices[index].shop.as_mut().unwrap().handle(Input::Stage, self.now));
        self.commit(index, &outputs);
        outputs.retain(|output| !matches!(output, Output::Begun(_) | Output::Journal { .. }));
        loop {
            let now = self.now;
            let shop = self.devices[index].shop.as_mut().unwrap();
            outputs.extend(shop.handle(Input::Seal, now));
            self.commit(index, &outputs);
            let mut more = Vec::new();
            let mut fed = false;
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::Acted(answer) => answers.push(answer),
                    Output::Send(link, frame) => self.send(index, link, frame),
                    Output::SendRange { link, journal, info, from, through, branch } => {
                        self.send_range(index, link, journal, info, from, through, branch);
                    }
                    Output::Load { journal, from } => {
                        fed = true;
                        let entries = self.load(index, journal, from);
                        let input = Input::Loaded { journal, from, entries };
                        more.extend(self.devices[index].shop.as_mut().unwrap().handle(input, now));
                    }
                    Output::Fetch(places) => {
                        fed = true;
                        let entries = places.iter().filter_map(|place| Some((*place, self.entry(index, *place)?)));
                        let input = Input::Fetched(entries.collect());
                        more.extend(self.devices[index].shop.as_mut().unwrap().handle(input, now));
                    }
                    Output::Split(split) => {
                        fed = true;
                        more.extend(self.split(index, &split));
                    }
                    Output::Refuse(link, reason) => {
                        self.devices[index].refused.push(reason);
                        if let Some((peer, _)) = self.devices[index].links.get(&link).copied() {
                            self.cut(index, peer);
                        }
                    }
                    Output::WakeAt(at) => self.devices[index].wakes.push(at),
                    Output::Changed(_) | Output::Greeted(_) | Output::Begun(_) => {}
                    Output::Journal { .. } | Output::Signed(_) => {}
                }
            }
            outputs = more;
            if !fed {
                return answers;
            }
        }
    }

    fn commit(&mut self, index: usize, outputs: &[Output]) {
        let disk = &mut self.devices[index].disk;
        for output in outputs {
            match output {
                Output::Begun(info) => {
                    disk.journals.insert(info.id(), info.clone());
                }
                Output::Journal { entries, runs, .. } => {
                    let single =
                        entries.iter().map(|entry| (entry.place.journal, entry.place.seq, entry.bytes.clone()));
                    let packed = runs.iter().flat_map(|run| {
                        (run.first..)
                            .zip(run.unpack().unwrap())
                            .map(|(seq, entry)| (run.journal, seq, entry.to_bytes()))
                    });
                    for (journal, seq, bytes) in single.chain(packed) {
                        let place = (journal, seq);
                        assert!(disk.entries.insert(place, bytes).is_none(), "{place:?} written twice");
                    }
                }
                Output::Signed(entry) => {
                    let place = (entry.place.journal, entry.place.seq);
                    assert!(disk.entries.insert(place, entry.bytes.clone()).is_some(), "{place:?} signed, not written");
                }
                _ => {}
            }
        }
    }

    fn entry(&self, index: usize, place: Place) -> Option<Entry> {
        let bytes = self.devices[index].disk.entries.get(&(place.journal, place.seq))?;
        Some(Entry::from_bytes(bytes).unwrap())
    }

    fn load(&self, index: usize, journal: JournalId, from: u64) -> Vec<Entry> {
        let stored = self.devices[index].disk.entries.range((journal, from)..=(journal, u64::MAX));
        stored.take(LOAD_ENTRIES_MAX).map(|(_, bytes)| Entry::from_bytes(bytes).unwrap()).collect()
    }

    fn split(&mut self, index: usize, split: &Split) -> Vec<Output> {
        let device = &mut self.devices[index];
        let branch = split.branch.id();
        let beyond = device.disk.entries.split_off(&(split.journal, split.keep_through + 1));
        for ((journal, seq), bytes) in beyond {
            let journal = if journal == split.journal { branch } else { journal };
            device.disk.entries.insert((journal, seq), bytes);
        }
        device.disk.journals.insert(branch, split.branch.clone());
        device.disk.snapshot = None;
        let peers: Vec<usize> = device.links.values().map(|(peer, _)| *peer).collect();
        let stored =
            Stored { snapshot: None, journals: device.disk.journals.values().cloned().collect(), begin_epoch: false };
        let (shop, outputs) = Shop::open(device.identity.clone(), stored).unwrap();
        device.shop = Some(shop);
        for peer in peers {
            self.cut(index, peer);
            self.heal(index, peer);
        }
        outputs
    }

    fn send(&mut self, index: usize, link: LinkId, frame: Vec<u8>) {
        let Some((peer, their_link)) = self.devices[index].links.get(&link).copied() else { return };
        self.devices[index].frames_sent += 1;
        self.devices[index].bytes_sent += frame.len() as u64;
        let at = self.now.plus_ms(self.latency_ms);
        self.devices[peer].inbox.push_back((at, Input::Received(their_link, frame)));
    }

    #[allow(clippy::too_many_arguments)]
    fn send_range(
        &mut self,
        index: usize,
        link: LinkId,
        journal: JournalId,
        info: Option<JournalInfo>,
        from: u64,
        through: u64,
        branch: Option<crdt_model::sync::message::BranchPoint>,
    ) {
        let mut builder = RunBuilder::new(journal, info, from);
        for (_, bytes) in self.devices[index].disk.entries.range((journal, from)..=(journal, through)) {
            if builder.push(Entry::from_bytes(bytes).unwrap()).is_break() {
                break;
            }
        }
        let Some(run) = builder.finish() else { return };
        let last = from + run.entries.len() as u64 - 1;
        let before = |seq| Ok::<_, Infallible>(self.entry(index, Place { journal, seq }));
        let frame = match branch {
            None => range_frame(run, before).unwrap(),
            Some(point) => Message::Branch(point, Box::new(run)).to_frame(),
        };
        self.send(index, link, frame);
        if branch.is_none() {
            self.devices[index].inbox.push_back((self.now, Input::RangeSent { link, journal, through: last }));
        }
    }

    /// Runs until no frame is left, and no wake-up within a second.
    pub(crate) fn run_until_quiet(&mut self) {
        self.run_while_due_within(1_000);
    }

    /// Runs until no frame and no wake-up at all is left: everything that is owed is signed.
    pub(crate) fn run_until_silent(&mut self) {
        self.run_while_due_within(u64::MAX);
    }

    fn run_while_due_within(&mut self, ms: u64) {
        for step in 0.. {
            assert!(step < 1_000_000, "seed {}: the net never becomes quiet", self.seed);
            let inbox = self.devices.iter().filter(|device| device.shop.is_some());
            let next = inbox
                .flat_map(|device| {
                    device.inbox.front().map(|(at, _)| *at).into_iter().chain(device.wakes.iter().copied())
                })
                .min();
            let Some(at) = next.filter(|at| *at <= self.now.plus_ms(ms)) else { return };
            self.now = self.now.max(at);
            for index in 0..self.devices.len() {
                self.step(index);
            }
        }
    }

    /// Lets so many milliseconds pass.
    pub(crate) fn run_for(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now.plus_ms(1);
            for index in 0..self.devices.len() {
                self.step(index);
            }
        }
    }

    fn step(&mut self, index: usize) {
        let now = self.now;
        if self.devices[index].shop.is_none() {
            return;
        }
        let mut outputs = Vec::new();
        if self.devices[index].wakes.iter().any(|wake| *wake <= now) {
            self.devices[index].wakes.retain(|wake| *wake > now);
            outputs.extend(self.devices[index].shop.as_mut().unwrap().handle(Input::Tick, now));
        }
        while let Some((at, _)) = self.devices[index].inbox.front()
            && *at <= now
        {
            let (_, input) = self.devices[index].inbox.pop_front().unwrap();
            outputs.extend(self.devices[index].shop.as_mut().unwrap().handle(input, now));
        }
        self.carry_out(index, outputs);
    }

    /// Opens a link to a device whose other end the test plays itself.
    pub(crate) fn play_peer(&mut self, index: usize, device: DeviceId) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        self.feed(index, Input::LinkUp(link, device, LinkKind::Memory));
        link
    }

    /// Gives an input to a device and carries out what follows.
    pub(crate) fn feed(&mut self, index: usize, input: Input) {
        let now = self.now;
        let outputs = self.devices[index].shop.as_mut().unwrap().handle(input, now);
        self.carry_out(index, outputs);
    }

    /// Every running device holds the same entries and shows the same figures and documents.
    pub(crate) fn assert_converged(&self) {
        let mut seen = None;
        for (index, device) in self.devices.iter().enumerate() {
            let Some(shop) = &device.shop else { continue };
            assert_listed(shop);
            let heads: Vec<_> = shop.documents().map(|(id, document)| (id, document.heads())).collect();
            let state = (shop.frontier(), shop.books().digest(), heads, shop.conflict_count());
            match &seen {
                None => seen = Some(state),
                Some(first) => assert_eq!(first, &state, "seed {}: device {index} differs", self.seed),
            }
        }
    }
}

/// The list of products is what the catalogue says.
fn assert_listed(shop: &Shop) {
    for (id, document) in shop.documents().filter(|(id, _)| matches!(id, DocumentId::Catalogue(_))) {
        for product in document.records() {
            let deleted = document.field(product, DELETED) == Some(FieldValue::Bool(true));
            let listed = document.field(product, "sku").is_some() && !deleted;
            assert_eq!(shop.lists(product), listed, "product {product} of {id}");
        }
    }
}
