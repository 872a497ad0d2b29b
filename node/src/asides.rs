//! What nodes tell each other about the links themselves, beside the shop's messages: where they
//! listen, so that two devices that met over Bluetooth go on over Wi-Fi.

use minicbor::{Decode, Encode};

/// The first byte of an aside. The shop's messages stay far below.
const ADDRESSES: u8 = 0xA0;
/// Two networks, two protocols, both address families.
const ADDRESSES_MAX: usize = 8;
const ADDRESS_BYTES_MAX: usize = 128;
/// Eight addresses, and what holds them together.
const ASIDE_BYTES_MAX: usize = ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 4) + 16;

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
struct Listening {
    #[n(0)]
    addresses: Vec<String>,
}

/// Whether a frame is an aside, rather than one of the shop's messages.
pub(crate) fn is_aside(frame: &[u8]) -> bool {
    frame.first() == Some(&ADDRESSES)
}

/// The frame that says where this node listens; `None` if it does nowhere that others can reach.
pub(crate) fn listening(addresses: &[String]) -> Option<Vec<u8>> {
    let told = addresses.iter().map(|address| bare(address)).filter(|address| !crate::config::is_loopback(address));
    let mut told: Vec<String> = told.filter(|address| address.len() <= ADDRESS_BYTES_MAX).map(str::to_owned).collect();
    told.dedup();
    told.truncate(ADDRESSES_MAX);
    if told.is_empty() {
        return None;
    }
    let mut frame = vec![ADDRESSES];
    frame.extend(minicbor::to_vec(Listening { addresses: told }).unwrap_or_default());
    Some(frame)
}

/// Where a peer says that it listens; nothing if it says so in a way that can't be used.
pub(crate) fn heard(frame: &[u8]) -> Vec<String> {
    let body = frame.strip_prefix(&[ADDRESSES]).filter(|body| body.len() <= ASIDE_BYTES_MAX);
    let said = body.and_then(|body| minicbor::decode::<Listening>(body).ok());
    let addresses = said.map(|said| said.addresses).unwrap_or_default();
    let usable = |address: &String| address.len() <= ADDRESS_BYTES_MAX && !crate::config::is_loopback(address);
    addresses.into_iter().filter(usable).take(ADDRESSES_MAX).collect()
}

/// Without the peer id, which the link has proved.
fn bare(address: &str) -> &str {
    address.split("/p2p/").next().unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_arrive_without_what_only_this_machine_can_reach() {
        let ours =
            texts(&["/ip4/127.0.0.1/tcp/7471/p2p/x", "/ip4/192.168.1.5/tcp/7471/p2p/x", "/ip4/10.0.0.2/udp/1/quic-v1"]);
        let frame = listening(&ours).unwrap();
        assert!(is_aside(&frame));
        assert_eq!(heard(&frame), texts(&["/ip4/192.168.1.5/tcp/7471", "/ip4/10.0.0.2/udp/1/quic-v1"]));
        assert_eq!(listening(&texts(&["/ip4/127.0.0.1/tcp/7471"])), None);
    }

    #[test]
    fn a_peer_can_not_make_us_remember_much() {
        let many: Vec<String> = (0..100).map(|n| format!("/ip4/10.0.0.{n}/tcp/1")).collect();
        assert_eq!(heard(&listening(&many).unwrap()).len(), ADDRESSES_MAX);
        let mut long = vec![ADDRESSES];
        long.extend(minicbor::to_vec(Listening { addresses: many.clone() }).unwrap());
        assert!(heard(&long).is_empty() || heard(&long).len() == ADDRESSES_MAX);
        for broken in [&[][..], &[ADDRESSES], &[ADDRESSES, 0xFF], &[ADDRESSES, 0x81], &[0x01, 0x80]] {
            assert!(heard(broken).is_empty(), "{broken:02x?}");
        }
        let loopback = minicbor::to_vec(Listening { addresses: texts(&["/ip4/127.0.0.1/tcp/22"]) }).unwrap();
        assert!(
            heard(&[&[ADDRESSES], loopback.as_slice()].concat()).is_empty(),
            "a peer must not make us dial ourselves"
        );
    }

    #[test]
    fn no_message_of_the_shop_is_taken_for_an_aside() {
        use crdt_model::sync::message::{Bye, ByeCode, Message};
        let bye = Message::Bye(Bye { code: ByeCode::Protocol, reason: String::new() });
        assert!(!is_aside(&bye.to_frame()));
        assert!(!is_aside(&Message::Have(Vec::new()).to_frame()));
    }
}
