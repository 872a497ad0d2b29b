//! Where a request may go: to the configured server alone, at a public address unless the carrier
//! was told otherwise, and below the paths that it was given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Which addresses may be spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Addresses of private networks too.
    pub private: bool,
    /// This machine too, and plain HTTP to it.
    pub loopback: bool,
}

impl Allowed {
    /// Whether an address may be spoken to.
    #[must_use]
    pub fn admits(self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V6(six) => six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4),
            four @ IpAddr::V4(_) => four,
        };
        if address.is_loopback() {
            return self.loopback;
        }
        match address {
            IpAddr::V4(four) if is_private_v4(four) => self.private,
            IpAddr::V4(four) => !is_special_v4(four),
            IpAddr::V6(six) if (six.segments()[0] & 0xfe00) == 0xfc00 => self.private,
            IpAddr::V6(six) => !is_special_v6(six),
        }
    }
}

/// Resolves names, and hands out only addresses that may be spoken to.
#[derive(Debug, Clone)]
pub(super) struct GuardedNames {
    allowed: Allowed,
    refused: Arc<Mutex<Option<String>>>,
}

impl GuardedNames {
    pub(super) fn new(allowed: Allowed) -> Self {
        Self { allowed, refused: Arc::default() }
    }

    /// What was refused last, told once.
    pub(super) fn take_refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let (good, bad): (Vec<SocketAddr>, Vec<SocketAddr>) =
                found.partition(|address| guard.allowed.admits(address.ip()));
            if let (true, Some(first)) = (good.is_empty(), bad.first()) {
                let why = refused(&host, first.ip());
                *guard.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
                return Err(why.into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

/// Why a server may not be spoken to; `None` if it may, as far as can be told without its name.
pub(super) fn refused_base(base: &Url, allowed: Allowed) -> Option<String> {
    let host = base.host_str()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let literal = bare.parse::<IpAddr>().ok();
    if let Some(address) = literal.filter(|address| !allowed.admits(*address)) {
        return Some(refused(host, address));
    }
    let on_this_machine = host == "localhost" || literal.is_some_and(|address| address.is_loopback());
    match base.scheme() {
        "https" => None,
        "http" if on_this_machine && allowed.loopback => None,
        _ => Some(format!("{base}: only https may be spoken, and plain http to this machine with allow_loopback")),
    }
}

/// The whole address of a path, if the path stays where it may go.
///
/// # Errors
/// Why not.
pub(super) fn address(base: &Url, path: &str, prefixes: &[String]) -> Result<Url, String> {
    let strange = |byte: u8| byte == b'\\' || byte <= b' ' || byte == 0x7f;
    let decoded = path.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/");
    let bare = decoded.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') || bare.contains("//") || path.bytes().any(strange) || path.contains('#') {
        return Err(format!("the path {} is not one that the carrier sends: begin it with one slash", shown(path)));
    }
    if bare.split('/').any(|piece| piece == "." || piece == "..") {
        return Err(format!("the path {} leaves its folder: write it without dots", shown(path)));
    }
    if !prefixes.iter().any(|prefix| bare.starts_with(prefix.as_str())) {
        return Err(format!("the path {} is not below one of the carrier's allowed paths", shown(path)));
    }
    let whole = format!("{}{path}", base.as_str().trim_end_matches('/'));
    let url = Url::parse(&whole).map_err(|error| format!("the path {} is no path: {error}", shown(path)))?;
    if url.origin() != base.origin() || url.username() != base.username() {
        return Err(format!("the path {} leaves the server", shown(path)));
    }
    Ok(url)
}

fn refused(host: &str, address: IpAddr) -> String {
    format!(
        "{host} is at {address}, which the carrier may not speak to: use the server's public address, or allow it in \
         the upstream file (allow_private, allow_loopback)"
    )
}

fn shown(path: &str) -> String {
    path.chars().take(120).collect()
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private() || (a == 100 && (64..128).contains(&b))
}

/// Addresses that are nobody's server: this network, link-local (with the machine's own metadata),
/// documentation, benchmarks, multicast, reserved.
fn is_special_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    a == 0
        || address.is_link_local()
        || address.is_documentation()
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 224
}

fn is_special_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    address.is_unspecified()
        || (first & 0xffc0) == 0xfe80
        || (first & 0xff00) == 0xff00
        // Ways into IPv4 networks: translation, Teredo, 6to4, compatible addresses; and documentation.
        || (first == 0x64 && second == 0xff9b)
        || (first == 0x2001 && second < 0x200)
        || (first == 0x2001 && second == 0xdb8)
        || first == 0x2002
        || first == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_admitted_unless_told_otherwise() {
        let admits = |allowed: Allowed, text: &str| allowed.admits(text.parse().unwrap());
        let (strict, private) = (Allowed::default(), Allowed { private: true, loopback: false });
        for public in ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"] {
            assert!(admits(strict, public), "{public}");
        }
        for inside in ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(!admits(strict, inside) && admits(private, inside), "{inside}");
        }
        for never in [
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "fe80::1",
            "ff02::1",
            "::",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "::10.0.0.1",
        ] {
            assert!(!admits(private, never), "{never}");
        }
        let loopback = Allowed { private: false, loopback: true };
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(!admits(private, own) && admits(loopback, own), "{own}");
        }
    }

    #[test]
    fn a_server_is_spoken_to_by_https_and_this_machine_by_http_only_if_allowed() {
        let refused = |text: &str, allowed| refused_base(&Url::parse(text).unwrap(), allowed).is_some();
        let loopback = Allowed { private: false, loopback: true };
        assert!(!refused("https://shop.example", Allowed::default()));
        assert!(refused("http://shop.example", loopback));
        assert!(refused("http://127.0.0.1:9", Allowed::default()) && !refused("http://127.0.0.1:9", loopback));
        assert!(refused("https://169.254.169.254", loopback) && refused("https://[::ffff:10.0.0.1]", loopback));
        assert!(refused("https://127.0.0.1", Allowed::default()));
    }

    #[test]
    fn no_path_leaves_the_server_or_its_folder() {
        let base = Url::parse("https://shop.example/v1").unwrap();
        let prefixes = ["/api/".to_owned()];
        let good = address(&base, "/api/sales/7?x=1", &prefixes).unwrap();
        assert_eq!(good.as_str(), "https://shop.example/v1/api/sales/7?x=1");
        for bad in [
            "api/sales",
            "//evil.example/api/",
            "/api/../admin",
            "/api/%2e%2e/admin",
            "/api/%2E%2E%2fadmin",
            "/admin",
            "/api/\\evil",
            "/api/a b",
            "/api/x\r\nHost: y",
            "/api/x#y",
            "@evil.example/api/",
            "/api//x",
        ] {
            assert!(address(&base, bad, &prefixes).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused_as_its_address_would_be() {
        let names = GuardedNames::new(Allowed::default());
        let resolved = names.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.is_err());
        assert!(names.take_refused().unwrap().contains("localhost"));
        let names = GuardedNames::new(Allowed { private: false, loopback: true });
        assert!(names.resolve("localhost".parse().unwrap()).await.unwrap().next().is_some());
    }
}
