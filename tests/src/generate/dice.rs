//! Choices, drawn from proptest's generator so that a recorded seed repeats a case.

use proptest::prelude::Rng;
use proptest::test_runner::TestRng;

#[derive(Debug)]
pub struct Dice<'a> {
    rng: &'a mut TestRng,
}

impl<'a> Dice<'a> {
    pub fn new(rng: &'a mut TestRng) -> Self {
        Self { rng }
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u32() as usize % bound
    }

    pub fn between(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.below(from.len())]
    }

    /// One of some values by weight.
    pub fn weighted<T: Copy>(&mut self, from: &[(usize, T)]) -> T {
        let mut left = self.below(from.iter().map(|(weight, _)| weight).sum());
        for (weight, value) in from {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *value,
            }
        }
        unreachable!("the draw is below the sum of the weights")
    }

    /// `first` to `last` values.
    pub fn several<T>(
        &mut self,
        first: usize,
        last: usize,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let count = self.between(first, last);
        (0..count).map(|_| make(self)).collect()
    }

    /// Each item with a chance, made into something.
    pub fn some<'b, T, U>(
        &mut self,
        percent: usize,
        from: &'b [T],
        mut make: impl FnMut(&mut Self, &'b T) -> U,
    ) -> Vec<U> {
        let mut made = Vec::new();
        for item in from {
            if self.chance(percent) {
                made.push(make(self, item));
            }
        }
        made
    }
}
