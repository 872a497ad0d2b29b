//! What each entry of a journal added to the totals, so that the figures of any stretch of
//! the journal (a shift) can be had without its facts. About 30 bytes a sale.

use minicbor::{Decode, Decoder, Encode};

use super::tally::{Sheet, Sign, Tally};
use crate::money::Currency;

const CHUNK_SLIPS_MAX: usize = 128;

/// A journal's slips in chunks; a chunk's numbers all come before the next one's first.
#[derive(Debug, Clone, Default, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Slips(#[n(0)] Vec<Chunk>);

#[derive(Debug, Clone, Default, Encode, Decode)]
struct Chunk {
    #[n(0)]
    first: u64,
    #[n(1)]
    last: u64,
    #[n(2)]
    count: usize,
    #[n(3)]
    sum: Sheet,
    /// Slips one after the other, in no order.
    #[cbor(n(4), with = "minicbor::bytes")]
    slips: Vec<u8>,
}

type Slip = (u64, Currency, Tally);

impl Slips {
    /// Taking back adds a slip too, which undoes the first one.
    pub(super) fn add(&mut self, seq: u64, currency: Currency, tally: &Tally, sign: Sign) {
        let at = self.0.partition_point(|chunk| chunk.first <= seq);
        let appends =
            at == self.0.len() && self.0.last().is_none_or(|chunk| chunk.count >= CHUNK_SLIPS_MAX && chunk.last < seq);
        if appends {
            if let Some(full) = self.0.last_mut() {
                full.slips.shrink_to_fit();
            }
            self.0.push(Chunk { first: seq, ..Chunk::default() });
        }
        let at = if appends { at } else { at.saturating_sub(1) };
        let Some(chunk) = self.0.get_mut(at) else {
            return;
        };
        match sign {
            Sign::Count => chunk.add(seq, currency, tally),
            Sign::TakeBack => {
                let mut taken = Tally::default();
                taken.add(tally, sign);
                chunk.add(seq, currency, &taken);
            }
        }
        if chunk.count > 2 * CHUNK_SLIPS_MAX
            && let Some((lower, upper)) = chunk.split()
        {
            *chunk = lower;
            self.0.insert(at + 1, upper);
        }
    }

    /// The figures of entries up to and including `seq`.
    pub(super) fn through(&self, seq: u64) -> Sheet {
        let mut sheet = Sheet::default();
        for chunk in self.0.iter().take_while(|chunk| chunk.first <= seq) {
            if chunk.last <= seq {
                sheet.add_sheet(&chunk.sum, Sign::Count);
                continue;
            }
            for (_, currency, tally) in chunk.read().into_iter().filter(|(at, _, _)| *at <= seq) {
                sheet.add(currency, &tally, Sign::Count);
            }
        }
        sheet
    }
}

impl Chunk {
    fn add(&mut self, seq: u64, currency: Currency, tally: &Tally) {
        self.first = if self.count == 0 { seq } else { self.first.min(seq) };
        self.last = self.last.max(seq);
        self.count += 1;
        self.sum.add(currency, tally, Sign::Count);
        // Writing to memory can't fail.
        drop(minicbor::encode((seq, currency, tally), &mut self.slips));
    }

    fn read(&self) -> Vec<Slip> {
        let mut decoder = Decoder::new(&self.slips);
        let mut slips = Vec::with_capacity(CHUNK_SLIPS_MAX);
        while decoder.position() < self.slips.len() {
            let Ok(slip) = decoder.decode() else {
                return slips;
            };
            slips.push(slip);
        }
        slips
    }

    /// Two halves, unless all slips are of one entry.
    fn split(&self) -> Option<(Self, Self)> {
        let mut slips = self.read();
        slips.sort_by_key(|(seq, _, _)| *seq);
        let middle = slips.get(slips.len() / 2)?.0;
        let cut = if middle > self.first { middle } else { middle.checked_add(1)? };
        let (mut lower, mut upper) = (Self::default(), Self::default());
        for (seq, currency, tally) in &slips {
            let half = if *seq < cut { &mut lower } else { &mut upper };
            half.add(*seq, *currency, tally);
        }
        (upper.count > 0).then_some((lower, upper))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::tally::{Figure, tally_of};
    use crate::money::Money;
    use crate::record::{Expense, Fact, TenderKind};

    #[test]
    fn the_figures_of_a_stretch_equal_a_plain_sum_whatever_the_order_of_arrival() {
        let mut slips = Slips::default();
        for step in 0..2_000_u64 {
            let seq = step * 773 % 2_000;
            let expense = Fact::Expense(Expense {
                source: None,
                occurred: None,
                category: "tea".to_owned(),
                amount: Money::new(i64::try_from(seq).unwrap(), Currency::KES),
                description: None,
                paid_with: TenderKind::Cash,
            });
            let (currency, tally) = tally_of(&expense).unwrap();
            slips.add(seq, currency, &tally, Sign::Count);
            if seq % 10 == 0 {
                slips.add(seq, currency, &tally, Sign::TakeBack);
            }
        }
        for through in [0, 1, 9, 10, 500, 1_234, 1_999, 5_000] {
            let expected: i128 = (0..=through.min(1_999)).filter(|seq| seq % 10 != 0).map(i128::from).sum();
            let sheet = slips.through(through);
            assert_eq!(sheet.currency(Currency::KES).of(Figure::ExpensesMinor), expected, "through {through}");
        }
        let stored: Slips = minicbor::decode(&minicbor::to_vec(&slips).unwrap()).unwrap();
        assert_eq!(stored.through(777), slips.through(777));
    }
}
