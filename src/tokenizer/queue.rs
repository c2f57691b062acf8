//! Takes numbers in order while more of them come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Fewer numbers than this are sorted at once.
const FEW: usize = 1 << 12;

/// What a `BinaryHeap` of the same numbers does, several times as fast when there are millions: a part of them, the smallest,
/// is sorted at a time. A heap has only the numbers that come while their part is being taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In descending order.
    sorted: Vec<u64>,
    /// Numbers below `end` that came later.
    late: BinaryHeap<Reverse<u64>>,
    /// All others are at least this; 0 while nothing is sorted.
    end: u64,
    others: Vec<u64>,
}

impl Queue {
    pub(super) fn extend(&mut self, numbers: impl IntoIterator<Item = Reverse<u64>>) {
        for number in numbers {
            if number.0 < self.end {
                self.late.push(number);
            } else {
                self.others.push(number.0);
            }
        }
    }

    /// Takes the smallest.
    pub(super) fn pop(&mut self) -> Option<Reverse<u64>> {
        if self.sorted.is_empty() && self.late.is_empty() {
            self.sort_more();
        }
        match (self.sorted.last(), self.late.peek()) {
            (Some(sorted), Some(Reverse(late))) if late < sorted => self.late.pop(),
            (None, _) => self.late.pop(),
            _ => self.sorted.pop().map(Reverse),
        }
    }

    /// Sorts the smallest eighth of the others, or all if they are few.
    fn sort_more(&mut self) {
        let others = &mut self.others;
        let stay = others.len() - (others.len() / 8).max(FEW).min(others.len());
        self.end = match stay {
            0 if others.is_empty() => 0,
            0 => u64::MAX,
            _ => *others.select_nth_unstable_by_key(stay, |&number| Reverse(number)).1 + 1,
        };
        self.sorted.extend(others.drain(stay..));
        self.sorted.sort_unstable_by_key(|&number| Reverse(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn numbers_come_as_from_a_heap() {
        let mut rng = Rng::new(1);
        let (mut queue, mut heap) = (Queue::default(), BinaryHeap::new());
        for first in [40 * FEW, 10, 0, 3 * FEW] {
            let numbers: Vec<_> = (0..first).map(|_| Reverse(rng.below(1 << 16))).collect();
            queue.extend(numbers.iter().copied());
            heap.extend(numbers);
            let mut more = first;
            while let Some(next) = heap.pop() {
                assert_eq!(queue.pop(), Some(next));
                // Smaller, equal and larger ones than those that were taken.
                let late: Vec<_> = (0..rng.below(3).min(more as u64)).map(|_| Reverse(rng.below(1 << 16))).collect();
                more -= late.len();
                queue.extend(late.iter().copied());
                heap.extend(late);
            }
            assert_eq!(queue.pop(), None);
        }
    }

    #[test]
    fn only_what_comes_late_goes_through_a_heap() {
        let (mut queue, all) = (Queue::default(), 100 * FEW as u64);
        queue.extend((0..all).rev().map(Reverse));
        while let Some(Reverse(number)) = queue.pop() {
            queue.extend(Some(Reverse(number + all / 2)).filter(|_| number < all));
            assert!(queue.late.len() <= FEW, "{} of {number}", queue.late.len());
        }
    }
}
