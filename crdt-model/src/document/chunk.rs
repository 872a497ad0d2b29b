//! Looks into a change's bytes before Automerge does: a few bytes may claim any number of
//! operations, and Automerge believes them. Format: <https://automerge.org/automerge-binary-format-spec/>.

use super::{CHANGE_BYTES_MAX, DEPS_MAX, OPS_MAX};

/// What a change says of itself.
#[derive(Debug)]
pub(super) struct Claims<'b> {
    pub(super) actor: &'b [u8],
    pub(super) deps: usize,
    pub(super) operations: usize,
    pub(super) replaced: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHECKSUM_BYTES: usize = 4;
const HASH_BYTES: usize = 32;
const TYPE_CHANGE: u8 = 1;
const DEFLATED: u64 = 0b1000;
const ACTION_COLUMN: u64 = (4 << 4) | 2;
const REPLACED_COUNT_COLUMN: u64 = 7 << 4;
/// Nine columns of operations, some of them in parts: 14 are known.
const COLUMNS_MAX: u64 = 16;

/// Reads what bounds the work of decoding, and nothing else. Counts beyond their limits come
/// back as they are; the caller compares.
pub(super) fn claims(bytes: &[u8]) -> Result<Claims<'_>, Malformed> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(Malformed("it is too long"));
    }
    let mut input = Input(bytes);
    if input.take(MAGIC.len())? != MAGIC {
        return Err(Malformed("it is no Automerge chunk"));
    }
    input.take(CHECKSUM_BYTES)?;
    if input.take(1)? != [TYPE_CHANGE] {
        return Err(Malformed("it is not an uncompressed change"));
    }
    if input.unsigned()? != input.0.len() as u64 {
        return Err(Malformed("its length is wrong"));
    }
    let deps = input.size()?;
    if deps > DEPS_MAX {
        return Ok(Claims { actor: &[], deps, operations: 0, replaced: 0 });
    }
    input.take(deps * HASH_BYTES)?;
    let actor_bytes = input.size()?;
    let actor = input.take(actor_bytes)?;
    input.unsigned()?; // sequence number
    input.unsigned()?; // number of the first operation
    input.signed()?; // time
    if input.unsigned()? != 0 {
        return Err(Malformed("it carries a message"));
    }
    for _ in 0..input.size()? {
        let other_bytes = input.size()?;
        input.take(other_bytes)?;
    }
    let (operations, replaced) = counted_columns(&mut input)?;
    if !input.0.is_empty() {
        return Err(Malformed("it has bytes behind it"));
    }
    Ok(Claims { actor, deps, operations, replaced })
}

fn counted_columns(input: &mut Input<'_>) -> Result<(usize, usize), Malformed> {
    let count = input.unsigned()?;
    if count > COLUMNS_MAX {
        return Err(Malformed("it has too many columns"));
    }
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push((input.unsigned()?, input.size()?));
    }
    let (mut operations, mut replaced) = (0_usize, 0_usize);
    for (column, bytes) in columns {
        if column & DEFLATED != 0 {
            return Err(Malformed("it has a compressed column"));
        }
        let mut data = Input(input.take(bytes)?);
        if column == ACTION_COLUMN {
            operations = operations.saturating_add(data.runs(OPS_MAX)?.rows);
        } else if column == REPLACED_COUNT_COLUMN {
            replaced = replaced.saturating_add(data.runs(OPS_MAX)?.sum);
        }
    }
    Ok((operations, replaced))
}

/// A run-length encoded column of numbers, summed up.
struct Runs {
    rows: usize,
    sum: usize,
}

struct Input<'b>(&'b [u8]);

const CUT: Malformed = Malformed("it is cut short");

impl<'b> Input<'b> {
    fn take(&mut self, bytes: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn size(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.unsigned()?).map_err(|_| CUT)
    }

    /// LEB128.
    fn unsigned(&mut self) -> Result<u64, Malformed> {
        let (value, _, _) = self.groups()?;
        u64::try_from(value).map_err(|_| Malformed("a number is too large"))
    }

    /// Signed LEB128.
    fn signed(&mut self) -> Result<i64, Malformed> {
        let (value, bits, negative) = self.groups()?;
        let mut value = i128::try_from(value).map_err(|_| CUT)?;
        if negative {
            value -= 1_i128 << bits;
        }
        i64::try_from(value).map_err(|_| Malformed("a number is too large"))
    }

    fn groups(&mut self) -> Result<(u128, u32, bool), Malformed> {
        let mut value = 0_u128;
        for bits in (0_u32..70).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(CUT) };
            value |= u128::from(byte & 0x7f) << bits;
            if byte & 0x80 == 0 {
                return Ok((value, bits + 7, byte & 0x40 != 0));
            }
        }
        Err(Malformed("a number is too long"))
    }

    /// Adds up rows and values, and stops once there are more rows than `rows_max`.
    fn runs(&mut self, rows_max: usize) -> Result<Runs, Malformed> {
        let mut runs = Runs { rows: 0, sum: 0 };
        while !self.0.is_empty() && runs.rows <= rows_max {
            let count = self.signed()?;
            let rows = usize::try_from(count.unsigned_abs()).map_err(|_| CUT)?;
            match count {
                1.. => {
                    runs.sum = runs.sum.saturating_add(self.size()?.saturating_mul(rows));
                    runs.rows = runs.rows.saturating_add(rows);
                }
                0 => runs.rows = runs.rows.saturating_add(self.size()?),
                _ => {
                    runs.rows = runs.rows.saturating_add(rows);
                    for _ in 0..rows {
                        runs.sum = runs.sum.saturating_add(self.size()?);
                    }
                }
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(column: &[u8]) -> (usize, usize) {
        let runs = Input(column).runs(OPS_MAX).unwrap();
        (runs.rows, runs.sum)
    }

    #[test]
    fn runs_add_up_to_what_a_decoder_would_make_of_them() {
        assert_eq!(runs(&[]), (0, 0));
        assert_eq!(runs(&[3, 5]), (3, 15));
        assert_eq!(runs(&[0x7e, 1, 2]), (2, 3)); // two literals
        assert_eq!(runs(&[0, 9]), (9, 0)); // nine times nothing
        assert_eq!(runs(&[3, 5, 0x7f, 7]), (4, 22));
    }

    #[test]
    fn a_few_bytes_that_claim_endless_work_are_counted_without_doing_it() {
        let (_, sum) = runs(&[2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(sum, ((1 << 63) - 1) * 2);
        let (rows, _) = runs(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1]);
        assert_eq!(rows, usize::try_from(i64::MAX).unwrap());
        assert!(Input(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]).runs(1).is_err());
    }

    #[test]
    fn numbers_are_read_as_leb128_and_never_beyond_their_type() {
        assert_eq!(Input(&[0xe5, 0x8e, 0x26]).unsigned(), Ok(624_485));
        assert_eq!(Input(&[0xc0, 0xbb, 0x78]).signed(), Ok(-123_456));
        assert_eq!(Input(&[0x80; 11]).unsigned(), Err(Malformed("a number is too long")));
        assert_eq!(
            Input(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).unsigned(),
            Err(Malformed("a number is too large"))
        );
        assert_eq!(Input(&[0x80]).signed(), Err(CUT));
    }
}
