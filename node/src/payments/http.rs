//! What both ends of the M-PESA protocol share about HTTP: whom we talk to, and how much of an
//! answer we read.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Client, Response, Url, redirect, retry};

/// An answer is read up to this size. Most are below 4 KiB; a page of transactions is larger.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A client that does nothing behind our back: no proxy, no redirect, no retry, and no kept
/// connection whose silent end would make it resend. `loopback_only` needs no certificates.
pub(super) fn client(
    loopback_only: bool,
    connect_timeout: Duration,
    timeout: Duration,
) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .pool_max_idle_per_host(0)
        .connect_timeout(connect_timeout)
        .timeout(timeout);
    if loopback_only {
        return builder.tls_certs_only([]).build();
    }
    builder.https_only(true).build()
}

/// Whether `url` names this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `url` may be spoken to: https anywhere, plain http on this machine only.
pub(super) fn is_allowed(url: &Url) -> bool {
    match url.scheme() {
        "https" => url.host_str().is_some(),
        "http" => is_loopback(url),
        _ => false,
    }
}

/// Why an answer's body is not to be had.
#[derive(Debug)]
pub(super) enum BodyError {
    TooLarge,
    Broken(reqwest::Error),
}

/// Reads a body, and stops as soon as it is larger than any real one.
pub(super) async fn read_body(mut response: Response) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The words Daraja refuses in a callback URL.
const CALLBACK_WORDS_REFUSED: [&str; 7] = ["mpesa", "safaricom", "exe", "exec", "cmd", "sql", "query"];

/// The first word in a callback URL that Daraja refuses.
pub(super) fn refused_word(url: &str) -> Option<&'static str> {
    let lower = url.to_ascii_lowercase();
    CALLBACK_WORDS_REFUSED.into_iter().find(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for (text, allowed) in [
            ("http://127.0.0.1:80/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:80/", true),
            ("http://localhost/", true),
            ("https://sandbox.safaricom.co.ke", true),
            ("http://sandbox.safaricom.co.ke", false),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://10.0.0.1/", false),
            ("http://0.0.0.0/", false),
            ("ftp://127.0.0.1/", false),
        ] {
            assert_eq!(is_allowed(&Url::parse(text).unwrap()), allowed, "{text}");
        }
    }

    #[test]
    fn refused_words_are_found_in_any_case() {
        assert_eq!(refused_word("https://shop.example/MPESA/x"), Some("mpesa"));
        assert_eq!(refused_word("https://shop.example/callbacks"), None);
    }
}
