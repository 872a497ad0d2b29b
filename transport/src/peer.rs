//! Who is at the other end: an Ed25519 public key, and its form as a libp2p peer id.

use std::fmt;

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey, ed25519},
};

/// A device's Ed25519 public key. The order of keys decides which side opens a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

/// Why a key and a peer id could not be turned into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerKeyError {
    #[error("the 32 bytes are not an Ed25519 public key: check where the key was copied from")]
    NotAKey,
    #[error("the peer id does not carry an Ed25519 key: only devices with such a key can link up")]
    NotEd25519,
}

impl PeerKey {
    /// The public key that belongs to an Ed25519 secret key.
    ///
    /// # Errors
    /// None for any 32 bytes in practice; the key library's own check is passed on.
    pub fn from_secret(secret_key: &[u8; 32]) -> Result<Self, PeerKeyError> {
        let keypair = keypair(secret_key)?;
        Self::from_peer_id(&keypair.public().to_peer_id())
    }

    /// The libp2p peer id of this key: the identity multihash of its protobuf form
    /// (<https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>).
    ///
    /// # Errors
    /// If the bytes are not a point of the curve.
    pub fn to_peer_id(self) -> Result<PeerId, PeerKeyError> {
        let key = ed25519::PublicKey::try_from_bytes(&self.0).map_err(|_| PeerKeyError::NotAKey)?;
        Ok(PublicKey::from(key).to_peer_id())
    }

    /// The key inside a libp2p peer id.
    ///
    /// # Errors
    /// If the id is a hash, or holds a key of another kind.
    pub fn from_peer_id(peer_id: &PeerId) -> Result<Self, PeerKeyError> {
        const IDENTITY: u64 = 0;
        let multihash = peer_id.as_ref();
        if multihash.code() != IDENTITY {
            return Err(PeerKeyError::NotEd25519);
        }
        let key = PublicKey::try_decode_protobuf(multihash.digest())
            .map_err(|_| PeerKeyError::NotEd25519)?
            .try_into_ed25519()
            .map_err(|_| PeerKeyError::NotEd25519)?;
        Ok(Self(key.to_bytes()))
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({self})")
    }
}

pub(crate) fn keypair(secret_key: &[u8; 32]) -> Result<Keypair, PeerKeyError> {
    Keypair::ed25519_from_bytes(*secret_key).map_err(|_| PeerKeyError::NotAKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_way_through_a_peer_id() {
        let key = PeerKey::from_secret(&[7; 32]).unwrap();
        let peer_id = key.to_peer_id().unwrap();
        assert_eq!(PeerKey::from_peer_id(&peer_id), Ok(key));
        assert_eq!(key.to_string().len(), 64);
        // RFC 8032, test 1.
        let secret: [u8; 32] = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
            0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        assert_eq!(
            PeerKey::from_secret(&secret).unwrap().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn a_hashed_peer_id_is_no_key() {
        let hashed = PeerId::from_bytes(&[[0x12, 0x20].as_slice(), &[3; 32]].concat()).unwrap();
        assert_eq!(PeerKey::from_peer_id(&hashed), Err(PeerKeyError::NotEd25519));
    }
}
