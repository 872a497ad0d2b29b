//! The books as bytes, for snapshots, and the digest by which devices compare their figures.

use minicbor::{Decoder, Encoder};

use super::Books;
use crate::ids::domain_hash;
use crate::record::Kind;
use crate::time::Day;

/// Raised with every change of the layout; books of another version are folded again.
const VERSION: u32 = 7;

/// Why stored books can't be used. Fold the facts again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BooksError {
    /// Another version of the program wrote them.
    #[error("the books are of layout {found}, not {VERSION}: fold the facts again")]
    OtherVersion {
        /// Their version.
        found: u32,
    },
    /// They are damaged.
    #[error("the books are damaged ({0}): fold the facts again")]
    Damaged(String),
}

impl Books {
    /// The books as bytes. Equal books may give different bytes; compare
    /// [`Books::digest`]s instead.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        // Writing to memory can't fail; if it did, decoding would say that it is damaged.
        match self.write(&mut encoder) {
            Ok(()) => encoder.into_writer(),
            Err(_) => Vec::new(),
        }
    }

    /// Reads what [`Books::encode`] wrote.
    ///
    /// # Errors
    /// A [`BooksError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BooksError> {
        let damaged = |error: minicbor::decode::Error| BooksError::Damaged(error.to_string());
        let mut decoder = Decoder::new(bytes);
        let found = decoder.u32().map_err(damaged)?;
        if found != VERSION {
            return Err(BooksError::OtherVersion { found });
        }
        let books = Self::read(&mut decoder).map_err(damaged)?;
        if decoder.position() != bytes.len() {
            return Err(BooksError::Damaged("there are bytes behind them".to_owned()));
        }
        Ok(books)
    }

    /// A hash of every figure: totals of each day and device, stock, payments, counts of
    /// records and conflicts. Equal on devices that hold the same facts; costs a look at all
    /// figures.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut encoder = Encoder::new(Vec::new());
        match self.write_figures(&mut encoder) {
            Ok(()) => domain_hash("tillmesh 2026 figures", &[&encoder.into_writer()]),
            Err(_) => [0; 32],
        }
    }

    fn write(&self, encoder: &mut Encoder<Vec<u8>>) -> Written {
        encoder.u32(VERSION)?;
        encoder
            .encode(&self.journals)?
            .encode(&self.records)?
            .encode(&self.stock)?
            .encode(&self.totals)?
            .encode(&self.payments)?
            .encode(&self.shifts)?
            .encode(&self.handoffs)?
            .encode(&self.docket)?
            .encode(&self.oversold)?
            .encode(&self.upstream)?
            .ok()
    }

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        Ok(Self {
            journals: decoder.decode()?,
            records: decoder.decode()?,
            stock: decoder.decode()?,
            totals: decoder.decode()?,
            payments: decoder.decode()?,
            shifts: decoder.decode()?,
            handoffs: decoder.decode()?,
            docket: decoder.decode()?,
            oversold: decoder.decode()?,
            upstream: decoder.decode()?,
        })
    }

    fn write_figures(&self, encoder: &mut Encoder<Vec<u8>>) -> Written {
        for totals in self.days(Day(i32::MIN)..=Day(i32::MAX)) {
            encoder.encode(&totals)?;
        }
        for level in self.stock_levels(None) {
            encoder.str(&level.sku)?.encode(level.on_hand_milli)?.u32(level.late_movements)?;
        }
        for id in self.payments.all() {
            encoder.encode(id)?.encode(self.payments.state(id))?;
        }
        encoder.encode(self.payment_sums())?;
        for kind in KINDS {
            encoder.u64(self.count_of(kind) as u64)?;
        }
        for (id, phase) in self.handoffs.phases() {
            encoder.encode(id)?.encode(phase)?;
        }
        for (id, _) in self.docket.present() {
            encoder.encode(id)?.encode(self.docket.decision(id))?;
        }
        Ok(())
    }
}

type Written = Result<(), minicbor::encode::Error<<Vec<u8> as minicbor::encode::Write>::Error>>;

const KINDS: [Kind; 24] = [
    Kind::Sale,
    Kind::Expense,
    Kind::FinancialRecord,
    Kind::StockMovement,
    Kind::StockCount,
    Kind::Intent,
    Kind::Void,
    Kind::Refund,
    Kind::ShiftOpened,
    Kind::ShiftClosed,
    Kind::Receipt,
    Kind::Decline,
    Kind::Custom,
    Kind::Enrolment,
    Kind::IntentAddressed,
    Kind::IntentConfirmed,
    Kind::Resolution,
    Kind::HandoffOffered,
    Kind::HandoffAccepted,
    Kind::HandoffTransferred,
    Kind::HandoffWithdrawn,
    Kind::HandoffDecided,
    Kind::Payment,
    Kind::Upstream,
];
