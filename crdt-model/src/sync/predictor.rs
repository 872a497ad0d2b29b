//! A coder for a few dozen bytes: it guesses each bit from the bytes before it, as a dictionary
//! taught it, and spends on a bit only what the guess was off by. In whole numbers alone, so
//! that every machine guesses alike. zstd spends more on its own headers than a sale takes.

use super::outline::Outline;

/// Guesses the next bit from several contexts at once, and learns from each bit.
#[derive(Debug, Clone)]
pub(super) struct Predictor {
    /// One table of guesses a context; a guess is 12 bits of probability and 4 of experience.
    tables: Vec<Vec<u16>>,
    /// How much each context is trusted, by the bits of this byte that are known.
    weights: Vec<[i32; CONTEXTS]>,
    /// The bytes of this field so far, the latest lowest; what kind of field it is, at first.
    history: u64,
    outline: Outline,
    /// The bits of this byte that are known, behind a leading one.
    partial: usize,
    hashes: [usize; CONTEXTS],
    slots: [usize; CONTEXTS],
    stretched: [i32; CONTEXTS],
    guess: i32,
}

const CONTEXTS: usize = 7;
const SLOT_BITS: u32 = 13;
/// A guess of one half, without experience.
const NOTHING_KNOWN: u16 = 2048 << 4;
/// How far experience counts: the guess moves by 1 / (experience + 1.5).
const EXPERIENCE_MAX: u16 = 14;
const WEIGHT_ONE: i32 = 1 << 16;
const WEIGHT_FIRST: i32 = WEIGHT_ONE * 3 / 10;
const LEARNING_SHIFT: i32 = 10;

impl Predictor {
    /// A predictor that knows nothing.
    pub(super) fn untaught() -> Self {
        let mut fresh = Self {
            tables: vec![vec![NOTHING_KNOWN; 1 << SLOT_BITS]; CONTEXTS],
            weights: vec![[WEIGHT_FIRST; CONTEXTS]; 256],
            history: 0,
            outline: Outline::default(),
            partial: 1,
            hashes: [0; CONTEXTS],
            slots: [0; CONTEXTS],
            stretched: [0; CONTEXTS],
            guess: 2048,
        };
        fresh.begin(0);
        fresh
    }

    /// What follows is a field of another kind: what came before says nothing about it.
    pub(super) fn begin(&mut self, field: u8) {
        self.history = u64::from(field) + 1;
        self.outline = Outline::default();
        self.partial = 1;
        self.look();
    }

    /// The probability that the next bit is a one, in 4096ths; never 0 or all.
    fn one(&self) -> u32 {
        self.guess.clamp(1, 4095).unsigned_abs()
    }

    /// Learns the bit that came.
    fn learn(&mut self, bit: u32) {
        let curve = Curve::shared();
        let target = if bit == 1 { 4095 } else { 0 };
        let error = target - self.guess;
        if let Some(weights) = self.weights.get_mut(self.partial & 0xff) {
            for (weight, stretched) in weights.iter_mut().zip(self.stretched) {
                *weight += (stretched * error + (1 << (LEARNING_SHIFT - 1))) >> LEARNING_SHIFT;
            }
        }
        for (table, slot) in self.tables.iter_mut().zip(self.slots) {
            let Some(guess) = table.get_mut(slot) else { continue };
            let (probability, experience) = (i32::from(*guess >> 4), *guess & 15);
            let moved = probability + (target - probability) * 2 / (2 * i32::from(experience) + 3);
            let probability = u16::try_from(moved.clamp(0, 4095)).unwrap_or_default();
            *guess = probability << 4 | (experience + 1).min(EXPERIENCE_MAX);
        }
        self.partial = self.partial << 1 | usize::from(bit == 1);
        if self.partial >= 256 {
            let byte = u8::try_from(self.partial & 0xff).unwrap_or_default();
            self.history = self.history << 8 | u64::from(byte);
            self.outline.pass(byte);
            self.partial = 1;
            self.look();
        } else {
            self.weigh(curve);
        }
    }

    /// Finds the contexts of the next byte.
    fn look(&mut self) {
        let place = self.outline.place();
        let recent = |bytes: u32| self.history & ((1 << (8 * bytes)) - 1);
        let contexts =
            [place, place << 8 ^ recent(1), place << 16 ^ recent(2), recent(1), recent(2), recent(3), recent(5)];
        for (index, (hash, context)) in (0_u64..).zip(self.hashes.iter_mut().zip(contexts)) {
            let mixed = (context ^ index << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            *hash = usize::try_from((mixed ^ mixed >> 29) >> 16 & 0xFFFF_FFFF).unwrap_or_default();
        }
        self.weigh(Curve::shared());
    }

    /// Mixes the guesses of all contexts.
    fn weigh(&mut self, curve: &Curve) {
        let mut sum = 0_i64;
        let weights = self.weights.get(self.partial & 0xff).copied().unwrap_or([0; CONTEXTS]);
        let places = self.slots.iter_mut().zip(&mut self.stretched).zip(self.hashes);
        for ((table, weight), ((slot, stretched), hash)) in self.tables.iter().zip(weights).zip(places) {
            let spread = hash.wrapping_add(self.partial.wrapping_mul(0x2F0B_4C47));
            *slot = (spread ^ spread >> SLOT_BITS) & ((1 << SLOT_BITS) - 1);
            let guess = table.get(*slot).copied().unwrap_or(NOTHING_KNOWN);
            *stretched = curve.stretch(i32::from(guess >> 4));
            sum += i64::from(weight) * i64::from(*stretched);
        }
        self.guess = curve.squash(i32::try_from(sum >> 16).unwrap_or_default());
    }
}

/// The logistic function and its inverse, in 256ths and 4096ths.
#[derive(Debug)]
struct Curve {
    squashed: Vec<i32>,
    stretched: Vec<i32>,
}

/// Beyond this, in 256ths, a guess is as good as certain.
const STRETCH_MAX: i32 = 2047;
/// e^(1/256), in 2^-32.
const STEP: u64 = 4_311_777_323;

impl Curve {
    fn shared() -> &'static Self {
        static CURVE: std::sync::OnceLock<Curve> = std::sync::OnceLock::new();
        CURVE.get_or_init(Self::measure)
    }

    fn measure() -> Self {
        // Upwards from the middle: 1 / (1 + e^-x), with e^-x by repeated division.
        let mut upper = Vec::new();
        let mut power = 1_u64 << 32;
        for _ in 0..=STRETCH_MAX {
            upper.push(i32::try_from((4096_u64 << 32) / ((1 << 32) + power)).unwrap_or_default());
            power = (power << 31) / (STEP >> 1);
        }
        let lower = upper.iter().skip(1).rev().map(|probability| 4096 - probability);
        let squashed: Vec<i32> = lower.chain(upper.iter().copied()).map(|value| value.clamp(1, 4095)).collect();
        let mut stretched = Vec::new();
        let mut at = 0_usize;
        for probability in 0..4096 {
            while squashed.get(at).is_some_and(|value| *value < probability) {
                at += 1;
            }
            let reached = at.min(squashed.len().saturating_sub(1));
            stretched.push(i32::try_from(reached).unwrap_or_default() - STRETCH_MAX);
        }
        Self { squashed, stretched }
    }

    fn squash(&self, stretched: i32) -> i32 {
        let at = usize::try_from(stretched.clamp(-STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX).unwrap_or_default();
        self.squashed.get(at).copied().unwrap_or(2048)
    }

    fn stretch(&self, probability: i32) -> i32 {
        usize::try_from(probability).ok().and_then(|at| self.stretched.get(at)).copied().unwrap_or_default()
    }
}

/// Writes bytes as bits that the predictor did not guess.
#[derive(Debug)]
pub(super) struct Encoder {
    predictor: Predictor,
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(predictor: Predictor) -> Self {
        Self { predictor, low: 0, high: u32::MAX, out: Vec::new() }
    }

    pub(super) fn begin(&mut self, field: u8) {
        self.predictor.begin(field);
    }

    pub(super) fn put(&mut self, byte: u8) {
        for shift in (0..8).rev() {
            let bit = u32::from(byte >> shift & 1);
            let middle = middle(self.low, self.high, self.predictor.one());
            if bit == 1 {
                self.high = middle
            } else {
                self.low = middle + 1
            }
            self.predictor.learn(bit);
            while (self.low ^ self.high) >> 24 == 0 {
                self.out.push(self.high.to_be_bytes()[0]);
                self.low <<= 8;
                self.high = self.high << 8 | 0xff;
            }
        }
    }

    /// The fewest bytes that say what was written; a reader takes zeros for what is missing.
    pub(super) fn finish(mut self) -> Vec<u8> {
        for count in 0..=4_u32 {
            let kept = self.high & u32::MAX.checked_shl(32 - 8 * count).unwrap_or(0);
            if kept >= self.low {
                self.out.extend(kept.to_be_bytes().into_iter().take(count as usize));
                break;
            }
        }
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }

    /// The predictor, with what it learned from what was written.
    pub(super) fn taught(self) -> Predictor {
        self.predictor
    }
}

/// Reads what an [`Encoder`] wrote. Anything can be read from anything: whoever reads bounds
/// how much, and checks what comes out.
#[derive(Debug)]
pub(super) struct Decoder<'b> {
    predictor: Predictor,
    low: u32,
    high: u32,
    value: u32,
    rest: &'b [u8],
}

impl<'b> Decoder<'b> {
    pub(super) fn new(predictor: Predictor, bytes: &'b [u8]) -> Self {
        let mut decoder = Self { predictor, low: 0, high: u32::MAX, value: 0, rest: bytes };
        (0..4).for_each(|_| decoder.shift());
        decoder
    }

    pub(super) fn begin(&mut self, field: u8) {
        self.predictor.begin(field);
    }

    pub(super) fn take(&mut self) -> u8 {
        let mut byte = 0_u8;
        for _ in 0..8 {
            let middle = middle(self.low, self.high, self.predictor.one());
            let bit = u32::from(self.value <= middle);
            if bit == 1 {
                self.high = middle
            } else {
                self.low = middle + 1
            }
            byte = byte << 1 | u8::from(bit == 1);
            self.predictor.learn(bit);
            while (self.low ^ self.high) >> 24 == 0 {
                self.low <<= 8;
                self.high = self.high << 8 | 0xff;
                self.shift();
            }
        }
        byte
    }

    fn shift(&mut self) {
        let next = match self.rest.split_first() {
            Some((next, rest)) => {
                self.rest = rest;
                *next
            }
            None => 0,
        };
        self.value = self.value << 8 | u32::from(next);
    }
}

/// Where [low, high] is cut: the lower part stands for a one.
fn middle(low: u32, high: u32, one: u32) -> u32 {
    let width = high - low;
    low + (width >> 12) * one + (((width & 0xfff) * one) >> 12)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(fields: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut encoder = Encoder::new(Predictor::untaught());
        for (field, bytes) in fields {
            encoder.begin(*field);
            bytes.iter().for_each(|byte| encoder.put(*byte));
        }
        encoder.finish()
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(fields in proptest::collection::vec((0..4_u8, proptest::collection::vec(any::<u8>(), 0..60)), 0..6)) {
            let bytes = packed(&fields);
            let mut decoder = Decoder::new(Predictor::untaught(), &bytes);
            for (field, written) in &fields {
                decoder.begin(*field);
                let read: Vec<u8> = written.iter().map(|_| decoder.take()).collect();
                prop_assert_eq!(&read, written);
            }
        }
    }

    #[test]
    fn what_repeats_costs_next_to_nothing() {
        let bread = (0, b"BREAD 2 6500 BREAD 2 6500 BREAD 2 6500 BREAD 2 6500 ".repeat(4));
        let bytes = packed(&[bread]);
        assert!(bytes.len() < 40, "{} bytes", bytes.len());
    }

    #[test]
    fn the_curve_is_symmetric_and_rises() {
        let curve = Curve::shared();
        assert_eq!(curve.squash(0), 2048);
        assert_eq!(curve.squash(256), 2994, "4096 / (1 + 1/e)");
        assert_eq!(curve.squash(-256), 4096 - 2994);
        assert!((1..4096).all(|p| curve.stretch(p) >= curve.stretch(p - 1)));
        assert!((64..4032).all(|p| (curve.squash(curve.stretch(p)) - p).abs() <= 4));
    }
}
