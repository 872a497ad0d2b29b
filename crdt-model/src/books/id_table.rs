//! Records by id: a table of row numbers with open addressing. Ids are hashes, so their first bits
//! are the place to look; a table that is at most three quarters full needs one or two looks.

use crate::ids::RecordId;

/// No row has this number.
const FREE: u32 = u32::MAX;
const SLOTS_MIN: usize = 64;

/// Row numbers by record id. The ids are the rows' own: `id_of` gives the one of a row.
#[derive(Debug, Clone, Default)]
pub(super) struct IdTable {
    slots: Vec<u32>,
    len: usize,
}

impl IdTable {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn find(&self, id: RecordId, id_of: impl Fn(u32) -> Option<RecordId>) -> Option<u32> {
        let mut at = self.home(id);
        loop {
            let row = *self.slots.get(at)?;
            if row == FREE {
                return None;
            }
            if id_of(row) == Some(id) {
                return Some(row);
            }
            at = self.next(at);
        }
    }

    /// Adds a row whose id is not there yet.
    pub(super) fn insert(&mut self, id: RecordId, row: u32, id_of: impl Fn(u32) -> Option<RecordId>) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            let larger = vec![FREE; (self.slots.len() * 2).max(SLOTS_MIN)];
            for row in std::mem::replace(&mut self.slots, larger) {
                if row != FREE
                    && let Some(id) = id_of(row)
                {
                    self.place(id, row);
                }
            }
        }
        self.place(id, row);
        self.len += 1;
    }

    fn place(&mut self, id: RecordId, row: u32) {
        let mut at = self.home(id);
        while self.slots.get(at).is_some_and(|taken| *taken != FREE) {
            at = self.next(at);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = row;
        }
    }

    /// The slots are a power of two. The id's first six bytes are all hash; behind them comes the
    /// version of a UUID.
    fn home(&self, id: RecordId) -> usize {
        let (first, _) = id.0.as_u64_pair();
        usize::try_from((first >> 16) & (self.slots.len() as u64).saturating_sub(1)).unwrap_or_default()
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & self.slots.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ids::JournalId;

    #[test]
    fn every_row_is_found_by_its_id_and_nothing_else_is() {
        let ids: Vec<RecordId> = (0..50_000).map(|seq| RecordId::from_place(JournalId([1; 16]), seq, 0)).collect();
        let looks = Cell::new(0);
        let id_of = |row: u32| {
            looks.set(looks.get() + 1);
            ids.get(row as usize).copied()
        };
        let mut table = IdTable::default();
        assert_eq!(table.find(ids[0], id_of), None);
        for (row, id) in (0..).zip(&ids) {
            assert_eq!(table.find(*id, id_of), None);
            table.insert(*id, row, id_of);
            assert_eq!(table.find(*id, id_of), Some(row));
        }
        looks.set(0);
        for (row, id) in (0..).zip(&ids) {
            assert_eq!(table.find(*id, id_of), Some(row));
        }
        assert!(looks.get() < 3 * ids.len(), "{} looks", looks.get());
        assert_eq!(table.find(RecordId::from_place(JournalId([2; 16]), 1, 0), id_of), None);
        assert_eq!(table.len(), ids.len());
    }

    /// Somebody who chooses ids can make them collide; they are found all the same.
    #[test]
    fn ids_with_one_beginning_are_told_apart() {
        let id = |last: u8| RecordId(uuid::Uuid::from_bytes([7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, last]));
        let id_of = |row: u32| u8::try_from(row).ok().map(id);
        let mut table = IdTable::default();
        for row in 0..200 {
            table.insert(id(row), u32::from(row), id_of);
        }
        for row in 0..200 {
            assert_eq!(table.find(id(row), id_of), Some(u32::from(row)));
        }
    }
}
