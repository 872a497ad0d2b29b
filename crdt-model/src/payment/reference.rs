//! The names an attempt carries to the provider and back: derived, so that a callback or a
//! statement line finds its attempt even when the row was lost.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use uuid::Uuid;

const ACCOUNT_REFERENCE_CHARS: usize = 12;

/// What the provider shows as the account: 12 characters of A–Z and 2–7.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountReference(String);

impl AccountReference {
    /// The twelve characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The account reference of attempt `number`: the start of base32(BLAKE3(intent ‖ number)).
#[must_use]
pub fn account_reference(intent: Uuid, number: u32) -> AccountReference {
    let mut hasher = blake3::Hasher::new_derive_key("tillmesh 2026 payment account reference");
    hasher.update(intent.as_bytes()).update(&number.to_le_bytes());
    let text = BASE32_NOPAD.encode(hasher.finalize().as_bytes());
    AccountReference(text.chars().take(ACCOUNT_REFERENCE_CHARS).collect())
}

/// A secret that only the provider learns, from the callback URL. Lowercase hexadecimal, since
/// the provider refuses URLs that contain certain words.
#[derive(Clone)]
pub struct CallbackToken(blake3::Hash);

impl CallbackToken {
    /// 64 lowercase hexadecimal digits, for the callback URL and nowhere else.
    #[must_use]
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(self.0.as_bytes())
    }

    /// Whether `text` is this token, in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Ok(bytes) = HEXLOWER.decode(text.as_bytes()) else {
            return false;
        };
        // `blake3::Hash` compares in constant time.
        <[u8; 32]>::try_from(bytes).is_ok_and(|bytes| self.0 == blake3::Hash::from(bytes))
    }
}

impl fmt::Debug for CallbackToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackToken(secret)")
    }
}

/// The callback token of attempt `number`: keyed BLAKE3 over intent ‖ number.
#[must_use]
pub fn callback_token(key: &[u8; 32], intent: Uuid, number: u32) -> CallbackToken {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(intent.as_bytes()).update(&number.to_le_bytes());
    CallbackToken(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTENT: Uuid = Uuid::from_u128(0x6f1c_9a52_0f6e_8c1d_9b3e_0a1b_2c3d_4e5f);

    #[test]
    fn references_fit_the_provider_and_differ_by_attempt() {
        let first = account_reference(INTENT, 1);
        assert_eq!(first, account_reference(INTENT, 1));
        assert_ne!(first, account_reference(INTENT, 2));
        assert_ne!(first, account_reference(Uuid::from_u128(1), 1));
        assert_eq!(first.as_str().len(), 12);
        assert!(first.as_str().bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
    }

    #[test]
    fn only_the_right_token_matches() {
        let token = callback_token(&[7; 32], INTENT, 1);
        assert!(token.matches(&token.to_hex()));
        assert!(!token.matches(&callback_token(&[8; 32], INTENT, 1).to_hex()));
        assert!(!token.matches(&callback_token(&[7; 32], INTENT, 2).to_hex()));
        for wrong in ["", "00", &token.to_hex().to_uppercase(), &format!("{}00", token.to_hex())] {
            assert!(!token.matches(wrong), "{wrong}");
        }
        assert!(!format!("{token:?}").contains(&token.to_hex()));
    }
}
