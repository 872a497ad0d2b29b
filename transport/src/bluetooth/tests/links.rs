//! Whole links over carriers between two tasks: keys are proved, ends are told, and one bad link
//! does not hold up another.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::{
    Limits, Link, LinkError, LinkIds, LinkKind, PeerKey,
    bluetooth::{
        Carrier, CarrierError, ExchangeTimes, Flow, Fragment, FragmentSink, HostLinkConfig, INCOMING_FRAGMENTS_MAX,
        Opening, SecureError, Tag, host_link,
    },
};

struct Wire {
    to: mpsc::Sender<Bytes>,
    /// Every so many fragments, one is lost.
    loses_every: usize,
    sent: usize,
}

impl FragmentSink for Wire {
    fn send(&mut self, fragment: Bytes) -> BoxFuture<'_, Result<(), CarrierError>> {
        self.sent += 1;
        let lost = self.loses_every > 0 && self.sent.is_multiple_of(self.loses_every);
        Box::pin(async move {
            if lost {
                return Ok(());
            }
            self.to.send(fragment).await.map_err(|_| CarrierError("out of range".to_owned()))
        })
    }
}

fn carriers(loses_every: usize) -> (Carrier, Carrier) {
    let (to_b, from_a) = mpsc::channel(INCOMING_FRAGMENTS_MAX);
    let (to_a, from_b) = mpsc::channel(INCOMING_FRAGMENTS_MAX);
    let end = |to, incoming| Carrier {
        fragment_bytes_max: 200,
        outgoing: Box::new(Wire { to, loses_every, sent: 0 }),
        incoming,
    };
    (end(to_b, from_b), end(to_a, from_a))
}

fn config(secret: u8, dialled: bool) -> HostLinkConfig {
    HostLinkConfig {
        secret_key: [secret; 32],
        dialled,
        nonce: 99,
        remote: "a phone".to_owned(),
        times: ExchangeTimes::default(),
        limits: Limits::default(),
        link_ids: LinkIds::default(),
    }
}

async fn pair(loses_every: usize) -> (Link, Link) {
    let (a, b) = carriers(loses_every);
    let (a, b) = tokio::join!(host_link(config(1, true), a), host_link(config(2, false), b));
    (a.unwrap(), b.unwrap())
}

#[tokio::test(start_paused = true)]
async fn both_keys_are_proved_and_frames_arrive_over_a_carrier_that_loses() {
    let (mut a, mut b) = pair(7).await;
    assert_eq!(a.peer, PeerKey::from_secret(&[2; 32]).unwrap());
    assert_eq!(b.peer, PeerKey::from_secret(&[1; 32]).unwrap());
    assert_eq!((a.kind, a.dialled, b.dialled), (LinkKind::Host, true, false));
    b.frames_in.raise_limit();
    let sent: Vec<Bytes> = (1..40_usize).map(|n| Bytes::from(vec![n as u8; n * 500])).collect();
    let sending = async {
        for frame in &sent {
            a.frames_out.send(frame.clone()).await.unwrap();
        }
    };
    let receiving = async {
        for frame in &sent {
            assert_eq!(&b.frames_in.next().await.unwrap().unwrap(), frame);
        }
    };
    tokio::join!(sending, receiving);
    drop(a);
    assert!(b.frames_in.next().await.is_none(), "put down, not broken");
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_ends_is_an_error() {
    let (a, b) = carriers(0);
    let (cut, cutter) = cuttable(a);
    let (a, b) = tokio::join!(host_link(config(1, true), cut), host_link(config(2, false), b));
    let (a, mut b) = (a.unwrap(), b.unwrap());
    cutter.abort();
    drop(a);
    let error = b.frames_in.next().await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::Connection(_)), "{error}");
}

/// Passes fragments on until it is aborted.
fn cuttable(carrier: Carrier) -> (Carrier, tokio::task::JoinHandle<()>) {
    let Carrier { fragment_bytes_max, mut outgoing, mut incoming } = carrier;
    let (to, mut from) = mpsc::channel::<Bytes>(4);
    let (back, back_in) = mpsc::channel(INCOMING_FRAGMENTS_MAX);
    let passing = tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(fragment) = from.recv() => outgoing.send(fragment).await.unwrap(),
                Some(fragment) = incoming.recv() => back.send(fragment).await.unwrap(),
                else => return,
            }
        }
    });
    (
        Carrier { fragment_bytes_max, outgoing: Box::new(Wire { to, loses_every: 0, sent: 0 }), incoming: back_in },
        passing,
    )
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_only_listens_is_given_up() {
    let (a, silent) = carriers(0);
    let error = host_link(config(1, true), a).await.unwrap_err();
    assert!(matches!(error, SecureError::Noise(_)), "{error}");
    assert!(error.to_string().contains("did not accept"), "{error}");
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn nobody_in_between_goes_unnoticed() {
    let (a, b) = carriers(0);
    let Carrier { fragment_bytes_max, mut outgoing, incoming } = a;
    // Flips one bit of every long fragment of the side that connects.
    let (to, mut from) = mpsc::channel::<Bytes>(4);
    tokio::spawn(async move {
        while let Some(fragment) = from.recv().await {
            let mut bytes = fragment.to_vec();
            if bytes.len() > 60 {
                *bytes.last_mut().unwrap() ^= 1;
            }
            if outgoing.send(bytes.into()).await.is_err() {
                return;
            }
        }
    });
    let a = Carrier { fragment_bytes_max, outgoing: Box::new(Wire { to, loses_every: 0, sent: 0 }), incoming };
    let (a, b) = tokio::join!(host_link(config(1, true), a), host_link(config(2, false), b));
    assert!(b.is_err(), "the other side must not believe it");
    if let Ok(mut a) = a {
        assert!(!matches!(a.frames_in.next().await, Some(Ok(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_does_not_hold_up_another_link() {
    let (mut good_a, mut good_b) = pair(0).await;
    let (stuck, silent) = carriers(0);
    let stuck = tokio::spawn(host_link(config(1, true), stuck));
    for n in 0..100_u8 {
        good_a.frames_out.send(Bytes::from(vec![n; 100])).await.unwrap();
        let arrived = tokio::time::timeout(Duration::from_secs(1), good_b.frames_in.next()).await.unwrap();
        assert_eq!(arrived.unwrap().unwrap(), vec![n; 100]);
    }
    assert!(!stuck.is_finished());
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_floods_does_not_hold_up_another_link() {
    const FLOOD: usize = 100_000;
    let (mut good_a, mut good_b) = pair(0).await;
    let (victim, hostile) = carriers(0);
    let victim = tokio::spawn(host_link(config(2, false), victim));
    let Carrier { mut outgoing, mut incoming, .. } = hostile;
    let opening = Opening { nonce: 1, fragment_bytes_max: 200, credit: 128, tag: Tag([0; 6]) };
    outgoing.send(Fragment::Open(opening).to_bytes().into()).await.unwrap();
    // Asks for an answer with every fragment, for ever the same.
    let ask = Bytes::from(Fragment::Flow(Flow { ask: true, ..Flow::default() }).to_bytes());
    let flooding = tokio::spawn(async move {
        let mut sent = 0;
        while sent < FLOOD && outgoing.send(ask.clone()).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let listening = tokio::spawn(async move {
        let mut answers = 0;
        while incoming.recv().await.is_some() {
            answers += 1;
        }
        answers
    });
    for n in 0..100_u8 {
        good_a.frames_out.send(Bytes::from(vec![n; 100])).await.unwrap();
        assert_eq!(good_b.frames_in.next().await.unwrap().unwrap(), vec![n; 100]);
    }
    assert!(!flooding.is_finished(), "the flood was over before the other link had moved anything");
    let sent = flooding.await.unwrap();
    assert!(victim.await.unwrap().is_err(), "no key was proved");
    let answers = listening.await.unwrap();
    assert!(answers <= sent + 2, "{answers} answers to {sent} questions");
}
