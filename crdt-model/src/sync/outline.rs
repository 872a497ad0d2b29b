//! Where in a CBOR value a byte stands: which item of which array, and how far in it. Values
//! at one place resemble each other, whatever came before. Any bytes at all can be followed.

/// A place within nested arrays.
#[derive(Debug, Clone, Default)]
pub(super) struct Outline {
    /// For each open array: items left, and items passed.
    open: Vec<(u64, u64)>,
    /// Bytes of a number's argument that are still to come, and its value so far.
    argument: u8,
    value: u64,
    major: u8,
    /// Bytes of a text that are still to come.
    text: u64,
    /// Bytes of this item so far.
    within: u64,
}

const DEPTH_MAX: usize = 8;

impl Outline {
    /// Follows one more byte.
    pub(super) fn pass(&mut self, byte: u8) {
        self.within += 1;
        if self.text > 0 {
            self.text -= 1;
            if self.text == 0 {
                self.close();
            }
        } else if self.argument > 0 {
            self.argument -= 1;
            self.value = self.value << 8 | u64::from(byte);
            if self.argument == 0 {
                self.header();
            }
        } else {
            self.major = byte >> 5;
            self.value = u64::from(byte & 31);
            self.argument = match byte & 31 {
                24 => 1,
                25 => 2,
                26 => 4,
                27 => 8,
                _ => 0,
            };
            if self.argument == 0 { self.header() } else { self.value = 0 }
        }
    }

    /// A number that tells the place from others: the path, and what this item has shown.
    pub(super) fn place(&self) -> u64 {
        let mut place = 7_u64;
        for (_, passed) in &self.open {
            // The first items of an array are fields; later ones are alike.
            place = place.wrapping_mul(31).wrapping_add(passed.min(&12) + 1);
        }
        let text = u64::from(self.text > 0);
        let inside = if self.text > 0 { self.within.min(2) } else { self.within.min(9) };
        place.wrapping_mul(1_000_003).wrapping_add(inside << 8 | u64::from(self.argument) << 4 | text) & 0xFFFF_FFFF
    }

    /// An item's header is complete.
    fn header(&mut self) {
        match self.major {
            2 | 3 if self.value > 0 => self.text = self.value,
            4 if self.value > 0 && self.open.len() < DEPTH_MAX => {
                self.open.push((self.value, 0));
                self.within = 0;
            }
            _ => self.close(),
        }
    }

    /// An item ends, and each array that it completes.
    fn close(&mut self) {
        self.within = 0;
        while let Some((left, passed)) = self.open.last_mut() {
            *left -= 1;
            *passed += 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(bytes: &[u8]) -> Vec<u64> {
        let mut outline = Outline::default();
        let place = |byte: &u8| {
            outline.pass(*byte);
            outline.place()
        };
        bytes.iter().map(place).collect()
    }

    #[test]
    fn a_place_does_not_depend_on_the_values_before_it() {
        // [["TEA", 1000], 5] and [["SUGAR", 2000], 7]
        let tea = places(&[0x82, 0x82, 0x63, b'T', b'E', b'A', 0x19, 0x03, 0xe8, 0x05]);
        let sugar = places(&[0x82, 0x82, 0x65, b'S', b'U', b'G', b'A', b'R', 0x19, 0x07, 0xd0, 0x07]);
        assert_eq!(tea[5..], sugar[7..], "from the end of the name on");
        let all: std::collections::BTreeSet<u64> = tea.iter().copied().collect();
        assert!(all.len() >= 8, "places differ: {all:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_followed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            places(&bytes);
        }
    }
}
