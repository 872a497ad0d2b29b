//! What every link keeps, whatever carries it: in memory, over TCP and over QUIC.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::wildcard_enum_match_arm, missing_debug_implementations)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{Node, QUIC, TCP, assert_carries, ended_or_frame, key, linked, receive, send};
use transport::{Limits, Link, LinkError, LinkIds, LinkKind};

const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The near end allows itself larger frames than the far end takes.
fn generous() -> Limits {
    Limits { frame_bytes_max: 2 * FRAME_BYTES_MAX, ..Limits::default() }
}

async fn in_memory() -> (Vec<Node>, Link, Link) {
    let ids = LinkIds::default();
    let (stream_a, stream_b) = tokio::io::duplex(64 * 1024);
    let end = |peer, dialled, stream, limits: &Limits| {
        let (id, remote) = (ids.next(), "memory".to_owned());
        Link::over_stream(id, peer, LinkKind::Memory, remote, dialled, stream, limits)
    };
    let near = end(key(2), true, stream_a, &generous());
    let far = end(key(1), false, stream_b, &Limits::default());
    (Vec::new(), near, far)
}

async fn on_the_lan(listen: &str) -> (Vec<Node>, Link, Link) {
    let (near, far, near_link, far_link) = linked(listen, generous()).await;
    (vec![near, far], near_link, far_link)
}

async fn keeps_order_both_ways(mut near: Link, mut far: Link) {
    assert_eq!((near.peer, far.peer), (key(2), key(1)));
    let frames = |tag: u8| {
        (0..2_000_u32).map(move |n| {
            let mut frame = vec![tag; 4 + usize::try_from(n % 700).unwrap() * 20];
            frame[..4].copy_from_slice(&n.to_le_bytes());
            Bytes::from(frame)
        })
    };
    let (mut near_out, mut far_out) = (near.frames_out, far.frames_out);
    let out = async {
        for frame in frames(1) {
            near_out.send(frame).await.unwrap();
        }
    };
    let back = async {
        for frame in frames(2) {
            far_out.send(frame).await.unwrap();
        }
    };
    let arriving = async {
        for frame in frames(1) {
            assert_eq!(far.frames_in.next().await.unwrap().unwrap(), frame);
        }
    };
    let returning = async {
        for frame in frames(2) {
            assert_eq!(near.frames_in.next().await.unwrap().unwrap(), frame);
        }
    };
    let all = async { tokio::join!(out, back, arriving, returning) };
    tokio::time::timeout(support::PATIENCE, all).await.expect("frames were held up");
}

async fn takes_a_frame_at_the_limit_and_ends_at_one_byte_more(mut near: Link, mut far: Link) {
    send(&mut near, vec![1; 16 * 1024]).await;
    assert_eq!(receive(&mut far).await.len(), 16 * 1024);
    far.frames_in.raise_limit();
    send(&mut near, vec![2; FRAME_BYTES_MAX]).await;
    assert_eq!(receive(&mut far).await, vec![2; FRAME_BYTES_MAX]);

    let refused = far.frames_out.send(vec![3; FRAME_BYTES_MAX + 1].into()).await;
    let (bytes, max) = (FRAME_BYTES_MAX + 1, FRAME_BYTES_MAX);
    assert_eq!(refused, Err(LinkError::FrameTooLarge { bytes, max }));
    assert_eq!(far.frames_out.send(Bytes::new()).await, Err(LinkError::EmptyFrame));
    assert_carries(&mut near, &mut far).await;

    send(&mut near, vec![4; FRAME_BYTES_MAX + 1]).await;
    let ended = ended_or_frame(&mut far).await;
    assert_eq!(ended, Some(Err(LinkError::FrameTooLarge { bytes, max })));
    assert_eq!(ended_or_frame(&mut far).await, None);
    assert!(!matches!(ended_or_frame(&mut near).await, Some(Ok(_))), "the near end saw no end");
}

async fn holds_a_stranger_to_small_frames(mut near: Link, mut far: Link) {
    send(&mut near, vec![1; 16 * 1024 + 1]).await;
    let ended = ended_or_frame(&mut far).await;
    let (bytes, max) = (16 * 1024 + 1, 16 * 1024);
    assert_eq!(ended, Some(Err(LinkError::FrameTooLarge { bytes, max })));
}

async fn delivers_what_was_queued_before_it_was_put_down(mut near: Link, mut far: Link) {
    for n in 0..100_u8 {
        send(&mut near, vec![n; 5_000]).await;
    }
    drop(near);
    for n in 0..100_u8 {
        assert_eq!(receive(&mut far).await, vec![n; 5_000]);
    }
    assert_eq!(ended_or_frame(&mut far).await, None);
    assert_eq!(far.frames_out.send("late".into()).await, Err(LinkError::Closed));
}

async fn makes_a_fast_sender_wait_for_a_slow_reader(mut near: Link, mut far: Link) {
    far.frames_in.raise_limit();
    let frame = Bytes::from(vec![7; 64 * 1024]);
    let mut queued = 0_usize;
    // Half a second without room: what is between the two ends is full.
    let blocked = Duration::from_millis(500);
    while let Ok(sent) = tokio::time::timeout(blocked, near.frames_out.send(frame.clone())).await {
        sent.unwrap();
        queued += 1;
        assert!(queued * frame.len() < 48 * 1024 * 1024, "nothing holds the sender back");
    }
    for _ in 0..queued {
        assert_eq!(receive(&mut far).await, frame);
    }
    assert_carries(&mut near, &mut far).await;
}

macro_rules! contract {
    ($carrier:ident, $pair:expr) => {
        mod $carrier {
            use super::*;

            #[tokio::test]
            async fn order() {
                let (_nodes, near, far) = $pair.await;
                keeps_order_both_ways(near, far).await;
            }

            #[tokio::test]
            async fn limit() {
                let (_nodes, near, far) = $pair.await;
                takes_a_frame_at_the_limit_and_ends_at_one_byte_more(near, far).await;
            }

            #[tokio::test]
            async fn stranger() {
                let (_nodes, near, far) = $pair.await;
                holds_a_stranger_to_small_frames(near, far).await;
            }

            #[tokio::test]
            async fn end() {
                let (_nodes, near, far) = $pair.await;
                delivers_what_was_queued_before_it_was_put_down(near, far).await;
            }

            #[tokio::test]
            async fn back_pressure() {
                let (_nodes, near, far) = $pair.await;
                makes_a_fast_sender_wait_for_a_slow_reader(near, far).await;
            }
        }
    };
}

contract!(memory, in_memory());
contract!(tcp, on_the_lan(TCP));
contract!(quic, on_the_lan(QUIC));
