//! A sorted list of small items in chunks: a few bytes an item, full chunks when items come
//! in order, and logarithmic search with an order that looks elsewhere for the keys.

use std::cmp::Ordering;

const CHUNK_ITEMS_MAX: usize = 512;

/// Sorted items. Every call must use the same order.
#[derive(Debug, Clone, Default)]
pub(super) struct Ordered<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

/// A chunk and an index in it.
type At = (usize, usize);

impl<T: Copy> Ordered<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds `item` unless its like is there. `order` compares an item with what is sought.
    pub(super) fn insert(&mut self, item: T, order: impl Fn(&T) -> Ordering) {
        // Items mostly come in order: the end is looked at first.
        let is_last = self.chunks.last().and_then(|chunk| chunk.last()).is_some_and(|last| order(last).is_lt());
        let found = if is_last { Err((self.chunks.len(), 0)) } else { self.position(&order) };
        let Err((mut at, mut index)) = found else {
            return;
        };
        self.len += 1;
        if at == self.chunks.len() {
            match self.chunks.last() {
                Some(last) if last.len() < CHUNK_ITEMS_MAX => (at, index) = (at - 1, last.len()),
                _ => self.chunks.push(Vec::new()),
            }
        }
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        chunk.insert(index, item);
        if chunk.len() > CHUNK_ITEMS_MAX {
            let upper = chunk.split_off(CHUNK_ITEMS_MAX / 2);
            self.chunks.insert(at + 1, upper);
        }
    }

    pub(super) fn remove(&mut self, order: impl Fn(&T) -> Ordering) {
        let Ok((at, index)) = self.position(&order) else {
            return;
        };
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        chunk.remove(index);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
    }

    /// The items before what is sought, the nearest first.
    pub(super) fn before(&self, order: impl Fn(&T) -> Ordering) -> impl Iterator<Item = T> + '_ {
        let (at, index) = match self.position(&order) {
            Ok(at) | Err(at) => at,
        };
        let partial = self.chunks.get(at).and_then(|chunk| chunk.get(..index)).unwrap_or_default();
        let whole = self.chunks.get(..at).unwrap_or_default();
        partial.iter().rev().chain(whole.iter().rev().flat_map(|chunk| chunk.iter().rev())).copied()
    }

    fn position(&self, order: &impl Fn(&T) -> Ordering) -> Result<At, At> {
        let at = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| order(last) == Ordering::Less));
        match self.chunks.get(at) {
            None => Err((at, 0)),
            Some(chunk) => chunk.binary_search_by(order).map(|index| (at, index)).map_err(|index| (at, index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stay_sorted_whatever_the_order_of_their_coming() {
        let mut ordered = Ordered::default();
        for step in 0..5_000_u32 {
            let item = step.wrapping_mul(2_654_435_761) % 7_919;
            ordered.insert(item, |other| other.cmp(&item));
            ordered.insert(item, |other| other.cmp(&item));
        }
        for item in (0..7_919).step_by(3) {
            ordered.remove(|other: &u32| other.cmp(&item));
        }
        let mut expected: Vec<u32> =
            (0..5_000_u32).map(|step| step.wrapping_mul(2_654_435_761) % 7_919).filter(|item| item % 3 != 0).collect();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(ordered.len(), expected.len());
        let below: Vec<u32> = ordered.before(|other| other.cmp(&4_000)).collect();
        let expected_below: Vec<u32> = expected.iter().copied().filter(|item| *item < 4_000).rev().collect();
        assert_eq!(below, expected_below);
        let next_below = |item: u32| ordered.before(|other| other.cmp(&item)).next();
        assert_eq!(next_below(expected[7] + 1), Some(expected[7]));
        assert_eq!(next_below(expected[7]), Some(expected[6]));
    }
}
