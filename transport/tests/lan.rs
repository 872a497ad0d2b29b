//! Real nodes on loopback: who links to whom, and what strangers can't spoil.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::wildcard_enum_match_arm, missing_debug_implementations)]

mod support;

use std::{net::TcpListener, time::Duration};

use support::{Node, PATIENCE, QUIC, TCP, assert_carries, config, ended_or_frame, key, linked};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use transport::{Lan, LanConfig, LanEvent, Limits, LinkError, OpenError, StartError};

/// Links that a node was given until it had been quiet for longer than any link takes to be made.
async fn links_until_quiet(node: &mut Node) -> Vec<transport::Link> {
    let mut links = Vec::new();
    let quiet = Duration::from_secs(4);
    while let Ok(Some(event)) = tokio::time::timeout(quiet, node.events.recv()).await {
        if let LanEvent::Link(link) = event {
            links.push(link);
        }
    }
    links
}

fn tcp_port(node: &Node) -> u16 {
    let addresses = node.lan.addresses();
    let address = addresses.iter().find(|address| address.contains("/tcp/")).unwrap();
    address.split('/').nth(4).unwrap().parse().unwrap()
}

#[tokio::test]
async fn two_tills_that_dial_each_other_at_once_keep_one_link() {
    for (one, other) in [(1, 2), (2, 1)] {
        let mut near = Node::start(one, &[TCP, QUIC]).await;
        let mut far = Node::start(other, &[TCP, QUIC]).await;
        near.know(&far);
        far.know(&near);
        let (mut near_links, mut far_links) = tokio::join!(links_until_quiet(&mut near), links_until_quiet(&mut far));
        let (mut near_link, mut far_link) = (near_links.pop().unwrap(), far_links.pop().unwrap());
        assert_carries(&mut near_link, &mut far_link).await;
        assert_eq!((near_link.peer, far_link.peer), (key(other), key(one)));
        assert_ne!(near_link.dialled, far_link.dialled);
        for mut older in near_links.into_iter().chain(far_links) {
            assert!(!matches!(ended_or_frame(&mut older).await, Some(Ok(_))));
        }
    }
}

#[tokio::test]
async fn quic_is_preferred_and_tcp_is_good_enough() {
    let mut near = Node::start(1, &[]).await;
    let mut far = Node::start(2, &[TCP, QUIC]).await;
    near.know(&far);
    let (near_link, _) = tokio::join!(near.link(), far.link());
    assert!(near_link.remote.ends_with("/quic-v1"), "{}", near_link.remote);

    let (_near, _far, near_link, _) = linked(TCP, Limits::default()).await;
    assert!(near_link.remote.contains("/tcp/"), "{}", near_link.remote);
}

#[tokio::test]
async fn a_till_that_was_restarted_is_linked_to_again() {
    for listen in [TCP, QUIC] {
        let (mut near, far, mut near_link, far_link) = linked(listen, Limits::default()).await;
        let listened = far.lan.addresses();
        drop(far_link);
        far.lan.shutdown().await;
        assert!(far.lan.addresses().is_empty());
        assert!(!matches!(ended_or_frame(&mut near_link).await, Some(Ok(_))));

        let again: Vec<&str> = listened.iter().filter_map(|address| address.split("/p2p/").next()).collect();
        let mut far = Node::start(2, &again).await;
        let (mut near_link, mut far_link) = tokio::join!(near.link(), far.link());
        assert_carries(&mut near_link, &mut far_link).await;
    }
}

#[tokio::test]
async fn a_link_that_the_host_drops_is_made_again() {
    let (mut near, mut far, near_link, mut far_link) = linked(QUIC, Limits::default()).await;
    drop(near_link);
    assert_eq!(ended_or_frame(&mut far_link).await, None);
    let (mut near_link, mut far_link) = tokio::join!(near.link(), far.link());
    assert_carries(&mut near_link, &mut far_link).await;
}

#[tokio::test]
async fn a_shutdown_writes_what_was_queued() {
    for listen in [TCP, QUIC] {
        let (near, _far, mut near_link, mut far_link) = linked(listen, Limits::default()).await;
        for n in 0..100_u8 {
            support::send(&mut near_link, vec![n; 10_000]).await;
        }
        let (_, received) = tokio::join!(near.lan.shutdown(), async {
            let mut received = 0;
            while let Some(Ok(_)) = ended_or_frame(&mut far_link).await {
                received += 1;
            }
            received
        });
        assert_eq!(received, 100);
        assert_eq!(near_link.frames_out.send("late".into()).await, Err(LinkError::Closed));
        let opened = near.lan.open(key(2), &[], "/tillmesh/join/1").await;
        assert!(matches!(opened, Err(OpenError::ShutDown)));
    }
}

#[tokio::test]
async fn a_crowd_of_strangers_does_not_disturb_a_link() {
    let (mut near, _far, mut near_link, mut far_link) = linked(TCP, Limits::default()).await;
    let port = tcp_port(&near);
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    assert_carries(&mut near_link, &mut far_link).await;
    drop(crowd);

    let mut third = Node::start(3, &[]).await;
    third.know(&near);
    let (mut third_link, mut near_link) = tokio::join!(third.link(), near.link());
    assert_carries(&mut third_link, &mut near_link).await;
}

#[tokio::test]
async fn whoever_speaks_something_else_is_hung_up_on() {
    let (near, _far, mut near_link, mut far_link) = linked(TCP, Limits::default()).await;
    for garbage in [b"GET / HTTP/1.1\r\nHost: till\r\n\r\n".to_vec(), vec![0xFF; 70_000]] {
        let mut stranger = TcpStream::connect(("127.0.0.1", tcp_port(&near))).await.unwrap();
        // It may hang up on us while we still talk.
        if stranger.write_all(&garbage).await.is_ok() {
            let mut answer = Vec::new();
            let read = stranger.read_to_end(&mut answer);
            if tokio::time::timeout(PATIENCE, read).await.expect("not hung up on").is_ok() {
                assert!(answer.len() < 100, "{answer:?}");
            }
        }
    }
    assert_carries(&mut near_link, &mut far_link).await;
}

#[tokio::test]
async fn a_refused_peer_gets_no_link_until_it_is_readmitted_but_may_join() {
    for (ours, theirs) in [(1, 2), (2, 1)] {
        let mut shop = Node::start(ours, &[QUIC]).await;
        let mut phone = Node::start(theirs, &[]).await;
        phone.know(&shop);
        let (mut link, _phone_link) = tokio::join!(shop.link(), phone.link());
        shop.lan.refuse(key(theirs), PATIENCE);
        assert_eq!(ended_or_frame(&mut link).await, Some(Err(LinkError::Refused)));

        let addresses = shop.lan.addresses();
        let mut join = phone.lan.open(key(ours), &addresses, "/tillmesh/join/1").await.unwrap();
        let (protocol, mut joining) = loop {
            match shop.event().await {
                LanEvent::Stream { protocol, link } => break (protocol, link),
                LanEvent::Link(_) => panic!("a refused peer was linked"),
                LanEvent::Discovered { .. } | LanEvent::Unreachable { .. } => {}
            }
        };
        assert_eq!(protocol, "/tillmesh/join/1");
        assert_eq!(joining.peer, key(theirs));
        assert_carries(&mut join, &mut joining).await;

        shop.lan.readmit(key(theirs));
        let mut shop_link = shop.link().await;
        support::send(&mut shop_link, "karibu").await;
        // While it was refused, the phone may have had links that were dropped at once.
        let mut phone_link = phone.link().await;
        while !matches!(ended_or_frame(&mut phone_link).await, Some(Ok(_))) {
            phone_link = phone.link().await;
        }
        assert_carries(&mut shop_link, &mut phone_link).await;
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_with_its_reason() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{nobody}");
    let mut node = Node::start_with(LanConfig { static_peers: vec![address.clone()], ..config(1, &[]) }).await;
    let LanEvent::Unreachable { address: told, reason } = node.event().await else {
        panic!("expected the address to be unreachable");
    };
    assert_eq!(told, address);
    assert!(reason.contains("refused"), "{reason}");

    let other = Node::start(2, &[TCP]).await;
    let listened = other.lan.addresses().remove(0);
    let plain = listened.split("/p2p/").next().unwrap();
    node.lan.add_peer_address(Some(key(3)), plain).unwrap();
    let reason = loop {
        if let LanEvent::Unreachable { address, reason } = node.event().await
            && address == plain
        {
            break reason;
        }
    };
    assert!(reason.contains("another device answers"), "{reason}");

    let no_address = node.lan.open(key(9), &[], "/tillmesh/join/1").await;
    assert!(matches!(no_address, Err(OpenError::NoAddress)));
    let addresses = other.lan.addresses();
    let unsupported = node.lan.open(key(2), &addresses, "/tillmesh/other/1").await;
    assert!(matches!(unsupported, Err(OpenError::Unsupported(_))), "{unsupported:?}");
    let closed = node.lan.open(key(4), &[address], "/tillmesh/join/1").await;
    assert!(matches!(closed, Err(OpenError::Unreachable(_))), "{closed:?}");
}

#[tokio::test]
async fn a_peer_of_another_protocol_version_is_told_apart() {
    let mut old = Node::start(1, &[QUIC]).await;
    let new = Node::start_with(LanConfig { link_protocol: "/tillmesh/sync/2", ..config(2, &[QUIC]) }).await;
    old.know(&new);
    let reason = loop {
        match old.event().await {
            LanEvent::Unreachable { reason, .. } => break reason,
            LanEvent::Link(_) | LanEvent::Stream { .. } => panic!("linked across versions"),
            LanEvent::Discovered { .. } => {}
        }
    };
    assert!(reason.contains("does not speak /tillmesh/sync/1"), "{reason}");
}

#[tokio::test]
async fn a_port_in_use_is_named_at_the_start() {
    let first = Node::start(1, &[TCP, QUIC]).await;
    for address in first.lan.addresses() {
        let address = address.split("/p2p/").next().unwrap();
        let error = Lan::start(config(2, &[address])).await.unwrap_err();
        assert!(matches!(&error, StartError::InUse { address: told } if told == address), "{error}");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_the_start() {
    let listen = Lan::start(config(1, &["/dns4/till/tcp/1"])).await.unwrap_err();
    assert!(matches!(listen, StartError::ListenAddress { .. }), "{listen}");
    let static_peers = vec!["192.168.1.4:7471".to_owned()];
    let peer = Lan::start(LanConfig { static_peers, ..config(1, &[]) }).await.unwrap_err();
    assert!(matches!(peer, StartError::StaticPeer { .. }), "{peer}");
    let mdns_query_interval = Duration::from_secs(31);
    let slow = Lan::start(LanConfig { mdns_query_interval, ..config(1, &[]) }).await.unwrap_err();
    assert!(matches!(slow, StartError::MdnsInterval(_)), "{slow}");
    let other_protocols = vec!["join"];
    let name = Lan::start(LanConfig { other_protocols, ..config(1, &[]) }).await.unwrap_err();
    assert!(matches!(name, StartError::Protocol(_)), "{name}");
}
