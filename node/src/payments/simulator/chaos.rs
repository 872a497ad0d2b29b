//! Every kind of misbehaviour by chance: a function of the seed and the payment alone, so that a
//! seed repeats it.

use super::Simulator;
use super::behaviour::{Behaviour, Kind, StatusWay};

/// Chance from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same throws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The dice of one thing among many.
    #[must_use]
    pub fn of(seed: u64, what: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tillmesh 2026 simulator dice");
        hasher.update(&seed.to_le_bytes()).update(what.as_bytes());
        let mut drawn = [0_u8; 8];
        hasher.finalize_xof().fill(&mut drawn);
        Self(u64::from_le_bytes(drawn))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any().checked_rem(limit).unwrap_or(0)
    }

    /// Whether something of so many thousandths happens.
    pub fn permille(&mut self, share: u64) -> bool {
        self.below(1_000) < share
    }

    /// One of several.
    pub fn one_of<T: Copy>(&mut self, of: &[T], otherwise: T) -> T {
        let at = usize::try_from(self.below(of.len() as u64)).unwrap_or(0);
        of.get(at).copied().unwrap_or(otherwise)
    }
}

/// Errors with their messages: first those that are certain, then those that are not.
const CERTAIN: [(u16, &str, &str); 7] = [
    (400, "400.002.02", "Bad Request - Invalid Amount"),
    (401, "401.002.01", "Error Occurred - Invalid Access Token"),
    (404, "404.001.03", "Invalid Access Token"),
    (405, "405.001", "Method Not Allowed"),
    (429, "429.001", "Too Many Requests"),
    (500, "500.003.02", "Error Occurred: Spike Arrest Violation"),
    (500, "500.003.03", "Quota Violation"),
];
const UNCERTAIN: [(u16, &str, &str); 7] = [
    (500, "500.003.1001", "Internal Server Error"),
    (500, "500.003.02", "System is busy. Please try again in few minutes."),
    (500, "500.001.1001", "Unable to lock subscriber"),
    (502, "", "Bad Gateway"),
    (503, "", "Service Unavailable"),
    (504, "", "Gateway Timeout"),
    (403, "", "Forbidden"),
];
const HARD: [&str; 8] = ["1", "2", "8", "17", "1032", "2001", "2028", "SFC_IC0003"];
const SOFT: [&str; 5] = ["1019", "1025", "1037", "9999", "1001"];

/// How one push goes.
pub(super) fn draw(seed: u64, account_reference: &str) -> Behaviour {
    let mut dice = Dice::of(seed, account_reference);
    let mut behaviour = match dice.below(100) {
        0..40 => Behaviour::new(Kind::Pay),
        40..52 => Behaviour::decline(dice.one_of(&HARD, "1032")),
        52..58 => Behaviour::decline(dice.one_of(&SOFT, "1037")),
        58..60 => Behaviour::decline(dice.one_of(&["77777", "4999"], "77777")),
        60..68 => Behaviour::timeout(dice.permille(600)),
        68..76 => Behaviour { charged: Some(dice.permille(700)), ..Behaviour::new(Kind::Silent) },
        76..82 => error(dice.one_of(&CERTAIN, CERTAIN[0]), None),
        82..85 => Behaviour::reset(dice.permille(600)),
        85..92 => error(dice.one_of(&UNCERTAIN, UNCERTAIN[0]), Some(dice.permille(500))),
        _ => Behaviour { charged: Some(dice.permille(500)), ..Behaviour::new(Kind::Malformed) },
    };
    behaviour.delay_ms = dice.one_of(&[0, 50, 1_000, 5_000, 20_000, 60_000], 50);
    behaviour.repeat = dice.one_of(&[1, 1, 1, 2, 3, 5], 1);
    behaviour.apart_ms = dice.one_of(&[0, 10, 5_000, 300_000], 0);
    behaviour.callback_first = dice.permille(100) && behaviour.delay_ms <= 1_000 && behaviour.apart_ms == 0;
    if dice.permille(80) {
        behaviour.first_code = Some(dice.one_of(&SOFT, "1037").to_owned());
    } else if dice.permille(15) && behaviour.result_code() == Some("0") {
        // The worst of all: a certain failure that is taken back.
        behaviour.first_code = Some("1032".to_owned());
    }
    if dice.permille(200) {
        behaviour.query_code = Some(dice.one_of(&["1032", "1037", "4999", "2001"], "1032").to_owned());
    }
    behaviour.list_delay_ms = dice.one_of(&[0, 0, 60_000, 600_000, 3_600_000, 6_600_000], 0);
    behaviour.forged = u8::from(dice.permille(50));
    behaviour
}

fn error((status, code, message): (u16, &str, &str), charged: Option<bool>) -> Behaviour {
    Behaviour {
        status: Some(status),
        code: (!code.is_empty()).then(|| code.to_owned()),
        message: Some(message.to_owned()),
        charged,
        ..Behaviour::new(Kind::Error)
    }
}

/// How one status query goes.
pub(super) fn status(simulator: &Simulator, receipt_number: &str) -> StatusWay {
    let count = simulator.ledger().count_status(receipt_number);
    let moment = format!("status {receipt_number} {count}");
    let mut dice = Dice::of(simulator.config.seed, &moment);
    StatusWay {
        delay_ms: dice.one_of(&[0, 1_000, 60_000, 600_000], 0),
        repeat: dice.one_of(&[0, 1, 1, 2, 3], 1),
        denies: dice.permille(300),
        forged: dice.permille(100),
    }
}

/// Whether another user of the credentials has fetched a token just now.
pub(super) fn invalidates(simulator: &Simulator) -> bool {
    let moment = format!("token {}", simulator.ledger().count_token_check());
    Dice::of(simulator.config.seed, &moment).permille(20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawn_behaviour_is_possible_and_each_kind_comes_up() {
        let mut kinds = Vec::new();
        for number in 0..2_000 {
            let behaviour = draw(3, &format!("REF{number}"));
            assert_eq!(behaviour.check(), Ok(()), "{behaviour:?}");
            assert_eq!(behaviour, draw(3, &format!("REF{number}")));
            if !kinds.contains(&behaviour.kind) {
                kinds.push(behaviour.kind);
            }
        }
        assert_eq!(kinds.len(), 7);
    }
}
