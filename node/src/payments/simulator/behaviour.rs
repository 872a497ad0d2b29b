//! What a simulated customer, or the simulated provider, does with a push.

use serde::{Deserialize, Serialize};

/// What happens to a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Accepted, charged, called back.
    Pay,
    /// Accepted, not charged, called back with `code`.
    Decline,
    /// Never answered. Charged and called back only if `charged`.
    Timeout,
    /// Accepted and charged (unless `charged` is false), but never called back.
    Silent,
    /// Answered with the HTTP status and error of `status`, `code` and `message`. Charged and
    /// called back only if `charged`.
    Error,
    /// The connection is reset instead of an answer: before anything is done, or, if `charged`, once
    /// the customer has been charged.
    Reset,
    /// Answered with status 200 and a body that is no JSON. Charged and called back only if
    /// `charged`.
    Malformed,
}

/// How one push goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// What happens.
    pub kind: Kind,
    /// The result code of a decline (1032 unless told), or the error code of an error.
    #[serde(default)]
    pub code: Option<String>,
    /// Whether the customer is charged; each kind has its own default.
    #[serde(default)]
    pub charged: Option<bool>,
    /// How long the customer takes, in milliseconds.
    #[serde(default = "default_delay_ms")]
    pub delay_ms: u64,
    /// How many callbacks are sent, 1 to 10.
    #[serde(default = "default_repeat")]
    pub repeat: u8,
    /// Whether the callbacks go out before the answer.
    #[serde(default)]
    pub callback_first: bool,
    /// The HTTP status of an error; 500 unless told.
    #[serde(default)]
    pub status: Option<u16>,
    /// The message of an error.
    #[serde(default)]
    pub message: Option<String>,
    /// A callback with this code goes out before the true one, which may contradict it.
    #[serde(default)]
    pub first_code: Option<String>,
    /// What queries say from the start, whatever is true; 4999 means "being processed".
    #[serde(default)]
    pub query_code: Option<String>,
    /// How long a charge takes to appear in the list of transactions, in milliseconds.
    #[serde(default)]
    pub list_delay_ms: u64,
    /// How many forged callbacks go out as well: without the token, with another checkout, with
    /// another amount.
    #[serde(default)]
    pub forged: u8,
    /// How far apart repeated callbacks are, in milliseconds.
    #[serde(default)]
    pub apart_ms: u64,
}

const DELAY_MS_MAX: u64 = 600_000;
/// The provider's list is taken to be complete after two hours.
const LIST_DELAY_MS_MAX: u64 = 110 * 60 * 1000;
const REPEAT_MAX: u8 = 10;
const TEXT_BYTES_MAX: usize = 128;

/// Long enough for the answer to arrive first, as it nearly always does.
fn default_delay_ms() -> u64 {
    50
}

fn default_repeat() -> u8 {
    1
}

impl Behaviour {
    /// A behaviour with every default.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            code: None,
            charged: None,
            delay_ms: default_delay_ms(),
            repeat: default_repeat(),
            callback_first: false,
            status: None,
            message: None,
            first_code: None,
            query_code: None,
            list_delay_ms: 0,
            forged: 0,
            apart_ms: 0,
        }
    }

    /// A decline with a result code.
    #[must_use]
    pub fn decline(code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..Self::new(Kind::Decline) }
    }

    /// A push that is never answered.
    #[must_use]
    pub fn timeout(charged: bool) -> Self {
        Self { charged: Some(charged), ..Self::new(Kind::Timeout) }
    }

    /// A push whose connection is reset.
    #[must_use]
    pub fn reset(charged: bool) -> Self {
        Self { charged: Some(charged), ..Self::new(Kind::Reset) }
    }

    /// Checks what serde can't.
    ///
    /// # Errors
    /// The field and what would do.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.list_delay_ms > LIST_DELAY_MS_MAX || self.apart_ms > DELAY_MS_MAX {
            return Err("list_delay_ms, apart_ms: keep them at 6600000 and 600000 or less");
        }
        if self.forged > REPEAT_MAX {
            return Err("forged: choose 0 to 10");
        }
        if self.delay_ms > DELAY_MS_MAX {
            return Err("delay_ms: keep it at 600000 or less");
        }
        if !(1..=REPEAT_MAX).contains(&self.repeat) {
            return Err("repeat: choose 1 to 10; for no callback choose kind silent");
        }
        let long =
            |text: &Option<String>| text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX || text.is_empty());
        if long(&self.code) || long(&self.message) || long(&self.first_code) || long(&self.query_code) {
            return Err("code, message, first_code, query_code: write 1 to 128 bytes");
        }
        if self.kind == Kind::Decline && self.code.as_deref() == Some("0") {
            return Err("code: 0 means paid: choose kind pay");
        }
        if self.status.is_some_and(|status| !(400..=599).contains(&status)) {
            return Err("status: choose 400 to 599");
        }
        Ok(())
    }

    /// The result that the customer's side ends with; `None` if the push never got there.
    pub(super) fn result_code(&self) -> Option<&str> {
        match self.kind {
            Kind::Decline => Some(self.code.as_deref().unwrap_or("1032")),
            Kind::Pay => Some("0"),
            Kind::Silent => self.charged.unwrap_or(true).then_some("0"),
            Kind::Timeout | Kind::Error | Kind::Malformed | Kind::Reset => self.charged.unwrap_or(false).then_some("0"),
        }
    }

    pub(super) fn callbacks(&self) -> u8 {
        match self.kind {
            Kind::Silent => 0,
            Kind::Pay | Kind::Decline | Kind::Timeout | Kind::Error | Kind::Malformed | Kind::Reset => self.repeat,
        }
    }
}

/// Numbers that always do the same, so that each outcome can be tried by hand.
#[must_use]
pub fn fixed_phones() -> Vec<(&'static str, &'static str, Behaviour)> {
    let repeated = Behaviour { repeat: 3, ..Behaviour::new(Kind::Pay) };
    let first = Behaviour { callback_first: true, delay_ms: 0, ..Behaviour::new(Kind::Pay) };
    let slow = Behaviour { delay_ms: 5_000, ..Behaviour::new(Kind::Pay) };
    vec![
        ("254700000001", "cancels (1032)", Behaviour::decline("1032")),
        ("254700000002", "has too little money (1)", Behaviour::decline("1")),
        ("254700000003", "mistypes the PIN (2001)", Behaviour::decline("2001")),
        ("254700000004", "no answer, not charged", Behaviour::timeout(false)),
        ("254700000005", "no answer, charged, callback follows", Behaviour::timeout(true)),
        ("254700000006", "charged, no callback", Behaviour::new(Kind::Silent)),
        ("254700000007", "pays; three callbacks", repeated),
        ("254700000008", "pays; the callback comes before the answer", first),
        ("254700000009", "can't be reached (1037)", Behaviour::decline("1037")),
        ("254700000010", "pays after five seconds", slow),
        ("254700000011", "connection reset, not charged", Behaviour::reset(false)),
        ("254700000012", "connection reset, charged, callback follows", Behaviour::reset(true)),
    ]
}

/// How a status query about a receipt number goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusWay {
    /// How long its result takes, in milliseconds.
    pub delay_ms: u64,
    /// How often the result is reported; 0 for never.
    pub repeat: u8,
    /// It says that there is no such payment, whatever is true.
    pub denies: bool,
    /// A forged result comes as well, without the token.
    pub forged: bool,
}

impl Default for StatusWay {
    fn default() -> Self {
        Self { delay_ms: 0, repeat: 1, denies: false, forged: false }
    }
}

impl StatusWay {
    /// Checks what serde can't.
    ///
    /// # Errors
    /// The field and what would do.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.delay_ms > DELAY_MS_MAX || self.repeat > REPEAT_MAX {
            return Err("status: keep delay_ms at 600000 and repeat at 10 or less");
        }
        Ok(())
    }
}

/// Shares of payments, in thousandths, that go other than plainly well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    /// Cancelled by the customer.
    pub decline_permille: u16,
    /// Paid, with two callbacks.
    pub repeat_permille: u16,
    /// Paid, with the callback before the answer.
    pub callback_first_permille: u16,
    /// Never answered, charged all the same.
    pub timeout_charged_permille: u16,
    /// Never answered, not charged.
    pub timeout_permille: u16,
    /// Charged, never called back.
    pub silent_permille: u16,
}

impl Mix {
    pub(super) fn permille_sum(&self) -> u32 {
        self.shares().iter().map(|(share, _)| u32::from(*share)).sum()
    }

    /// The behaviour of one payment: a function of seed and account reference alone, so that
    /// the order in which payments arrive changes nothing.
    pub(super) fn draw(&self, seed: u64, account_reference: &str) -> Behaviour {
        let mut hasher = blake3::Hasher::new_derive_key("tillmesh 2026 simulator mix");
        hasher.update(&seed.to_le_bytes()).update(account_reference.as_bytes());
        let mut drawn = [0_u8; 8];
        hasher.finalize_xof().fill(&mut drawn);
        let mut place = u64::from_le_bytes(drawn) % 1000;
        for (share, behaviour) in self.shares() {
            match place.checked_sub(u64::from(share)) {
                None => return behaviour,
                Some(rest) => place = rest,
            }
        }
        Behaviour::new(Kind::Pay)
    }

    fn shares(&self) -> [(u16, Behaviour); 6] {
        let twice = Behaviour { repeat: 2, ..Behaviour::new(Kind::Pay) };
        let first = Behaviour { callback_first: true, ..Behaviour::new(Kind::Pay) };
        [
            (self.decline_permille, Behaviour::decline("1032")),
            (self.repeat_permille, twice),
            (self.callback_first_permille, first),
            (self.timeout_charged_permille, Behaviour::timeout(true)),
            (self.timeout_permille, Behaviour::timeout(false)),
            (self.silent_permille, Behaviour::new(Kind::Silent)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_decided_by_seed_and_reference_and_keeps_its_shares() {
        let mix = Mix { decline_permille: 200, repeat_permille: 100, ..Mix::default() };
        let count =
            |seed: u64, kind: Kind| (0..2_000).filter(|n| mix.draw(seed, &format!("REF{n}")).kind == kind).count();
        assert_eq!(count(1, Kind::Decline), count(1, Kind::Decline));
        assert!((300..500).contains(&count(1, Kind::Decline)));
        assert_eq!(count(1, Kind::Silent), 0);
        let differ = (0..100).filter(|n| mix.draw(1, &format!("REF{n}")) != mix.draw(2, &format!("REF{n}")));
        assert!(differ.count() > 0);
        assert_eq!(mix.permille_sum(), 300);
    }

    #[test]
    fn each_fixed_phone_is_a_valid_number_with_a_valid_behaviour() {
        for (phone, _, behaviour) in fixed_phones() {
            assert_eq!(phone.parse::<super::super::super::Phone>().unwrap().msisdn(), phone);
            assert_eq!(behaviour.check(), Ok(()));
        }
    }

    #[test]
    fn an_impossible_behaviour_names_its_field() {
        for (behaviour, field) in [
            (Behaviour { repeat: 0, ..Behaviour::new(Kind::Pay) }, "repeat"),
            (Behaviour { delay_ms: u64::MAX, ..Behaviour::new(Kind::Pay) }, "delay_ms"),
            (Behaviour::decline("0"), "code"),
            (Behaviour::decline(""), "code"),
            (Behaviour { status: Some(200), ..Behaviour::new(Kind::Error) }, "status"),
        ] {
            assert!(behaviour.check().unwrap_err().starts_with(field));
        }
    }
}
