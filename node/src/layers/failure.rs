//! Whether an error is the network's: only then does trying again help.

use std::error::Error;
use std::io::ErrorKind;

/// Whether an error is the network's, by what is among its causes: a connection that is refused,
/// resets or breaks, a name that can't be resolved, a timeout.
#[must_use]
pub fn is_the_networks(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<reqwest::Error>() {
            return !(http.is_builder() || http.is_redirect() || http.is_status() || http.is_decode());
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return is_a_connections(io.kind());
        }
        if error.is::<tokio::time::error::Elapsed>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_a_connections(kind: ErrorKind) -> bool {
    [
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
        ErrorKind::NotConnected,
        ErrorKind::BrokenPipe,
        ErrorKind::TimedOut,
        ErrorKind::UnexpectedEof,
        ErrorKind::HostUnreachable,
        ErrorKind::NetworkUnreachable,
        ErrorKind::NetworkDown,
    ]
    .contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the proxy failed")]
    struct Wrapped(#[source] std::io::Error);

    #[test]
    fn what_is_below_an_error_tells() {
        for (kind, network) in [
            (ErrorKind::ConnectionRefused, true),
            (ErrorKind::TimedOut, true),
            (ErrorKind::PermissionDenied, false),
            (ErrorKind::InvalidData, false),
        ] {
            assert_eq!(is_the_networks(&Wrapped(kind.into())), network, "{kind:?}");
        }
        assert!(!is_the_networks(&std::fmt::Error));
    }
}
