//! Remembers the tokens of short words, which are nearly all of a text.

use std::array;

/// Slots of a table: 1 MiB. English text finds about 97 % of its words in it.
const BITS: u32 = 15;

/// The longest word that is remembered, in bytes.
const LONGEST: usize = 15;

/// The most tokens that are remembered for one word.
const TOKENS: usize = 4;

/// No token.
const NONE: u32 = u32::MAX;

/// A table from words to their tokens. Each word has one slot, where the last one that came stays.
#[derive(Debug)]
pub(super) struct Words(Vec<Slot>);

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// 0 if empty.
    key: u128,
    tokens: [u32; TOKENS],
}

impl Default for Words {
    fn default() -> Self {
        Self(vec![Slot { key: 0, tokens: [NONE; TOKENS] }; 1 << BITS])
    }
}

impl Words {
    /// The bytes and the length of a word, in one number; `None` if it is too long.
    pub(super) fn key(word: &[u8]) -> Option<u128> {
        let mut bytes = [0; LONGEST + 1];
        bytes[..LONGEST].get_mut(..word.len())?.copy_from_slice(word);
        bytes[LONGEST] = word.len() as u8;
        Some(u128::from_le_bytes(bytes))
    }

    pub(super) fn get(&self, key: u128) -> Option<impl Iterator<Item = u32>> {
        let slot = &self.0[slot(key)];
        (slot.key == key).then(|| slot.tokens.into_iter().take_while(|&token| token != NONE))
    }

    pub(super) fn put(&mut self, key: u128, tokens: &[u32]) {
        if tokens.len() <= TOKENS {
            self.0[slot(key)] = Slot { key, tokens: array::from_fn(|i| tokens.get(i).copied().unwrap_or(NONE)) };
        }
    }
}

fn slot(key: u128) -> usize {
    let mixed = (key as u64 ^ ((key >> 64) as u64).rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - BITS)) as usize
}
