//! Multicast: whether a question gets out and comes back, whether anybody answers, and whether
//! an access point seems to keep its clients apart.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::{Check, Verdict};

const MULTICAST: &str = "multicast";
const ISOLATION: &str = "access point";
/// RFC 6762.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// Twice what a phone takes to answer.
const LISTENING: Duration = Duration::from_millis(2_500);

/// What came of a question.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    ourselves: bool,
    others: usize,
}

pub(super) async fn examine(wanted: bool) -> Vec<Check> {
    if !wanted {
        return vec![Check::new(MULTICAST, Verdict::Unknown, "not asked")];
    }
    vec![judge(&ask().await)]
}

fn judge(heard: &io::Result<Heard>) -> Check {
    let address = "or give the devices each other's addresses with --peer";
    match heard {
        Err(error) => Check::new(MULTICAST, Verdict::Fail, format!("a question could not be sent ({error})"))
            .advise(format!("connect to a network, and allow UDP port 5353 in this machine's firewall; {address}")),
        Ok(Heard { ourselves: false, .. }) => {
            Check::new(MULTICAST, Verdict::Fail, "a question does not even come back to this machine")
                .advise(format!("allow UDP port 5353 in this machine's firewall, in and out; {address}"))
        }
        Ok(Heard { others: 0, .. }) => Check::new(MULTICAST, Verdict::Warn, "a question gets out, and nobody answers")
            .advise(format!(
                "if other devices are on in this network, its access point does not pass multicast on: allow it there \
                 (client isolation, IGMP snooping); {address}"
            )),
        Ok(Heard { others, .. }) => {
            Check::new(MULTICAST, Verdict::Ok, format!("a question gets out, and {others} others are heard"))
        }
    }
}

/// Asks who is there, as libp2p does, and listens.
async fn ask() -> io::Result<Heard> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(all(unix, not(target_os = "solaris")))]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.join_multicast_v4(GROUP, Ipv4Addr::UNSPECIFIED)?;
    socket.set_multicast_loop_v4(true)?;
    let question = question(b"\x04_p2p\x04_udp\x05local\x00");
    socket.send_to(&question, (GROUP, PORT)).await?;
    let until = Instant::now() + LISTENING;
    let (mut own, mut senders) = (None, Vec::new());
    let mut datagram = [0; 2048];
    while let Ok(received) = tokio::time::timeout_at(until, socket.recv_from(&mut datagram)).await {
        let (bytes, from) = received?;
        if datagram.get(..bytes) == Some(question.as_slice()) {
            own = Some(from.ip());
        }
        if !senders.contains(&from.ip()) && senders.len() < SENDERS_MAX {
            senders.push(from.ip());
        }
    }
    Ok(Heard { ourselves: own.is_some(), others: others(&senders, own) })
}

fn others(senders: &[IpAddr], own: Option<IpAddr>) -> usize {
    senders.iter().filter(|sender| Some(**sender) != own && !sender.is_loopback()).count()
}

/// A query for pointers to a name (RFC 1035).
fn question(name: &[u8]) -> Vec<u8> {
    const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    const POINTER_IN: [u8; 4] = [0, 12, 0, 1];
    [&HEADER, name, &POINTER_IN].concat()
}

/// Devices that are met over Bluetooth and not on the LAN make one suspect the access point.
pub(super) fn isolation(peers: Option<&Value>) -> Check {
    let Some(peers) = peers.and_then(|peers| peers.get("items")).and_then(Value::as_array) else {
        return Check::new(ISOLATION, Verdict::Unknown, "no node runs here: with one, its links tell")
            .advise("run this again while tillmesh run is going");
    };
    let over = |peer: &Value, kind: &str| {
        let links = peer.get("links").and_then(Value::as_array);
        links.is_some_and(|links| links.iter().any(|link| link.get("kind").and_then(Value::as_str) == Some(kind)))
    };
    let near = peers.iter().filter(|peer| over(peer, "bluetooth")).count();
    let apart = peers.iter().filter(|peer| over(peer, "bluetooth") && !over(peer, "lan")).count();
    if apart == 0 {
        let found = match near {
            0 => "nothing speaks for isolation",
            _ => "devices that are near are on the LAN, too",
        };
        return Check::new(ISOLATION, Verdict::Ok, found);
    }
    Check::new(ISOLATION, Verdict::Warn, format!("{apart} devices are near, but not reached on the LAN")).advise(
        "if they are in the same Wi-Fi, the access point keeps its clients apart: switch off client isolation (guest \
         networks have it), or go on over Bluetooth, which is slower",
    )
}

/// A noisy network must not fill the memory.
const SENDERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_heard_is_judged_and_comes_with_what_to_do() {
        let verdict = |heard| judge(&heard);
        let refused = verdict(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(refused.verdict, Verdict::Fail);
        assert_eq!(verdict(Ok(Heard { ourselves: false, others: 0 })).verdict, Verdict::Fail);
        let alone = verdict(Ok(Heard { ourselves: true, others: 0 }));
        assert_eq!(alone.verdict, Verdict::Warn);
        assert!(alone.advice.unwrap().contains("--peer"));
        assert_eq!(verdict(Ok(Heard { ourselves: true, others: 2 })).verdict, Verdict::Ok);
    }

    #[test]
    fn others_are_not_this_machine() {
        let [own, other, loopback]: [IpAddr; 3] = ["10.0.0.1", "10.0.0.2", "127.0.0.1"].map(|ip| ip.parse().unwrap());
        assert_eq!(others(&[own, other, loopback], Some(own)), 1);
    }

    #[test]
    fn near_and_not_on_the_lan_is_suspicious() {
        let peers = |kinds: &[&[&str]]| {
            let items = kinds.iter().map(|kinds| {
                let links: Vec<Value> = kinds.iter().map(|kind| json!({ "kind": kind })).collect();
                json!({ "links": links })
            });
            json!({ "items": items.collect::<Vec<Value>>() })
        };
        assert_eq!(isolation(Some(&peers(&[&["lan"], &[]]))).verdict, Verdict::Ok);
        assert_eq!(isolation(Some(&peers(&[&["lan", "bluetooth"]]))).verdict, Verdict::Ok);
        assert_eq!(isolation(Some(&peers(&[&["lan"], &["bluetooth"]]))).verdict, Verdict::Warn);
        assert_eq!(isolation(None).verdict, Verdict::Unknown);
    }
}
