//! The GATT service by which devices find and reach each other: its UUIDs, and what its info
//! characteristic says.

use uuid::Uuid;

use super::exchange::ExchangeError;
use super::fragment::{EXCHANGE_VERSION, FragmentError};

/// The service.
pub const SERVICE: Uuid = Uuid::from_u128(0x7469_6c6c_6d65_8073_8000_0000_0000_0001);
/// Read first: see [`Info`].
pub const INFO: Uuid = Uuid::from_u128(0x7469_6c6c_6d65_8073_8000_0000_0000_0002);
/// Characteristics of which each carries one central's fragments, written without response
/// and notified. BlueZ notifies all subscribers of a characteristic, so that each central takes
/// one of its own.
pub const SLOTS: u8 = 4;
/// The number of manufacturers that have none: the tag travels under it, because a legacy
/// advertisement has no room for it under the service's UUID.
pub const MANUFACTURER: u16 = 0xFFFF;
/// More than 510 bytes are silently dropped by BlueZ up to 5.68, and 508 is what the smallest of
/// the usual MTUs of 512 and more leave.
pub const GATT_FRAGMENT_BYTES_MAX: usize = 508;

/// The characteristic of a slot.
#[must_use]
pub const fn slot(n: u8) -> Uuid {
    Uuid::from_u128(0x7469_6c6c_6d65_8073_8000_0000_0000_0010 + n as u128)
}

/// How large fragments in a characteristic may be.
#[must_use]
pub fn gatt_fragment_bytes(mtu: usize) -> usize {
    mtu.saturating_sub(3).min(GATT_FRAGMENT_BYTES_MAX)
}

/// What a peripheral says of itself: version, a channel's number (0 for none), free slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    pub psm: u16,
    /// One bit a slot.
    pub free: u8,
}

impl Info {
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let [low, high] = self.psm.to_le_bytes();
        vec![EXCHANGE_VERSION, low, high, self.free]
    }

    /// # Errors
    /// If it is of another version, or none.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExchangeError> {
        match *bytes {
            // Later versions may say more.
            [EXCHANGE_VERSION, low, high, free, ..] => Ok(Self { psm: u16::from_le_bytes([low, high]), free }),
            [version, ..] if version != EXCHANGE_VERSION => Err(FragmentError::Version(version).into()),
            _ => Err(FragmentError::Short.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_info_comes_back_and_other_versions_are_named() {
        let info = Info { psm: 0x81, free: 0b1110 };
        assert_eq!(Info::parse(&info.to_bytes()), Ok(info));
        assert_eq!(Info::parse(&[1, 0x81, 0, 2, 9]), Ok(Info { psm: 0x81, free: 2 }));
        assert_eq!(Info::parse(&[2, 0, 0, 0]), Err(FragmentError::Version(2).into()));
        assert_eq!(Info::parse(&[1, 0]), Err(FragmentError::Short.into()));
        assert_eq!(Info::parse(&[]), Err(FragmentError::Short.into()));
    }

    #[test]
    fn fragments_leave_room_for_the_att_header() {
        assert_eq!(gatt_fragment_bytes(23), 20);
        assert_eq!(gatt_fragment_bytes(185), 182);
        assert_eq!(gatt_fragment_bytes(517), 508);
    }
}
