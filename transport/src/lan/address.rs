//! Multiaddrs as this transport uses them: an IP address, then TCP or QUIC, then maybe a peer id.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Why an address can't be used; says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    #[error("it is not a multiaddr ({0}): write it like /ip4/192.168.1.5/tcp/7471")]
    Malformed(String),
    #[error(
        "only /ip4 or /ip6 with /tcp/PORT or /udp/PORT/quic-v1 is spoken here: \
         look names up first, and write it like /ip4/192.168.1.5/udp/7471/quic-v1"
    )]
    Unsupported,
}

/// An address to dial, apart from the key expected there.
pub(super) fn parse(text: &str) -> Result<(Multiaddr, Option<PeerId>), AddressError> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::Malformed("it is too long".to_owned()));
    }
    let whole: Multiaddr =
        text.parse().map_err(|error: libp2p::multiaddr::Error| AddressError::Malformed(error.to_string()))?;
    split(&whole).ok_or(AddressError::Unsupported)
}

/// The address without its trailing peer id; `None` if it is not of the kind spoken here.
pub(super) fn split(whole: &Multiaddr) -> Option<(Multiaddr, Option<PeerId>)> {
    let mut address = whole.clone();
    let peer = match whole.iter().last() {
        Some(Protocol::P2p(peer)) => {
            address.pop();
            Some(peer)
        }
        Some(_) | None => None,
    };
    let mut parts = address.iter();
    let (Some(Protocol::Ip4(_) | Protocol::Ip6(_)), Some(port), last, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let spoken = matches!((port, last), (Protocol::Tcp(_), None) | (Protocol::Udp(_), Some(Protocol::QuicV1)));
    spoken.then_some((address, peer))
}

pub(super) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::QuicV1)
}

pub(super) fn host(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => Some(IpAddr::V6(ip)),
        Some(_) | None => None,
    }
}

/// The TCP socket that an address of ours names.
pub(super) fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let port = address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None })?;
    Some(SocketAddr::new(host(address)?, port))
}

/// The UDP socket that an address of ours names.
pub(super) fn udp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let port = address.iter().find_map(|part| if let Protocol::Udp(port) = part { Some(port) } else { None })?;
    Some(SocketAddr::new(host(address)?, port))
}

/// Whether an unauthenticated answer on the LAN may make us dial there: a neighbour's address,
/// never this machine's own services and never the internet.
pub(super) fn is_neighbour(address: &Multiaddr) -> bool {
    match host(address) {
        Some(IpAddr::V4(ip)) => is_neighbour_v4(ip),
        Some(IpAddr::V6(ip)) => is_neighbour_v6(ip),
        None => false,
    }
}

fn is_neighbour_v4(ip: Ipv4Addr) -> bool {
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64; // RFC 6598
    ip.is_private() || ip.is_link_local() || shared
}

fn is_neighbour_v6(ip: Ipv6Addr) -> bool {
    ip.is_unique_local()
}

/// Far longer than an address with a peer id; far shorter than anything worth sending us.
const ADDRESS_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let peer = crate::PeerKey::from_secret(&[4; 32]).unwrap().to_peer_id().unwrap();
        let plain = "/ip4/10.0.0.2/udp/7471/quic-v1";
        assert_eq!(parse(plain).unwrap(), (plain.parse().unwrap(), None));
        let (address, with) = parse(&format!("{plain}/p2p/{peer}")).unwrap();
        assert_eq!((address.to_string().as_str(), with), (plain, Some(peer)));
        assert!(parse("/ip6/fd00::1/tcp/1").is_ok());
    }

    #[test]
    fn other_addresses_are_refused_with_advice() {
        for text in [
            "/dns4/relay.example/tcp/443",
            "/ip4/10.0.0.2",
            "/ip4/10.0.0.2/udp/7471",
            "/ip4/10.0.0.2/tcp/80/ws",
            "/ip4/10.0.0.2/udp/7471/quic-v1/p2p-circuit",
        ] {
            assert_eq!(parse(text), Err(AddressError::Unsupported), "{text}");
        }
        assert!(matches!(parse("10.0.0.2:80"), Err(AddressError::Malformed(_))));
        assert!(matches!(parse(&"/tcp/1".repeat(100)), Err(AddressError::Malformed(_))));
    }

    #[test]
    fn hearsay_leads_to_neighbours_only() {
        let is_neighbour = |ip: &str| is_neighbour(&format!("{ip}/tcp/1").parse().unwrap());
        for ip in ["/ip4/192.168.1.9", "/ip4/10.9.8.7", "/ip4/169.254.3.4", "/ip6/fd00::1"] {
            assert!(is_neighbour(ip), "{ip}");
        }
        for ip in ["/ip4/127.0.0.1", "/ip4/0.0.0.0", "/ip4/8.8.8.8", "/ip4/224.0.0.251", "/ip6/::1"] {
            assert!(!is_neighbour(ip), "{ip}");
        }
    }
}
