//! Who holds what, by signature: a till learns it however far it is from the holder, and no
//! word counts that its holder did not give.

use crate::support::{Disk, ShopNet, bread};
use crdt_model::frontier::{Frontier, FrontierRow};
use crdt_model::ids::{BusinessId, ShortHash};
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Fact, ShiftOpened};
use crdt_model::shop::{Input, LinkId, Operation, SignedVerdict, Verdict, VerdictError};
use crdt_model::sync::holding::Holding;
use crdt_model::sync::message::{Hello, Message, PROTOCOL_VERSION};

/// A till, a colleague's, and the relay.
const TILL: usize = 0;
const COLLEAGUE: usize = 1;
const RELAY: usize = 2;

/// Everybody knows who belongs to the business, as after joining.
fn enrolled(seed: u64) -> ShopNet {
    let mut net = ShopNet::new(seed, 2);
    let relay = net.devices[RELAY].identity.certificate.clone();
    net.act(COLLEAGUE, Operation { facts: vec![Fact::Enrolment(relay)], ..Operation::default() }).unwrap();
    net
}

fn sell(net: &mut ShopNet, till: usize, count: usize) {
    for _ in 0..count {
        net.act(till, bread(1, None)).unwrap();
    }
}

fn verdict(net: &ShopNet, till: usize) -> Verdict {
    let signed = net.shop(till).safe_to_wipe(net.now, false);
    let read = SignedVerdict::read(&signed.bytes, &signed.signature).unwrap();
    assert_eq!(read, signed);
    read.verdict
}

/// Pending, and synced.
fn status(net: &ShopNet, till: usize) -> (u64, u64) {
    let status = net.shop(till).status();
    (status.pending, status.synced)
}

#[test]
fn a_till_behind_another_learns_that_the_relay_has_its_sales() {
    let mut net = enrolled(300);
    net.heal(TILL, COLLEAGUE);
    net.heal(COLLEAGUE, RELAY);
    sell(&mut net, TILL, 10);
    net.run_for(1_000);
    assert_eq!(net.shop(RELAY).books().count_of(crdt_model::record::Kind::Sale), 10, "the relay has them");
    assert_eq!(status(&net, TILL), (10, 0), "and has not said so to anybody who could tell");
    assert_eq!(status(&net, COLLEAGUE), (0, 1));
    net.run_until_silent();
    assert_eq!(status(&net, TILL), (0, 10));
    assert!(net.shop(TILL).status().last_sync.is_some());

    // When somebody wants to know, it does not take half a minute.
    sell(&mut net, TILL, 1);
    net.run_for(100);
    assert_eq!(status(&net, TILL), (1, 10));
    net.feed(TILL, Input::AskHoldings);
    net.run_for(10);
    assert_eq!(status(&net, TILL), (0, 11), "asked by way of the colleague");
}

#[test]
fn a_colleague_brings_the_relays_word_where_there_is_no_network() {
    let mut net = enrolled(301);
    for (a, b) in [(TILL, COLLEAGUE), (COLLEAGUE, RELAY), (COLLEAGUE, TILL)] {
        if a == TILL {
            sell(&mut net, TILL, 5);
        }
        net.heal(a, b);
        net.run_until_silent();
        net.cut(a, b);
        net.run_until_silent();
    }
    assert_eq!(status(&net, TILL), (0, 5));
    net.snapshot(TILL);
    net.crash(TILL);
    net.start(TILL, false);
    assert_eq!(status(&net, TILL), (0, 5), "it is not forgotten");
}

#[test]
fn the_verdict_says_what_is_only_here_and_who_holds_the_rest() {
    let mut net = ShopNet::new(302, 2);
    sell(&mut net, TILL, 4);
    let alone = verdict(&net, TILL);
    assert_eq!((alone.safe, alone.only_here(), alone.not_at_relay()), (false, 4, 4));
    net.heal(TILL, COLLEAGUE);
    net.run_for(100);
    assert_eq!(verdict(&net, TILL).only_here(), 4, "what the colleague holds counts once it has signed");
    net.feed(TILL, Input::AskHoldings);
    net.run_for(10);
    let shared = verdict(&net, TILL);
    assert_eq!((shared.safe, shared.only_here(), shared.not_at_relay()), (false, 0, 4));
    assert_eq!(shared.journals[0].holders[0].device, net.shop(COLLEAGUE).device());
    assert_eq!(shared.journals[0].holders[0].high, 4);
    // What the till carries for others would be lost with it, too.
    sell(&mut net, COLLEAGUE, 3);
    net.run_for(100);
    net.cut(TILL, COLLEAGUE);
    assert_eq!(verdict(&net, TILL).not_at_relay(), 7);

    net.heal(TILL, RELAY);
    net.run_until_silent();
    let safe = verdict(&net, TILL);
    assert_eq!((safe.safe, safe.only_here(), safe.not_at_relay()), (true, 0, 0));
    assert!(!net.shop(TILL).safe_to_wipe(net.now, true).verdict.safe, "the owner's key is only here");
    assert!(!verdict(&net, RELAY).safe, "a relay's attempts are only there");
    let opened = Fact::ShiftOpened(ShiftOpened { source: None, opening_float: Money::new(0, Currency::KES) });
    net.act(TILL, Operation { facts: vec![opened], ..Operation::default() }).unwrap();
    net.run_until_silent();
    let open = verdict(&net, TILL);
    assert_eq!((open.safe, open.not_at_relay(), open.shift.is_some()), (false, 0, true));
}

#[test]
fn a_verdict_that_was_changed_or_is_of_another_device_is_not_believed() {
    let mut net = ShopNet::new(303, 2);
    sell(&mut net, TILL, 1);
    let signed = net.shop(TILL).safe_to_wipe(net.now, false);
    // CBOR's no, turned into yes, wherever it is.
    let no: Vec<usize> = (0..signed.bytes.len()).filter(|at| signed.bytes[*at] == 0xf4).collect();
    assert!(!no.is_empty());
    for at in no {
        let mut lie = signed.bytes.clone();
        lie[at] = 0xf5;
        assert_eq!(SignedVerdict::read(&lie, &signed.signature), Err(VerdictError::BadSignature));
    }
    let other = net.shop(RELAY).safe_to_wipe(net.now, false);
    assert_eq!(SignedVerdict::read(&signed.bytes, &other.signature), Err(VerdictError::BadSignature));
    assert!(matches!(SignedVerdict::read(b"safe", &signed.signature), Err(VerdictError::Unreadable(_))));
}

#[test]
fn a_relay_that_lost_its_disk_takes_its_word_back() {
    let mut net = ShopNet::new(304, 2);
    net.heal(TILL, RELAY);
    sell(&mut net, TILL, 6);
    net.run_until_silent();
    net.cut(TILL, RELAY);
    net.run_until_silent();
    assert!(verdict(&net, TILL).safe);
    net.crash(RELAY);
    net.devices[RELAY].disk = Disk::default();
    net.start(RELAY, true);
    // It meets the colleague first, and signs for what it holds now.
    sell(&mut net, COLLEAGUE, 1);
    net.heal(COLLEAGUE, RELAY);
    net.run_until_silent();
    net.cut(COLLEAGUE, RELAY);
    net.run_until_silent();
    net.heal(COLLEAGUE, TILL);
    net.run_until_silent();
    let verdict = verdict(&net, TILL);
    assert!(!verdict.safe);
    assert!(verdict.not_at_relay() >= 6, "{verdict:?}");
}

/// The till, and a link on which the colleague has said hello; the test plays the colleague.
fn greeted(seed: u64) -> (ShopNet, LinkId) {
    let mut net = ShopNet::new(seed, 2);
    sell(&mut net, TILL, 3);
    let certificate = net.devices[COLLEAGUE].identity.certificate.clone();
    let link = net.play_peer(TILL, certificate.device);
    let hello = Hello { version: PROTOCOL_VERSION, business: certificate.business, certificate };
    net.feed(TILL, Input::Received(link, Message::Hello(hello).to_frame()));
    (net, link)
}

/// What the till has, signed for by another device's key.
fn word(net: &ShopNet, signer: usize, number: u64, high: u64, business: BusinessId) -> Holding {
    let journal = net.shop(TILL).own_journal();
    let hash = net.shop(TILL).head(journal).unwrap().short();
    let row = FrontierRow { journal, base: 0, high, hash };
    Holding::sign(business, &net.devices[signer].identity.key, number, Frontier(vec![row]))
}

fn hear(net: &mut ShopNet, link: LinkId, holding: Holding) {
    net.feed(TILL, Input::Received(link, Message::Holding(Box::new(holding)).to_frame()));
}

#[test]
fn a_forged_word_ends_the_link() {
    let (mut net, link) = greeted(305);
    let business = net.shop(TILL).business();
    let mut forged = word(&net, COLLEAGUE, 9, 3, business);
    forged.device = net.shop(COLLEAGUE).device();
    forged.frontier.0[0].high = 2;
    hear(&mut net, link, forged);
    assert!(net.devices[TILL].refused[0].contains("forged"), "{:?}", net.devices[TILL].refused);
    assert_eq!(verdict(&net, TILL).only_here(), 3);
}

#[test]
fn a_word_for_another_business_an_older_one_and_a_strangers_count_for_nothing() {
    let (mut net, link) = greeted(306);
    let business = net.shop(TILL).business();
    let older = word(&net, COLLEAGUE, 5, 3, business);
    let newer = word(&net, COLLEAGUE, 6, 1, business);
    hear(&mut net, link, newer);
    assert_eq!(verdict(&net, TILL).only_here(), 3, "its hash is not that of our first entry");
    hear(&mut net, link, older.clone());
    hear(&mut net, link, older);
    assert_eq!(verdict(&net, TILL).only_here(), 3, "it was true once, and is not the latest word");
    // The relay was never met here, so nobody knows that it is one of ours.
    let stranger = word(&net, RELAY, 7, 3, business);
    hear(&mut net, link, stranger);
    assert_eq!(verdict(&net, TILL).not_at_relay(), 3);
    assert!(net.devices[TILL].refused.is_empty(), "none of this breaks the protocol");

    let elsewhere = word(&net, COLLEAGUE, 8, 3, BusinessId(uuid::Uuid::from_u128(1)));
    hear(&mut net, link, elsewhere);
    assert_eq!(verdict(&net, TILL).only_here(), 3);
    assert_eq!(net.devices[TILL].refused.len(), 1);
}

#[test]
fn another_history_of_a_journal_does_not_count_for_ours() {
    let (mut net, link) = greeted(307);
    let business = net.shop(TILL).business();
    let mut rows = word(&net, COLLEAGUE, 9, 3, business).frontier;
    rows.0[0].hash = ShortHash([1; 16]);
    let key = net.devices[COLLEAGUE].identity.key.clone();
    hear(&mut net, link, Holding::sign(business, &key, 9, rows));
    assert_eq!(verdict(&net, TILL).only_here(), 3);
    let honest = word(&net, COLLEAGUE, 10, 3, business);
    hear(&mut net, link, honest);
    assert_eq!(verdict(&net, TILL).only_here(), 0);
    let beyond = word(&net, COLLEAGUE, 11, 99, business);
    hear(&mut net, link, beyond);
    assert_eq!(verdict(&net, TILL).only_here(), 3, "nobody holds more of our journal than we wrote");
}

#[test]
fn words_out_of_order_or_asked_for_without_end_cost_little() {
    let (mut net, link) = greeted(308);
    let business = net.shop(TILL).business();
    let mut rows = word(&net, COLLEAGUE, 9, 3, business).frontier;
    rows.0.push(rows.0[0]);
    let key = net.devices[COLLEAGUE].identity.key.clone();
    hear(&mut net, link, Holding::sign(business, &key, 9, rows));
    assert!(net.devices[TILL].refused[0].contains("out of order"));
    let (mut net, link) = greeted(309);
    for _ in 0..1_000 {
        net.feed(TILL, Input::Received(link, Message::SignPlease.to_frame()));
    }
    let signed: Vec<u64> = net.shop(TILL).holdings().map(|holding| holding.number).collect();
    assert_eq!(signed.len(), 1);
}

#[test]
fn words_cost_a_busy_till_a_few_bytes_a_sale() {
    let bytes = |net: &ShopNet| net.devices.iter().map(|device| device.bytes_sent).sum::<u64>();
    let mut net = enrolled(310);
    net.heal(TILL, COLLEAGUE);
    net.heal(COLLEAGUE, RELAY);
    sell(&mut net, TILL, 1);
    net.run_until_silent();
    let before = bytes(&net);
    for _ in 0..100 {
        sell(&mut net, TILL, 1);
        net.run_for(6_000);
    }
    let all = (bytes(&net) - before) / 100;
    let words = 10 * 60_000 / 30_000 * 2 * 190 / 100;
    assert!(all <= 2 * (76 + 14) + words, "{all} bytes a sale over two links, of which {words} may be words");
}
