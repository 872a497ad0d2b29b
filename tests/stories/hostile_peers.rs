//! Peers that are not ours, or don't keep to the protocol: nothing of theirs is applied, and the
//! reason is clear.

use crate::support::{ShopNet, bread};
use crdt_model::ids::DeviceId;
use crdt_model::record::{Certificate, Kind, Role};
use crdt_model::shop::{Input, LinkId};
use crdt_model::sync::codec::Run;
use crdt_model::sync::message::{Hello, Message, PROTOCOL_VERSION};
use crdt_model::time::Timestamp;
use ed25519_dalek::SigningKey;

fn hello(net: &ShopNet, certificate: Certificate, version: u32) -> Vec<u8> {
    Message::Hello(Hello { version, business: net.shop(0).business(), certificate }).to_frame()
}

/// Device 0, and a link on which till 1 has said hello; the test plays till 1.
fn greeted() -> (ShopNet, LinkId) {
    let mut net = ShopNet::new(50, 2);
    let certificate = net.devices[1].identity.certificate.clone();
    let link = net.play_peer(0, certificate.device);
    let frame = hello(&net, certificate, PROTOCOL_VERSION);
    net.feed(0, Input::Received(link, frame));
    assert!(net.devices[0].refused.is_empty());
    (net, link)
}

/// A run of till 1's journal, as it would send it.
fn run_of_till_1(net: &mut ShopNet) -> Run {
    net.act(1, bread(1, None)).unwrap();
    let journal = net.shop(1).own_journal();
    let info = net.shop(1).journal(journal).unwrap().info.clone();
    let bytes = net.devices[1].disk.entries.get(&(journal, 1)).unwrap();
    let mut entry = crdt_model::entry::Entry::from_bytes(bytes).unwrap();
    let signature = entry.mark.take().unwrap().signature;
    Run { journal, info: Some(info), start: 1, entries: vec![entry], signature }
}

#[test]
fn a_device_of_another_version_is_told_which_to_update() {
    let mut net = ShopNet::new(51, 2);
    let certificate = net.devices[1].identity.certificate.clone();
    let link = net.play_peer(0, certificate.device);
    let frame = hello(&net, certificate, PROTOCOL_VERSION + 1);
    net.feed(0, Input::Received(link, frame));
    assert!(net.devices[0].refused[0].contains("update the older one"), "{:?}", net.devices[0].refused);
}

#[test]
fn a_device_that_no_owner_enrolled_is_refused() {
    let mut net = ShopNet::new(52, 2);
    let stranger = SigningKey::from_bytes(&[99; 32]);
    let device = DeviceId(stranger.verifying_key().to_bytes());
    let business = net.shop(0).business();
    let own = Certificate::sign(business, device, "me".to_owned(), Role::Till, Timestamp(1), &stranger);
    let link = net.play_peer(0, device);
    let frame = hello(&net, own, PROTOCOL_VERSION);
    net.feed(0, Input::Received(link, frame));
    assert!(net.devices[0].refused[0].contains("no owner"), "{:?}", net.devices[0].refused);
}

#[test]
fn another_devices_certificate_is_worth_nothing() {
    let mut net = ShopNet::new(53, 2);
    let certificate = net.devices[1].identity.certificate.clone();
    let link = net.play_peer(0, DeviceId([3; 32]));
    let frame = hello(&net, certificate, PROTOCOL_VERSION);
    net.feed(0, Input::Received(link, frame));
    assert!(net.devices[0].refused[0].contains("another device's"), "{:?}", net.devices[0].refused);
}

#[test]
fn nothing_is_said_or_taken_before_the_hello() {
    let mut net = ShopNet::new(54, 2);
    let run = run_of_till_1(&mut net);
    let device = net.shop(1).device();
    let link = net.play_peer(0, device);
    net.feed(0, Input::Received(link, Message::Entries(vec![run]).to_frame()));
    assert!(net.devices[0].refused[0].contains("hello"), "{:?}", net.devices[0].refused);
    assert_eq!(net.shop(0).books().count_of(Kind::Sale), 0);
}

#[test]
fn garbage_ends_the_session_with_a_reason() {
    for frame in [&[][..], &[200], &[2, 1, 2, 3], &[4, 0xff, 0xff], &[8]] {
        let (mut net, link) = greeted();
        net.feed(0, Input::Received(link, frame.to_vec()));
        assert_eq!(net.devices[0].refused.len(), 1, "{frame:?}");
    }
}

#[test]
fn a_changed_entry_is_not_taken_however_it_was_changed() {
    let forgeries: [fn(&mut Run); 7] = [
        |run| run.entries[0].time.0 += 1,
        |run| run.entries[0].user = Some("someone".to_owned()),
        |run| run.entries[0].page.ordinal += 1,
        |run| run.entries[0].parts.clear(),
        |run| run.signature[0] ^= 1,
        |run| run.info.as_mut().unwrap().genesis.epoch += 1,
        |run| run.info.as_mut().unwrap().certificate.role = Role::Relay,
    ];
    for (number, forge) in forgeries.into_iter().enumerate() {
        let (mut net, link) = greeted();
        let run = run_of_till_1(&mut net);
        let mut forged = run.clone();
        forge(&mut forged);
        net.feed(0, Input::Received(link, Message::Entries(vec![forged]).to_frame()));
        assert_eq!(net.shop(0).books().count_of(Kind::Sale), 0, "forgery {number}");
        assert!(net.devices[0].disk.entries.is_empty(), "forgery {number}");
        net.feed(0, Input::Received(link, Message::Entries(vec![run]).to_frame()));
        assert_eq!(net.shop(0).books().count_of(Kind::Sale), 1, "the true one is taken");
    }
}

#[test]
fn a_replayed_run_changes_nothing() {
    let (mut net, link) = greeted();
    let frame = Message::Entries(vec![run_of_till_1(&mut net)]).to_frame();
    for _ in 0..3 {
        net.feed(0, Input::Received(link, frame.clone()));
    }
    assert_eq!(net.shop(0).books().count_of(Kind::Sale), 1);
}

#[test]
fn a_clock_that_is_far_off_neither_loses_a_sale_nor_pulls_ours_along() {
    let mut net = ShopNet::new(55, 2);
    let honest = net.now;
    net.now = honest.plus_ms(400 * 24 * 60 * 60 * 1000);
    net.act(1, bread(1, None)).unwrap();
    net.now = honest;
    net.heal(0, 1);
    net.run_until_quiet();
    assert_eq!(net.shop(0).books().count_of(Kind::Sale), 1);
    let acted = net.act(0, bread(1, None)).unwrap();
    assert!(acted.time.wall().0 <= honest.0 + 6 * 60 * 1000, "pulled ahead to {:?}", acted.time.wall());
}
