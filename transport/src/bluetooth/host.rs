//! A link whose fragments the embedding app carries: its own Bluetooth on a phone, a cable, a
//! test. The crate takes and gives fragments; the app knows how they travel.

use super::{
    Carrier, SecureError, Tag,
    exchange::ExchangeTimes,
    secure::{self, Greeting},
};
use crate::{Limits, Link, LinkIds, LinkKind};

/// How a host-supplied link is made.
#[derive(Clone)]
pub struct HostLinkConfig {
    /// The device's Ed25519 secret key.
    pub secret_key: [u8; 32],
    /// Whether this side connected; exactly one of the two must have.
    pub dialled: bool,
    /// Made up anew for each link by the side that dialled, so that fragments left over from an
    /// earlier one are told apart.
    pub nonce: u32,
    /// Where the peer is, for people.
    pub remote: String,
    pub times: ExchangeTimes,
    pub limits: Limits,
    /// Where link numbers come from; share it with the process's other transports.
    pub link_ids: LinkIds,
}

/// Makes a link of what the app carries: opens the exchange, and proves both keys.
///
/// # Errors
/// [`SecureError`]: whether the carrier, the peer or time is the trouble.
pub async fn host_link(config: HostLinkConfig, carrier: Carrier) -> Result<Link, SecureError> {
    let HostLinkConfig { secret_key, dialled, nonce, remote, times, limits, link_ids } = config;
    // The app chose the peer: nothing was advertised.
    let greeting = Greeting { secret_key, tag: Tag([0; 6]), times, limits, kind: LinkKind::Host };
    let proved = if dialled {
        secure::dial(carrier, nonce, greeting.tag, &greeting).await?
    } else {
        secure::answer(carrier, &greeting).await?
    };
    Ok(proved.link(link_ids.next(), remote, Box::new(|_| ())).0)
}

impl std::fmt::Debug for HostLinkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostLinkConfig")
            .field("dialled", &self.dialled)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
