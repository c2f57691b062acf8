//! The gated delta rule (Gated Delta Networks, Yang, Kautz and Hatamizadeh 2024). Each head has a state S (key_size, value_size),
//! of which a row forgets a part and which it then corrects where its key reads it:
//! S_t = a_t (I - b_t k_t k_t^T) S_(t-1) + b_t k_t v_t^T and y_t = S_t^T q_t / sqrt(key_size), where the keys and queries are
//! divided by their lengths, b_t is gates[t][h] and a_t is e^gates[t][heads + h]. A row at position 0 starts with zeros.
//!
//! x is (rows, heads * value_size + 2 * heads * key_size): values, keys and queries. In training, the rows are sequences of `seq`
//! rows, `slots` is not read, and `state` (sequences, ceil(seq / 32), heads, key_size, value_size) gets the states before every
//! 32nd row, from which the gradients start. With `seq` = 0, row r is at positions[r] of the sequence in slots[r], whose state is
//! in `state` (slots, heads, key_size, value_size). A slot beyond it, such as 0xffffffff, changes nothing and gives 0.
//!
//! The op is the recurrence, row by row, in training as in decoding. So both have the same bits, however the rows of a sequence are
//! divided into calls. Columns of the state do not depend on each other, and 32 of them stay in the nearest cache. The
//! form of chunks, which is made of matrix products, rounds otherwise and saves nothing here: with chunks of 32 and sizes of 64 it
//! takes about 5 multiply-adds for each row and element of the state, the recurrence 4. The gradients, which need the
//! states in reverse order, use that form.

use crate::matrix::scratch::Scratch;
use crate::simd::isa::{Lanes, unroll};
use crate::simd::math::{dot, exp};
use crate::{Call, args, at_level};

args! {
    pub struct DeltaRuleArgs { rows: u32, heads: u32, key_size: u32, value_size: u32, seq: u32 }
}

/// Rows of a sequence between two states that training keeps.
pub const CHUNK: usize = 32;
/// Largest size of a key and of a value.
pub const MOST: usize = 128;
/// Columns of a state that are worked on at once.
const COLUMNS: usize = 32;
/// Added to the squared length of a key or query.
const EPS: f32 = 1e-6;

impl DeltaRuleArgs {
    /// # Panics
    /// When a key or a value is too large, or no multiple of 4.
    pub(super) fn sizes(&self) -> Sizes {
        let [heads, keys, values] = [self.heads, self.key_size, self.value_size].map(|n| n as usize);
        let good = [keys, values].iter().all(|n| (4..=MOST).contains(n) && n.is_multiple_of(4));
        assert!(good && heads > 0, "{heads} heads with keys of {keys} and values of {values}");
        Sizes { heads, keys, values, cols: heads * (values + 2 * keys) }
    }
}

/// The layout of a row.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub heads: usize,
    pub keys: usize,
    pub values: usize,
    /// Columns of a row.
    pub cols: usize,
}

impl Sizes {
    /// The value, the key and the query of head h in a row.
    pub fn of<'a>(&self, row: &'a [f32], h: usize) -> [&'a [f32]; 3] {
        self.places(h).map(|(first, size)| &row[first..first + size])
    }

    /// First column and size of each of them.
    pub fn places(&self, h: usize) -> [(usize, usize); 3] {
        let [k, q] = [0, 1].map(|i| self.heads * (self.values + i * self.keys) + h * self.keys);
        [(h * self.values, self.values), (k, self.keys), (q, self.keys)]
    }

    /// Factors that make keys and queries of the lengths that the rule takes.
    pub fn factors(&self, k: &[f32], q: &[f32]) -> [f32; 2] {
        let [k, q] = [k, q].map(|x| 1.0 / (dot(x, x) + EPS).sqrt());
        [k, q * self.scale()]
    }

    /// Length of a query.
    pub fn scale(&self) -> f32 {
        1.0 / (self.keys as f32).sqrt()
    }
}

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When the sizes are out of range.
pub unsafe fn delta_rule(call: &Call<'_>) {
    let a: DeltaRuleArgs = call.args();
    let sizes = a.sizes();
    let Sizes { heads, keys, values, cols } = sizes;
    let (rows, seq) = (a.rows as usize, a.seq as usize);
    let (per_sequence, sequences) = if seq > 0 { (seq, rows / seq) } else { (rows, 1) };
    assert_eq!(per_sequence * sequences, rows, "rows in sequences of {seq}");
    // SAFETY: the contract of `Kernel`.
    let (x, gates, positions, slots) = unsafe {
        (call.bufs[0].read::<f32>(), call.bufs[1].read::<f32>(), call.bufs[2].read::<u32>(), call.bufs[3].read::<u32>())
    };
    let size = heads * keys * values;
    let held = call.bufs[4].len::<f32>() / size;
    let chunks = per_sequence.div_ceil(CHUNK);
    assert!(seq == 0 || sequences * chunks <= held, "{held} states for {sequences} sequences of {seq}");
    let states = call.bufs[4].array::<f32>(0, &[]);
    call.bufs[5].holds::<f32>(0, &[a.rows, a.heads, a.value_size]);
    let blocks = values.div_ceil(COLUMNS);
    let mut scratch = Scratch::of_thread();
    let [own] = scratch.slices([MOST * COLUMNS]);
    for unit in call.share(sequences * heads * blocks) {
        let (b, h, first) = (unit / blocks / heads, unit / blocks % heads, unit % blocks * COLUMNS);
        let width = COLUMNS.min(values - first);
        // Where the columns of a state are.
        let place = |state: usize| state * size + h * keys * values + first;
        for r in b * per_sequence..(b + 1) * per_sequence {
            let (t, slot) = (r - b * per_sequence, slots[r] as usize);
            // SAFETY: the contract of `Kernel`; this part writes these columns of this head alone.
            let y = unsafe {
                call.bufs[5].write::<f32>((r * heads + h) * values + first..(r * heads + h) * values + first + width)
            };
            if seq == 0 && slot >= held {
                y.fill(0.0);
                continue;
            }
            let state = match seq {
                // SAFETY: the slot has a state.
                0 => Columns { start: unsafe { states.add(place(slot)) }, stride: values, width },
                _ => Columns { start: own.as_mut_ptr(), stride: COLUMNS, width },
            };
            if t == 0 && seq > 0 || positions[r] == 0 {
                for i in 0..keys {
                    // SAFETY: a row of the columns.
                    unsafe { std::slice::from_raw_parts_mut(state.start.add(i * state.stride), width) }.fill(0.0);
                }
            }
            if seq > 0 && t.is_multiple_of(CHUNK) {
                let to = place(b * chunks + t / CHUNK);
                for i in 0..keys {
                    // SAFETY: there is a state for this chunk; this part writes these columns of this head alone.
                    unsafe {
                        states.add(to + i * values).copy_from_nonoverlapping(state.start.add(i * COLUMNS), width)
                    };
                }
            }
            let [v, k, q] = sizes.of(&x[r * cols..(r + 1) * cols], h);
            let [to_key, to_query] = sizes.factors(k, q);
            let (mut key, mut query) = ([0.0; MOST], [0.0; MOST]);
            key.iter_mut().zip(k).for_each(|(key, k)| *key = k * to_key);
            query.iter_mut().zip(q).for_each(|(query, q)| *query = q * to_query);
            let [beta, decay] = [gates[r * 2 * heads + h], exp(gates[r * 2 * heads + heads + h])];
            let row = Row { key: &key[..keys], query: &query[..keys], value: &v[first..][..width], beta, decay };
            at_level!(call.level, [advance::<Plain, 8>, advance::<Avx2, 4>, advance::<Avx512, 2>, advance::<Neon, 8>],
                (state: Columns, row: Row<'_>, y: &mut [f32]));
        }
    }
}

/// Some columns of a state.
#[derive(Clone, Copy)]
struct Columns {
    start: *mut f32,
    /// Floats from row to row.
    stride: usize,
    width: usize,
}

/// What a row does to a head.
#[derive(Clone, Copy)]
struct Row<'a> {
    key: &'a [f32],
    query: &'a [f32],
    /// Its value in the columns.
    value: &'a [f32],
    beta: f32,
    decay: f32,
}

/// Advances the columns of a state by a row, whose results go to y. `ALL` registers are [`COLUMNS`] floats.
#[inline(always)]
fn advance<L: Lanes, const ALL: usize>(state: Columns, row: Row<'_>, y: &mut [f32]) {
    let mut c = 0;
    while c < state.width {
        let (from, value, to) = (state.start.wrapping_add(c), &row.value[c..], &mut y[c..]);
        // SAFETY: the columns from c on are this call's, and as many are left as are worked on.
        unsafe {
            match state.width - c {
                left if left >= ALL * L::WIDTH => {
                    some::<L, ALL>(from, state.stride, row, value, to);
                    c += ALL * L::WIDTH;
                }
                left if left >= L::WIDTH => {
                    some::<L, 1>(from, state.stride, row, value, to);
                    c += L::WIDTH;
                }
                _ => {
                    some::<crate::simd::isa::Plain, 1>(from, state.stride, row, value, to);
                    c += 4;
                }
            }
        }
    }
}

/// [`advance`] for `N` registers of columns.
///
/// # Safety
/// The columns of each row from `state` on are valid for reads and writes.
#[inline(always)]
unsafe fn some<L: Lanes, const N: usize>(state: *mut f32, stride: usize, row: Row<'_>, value: &[f32], y: &mut [f32]) {
    let (value, y) = (&value[..N * L::WIDTH], &mut y[..N * L::WIDTH]);
    // What the key reads, in two sums, so that a register waits less for the one before.
    let mut read = [[L::splat(0.0); N]; 2];
    for (i, pair) in row.key.as_chunks::<2>().0.iter().enumerate() {
        unroll!(half < 2 of 2, n < N of 8 {
            // SAFETY: by this function's contract.
            let s = unsafe { L::load(state.add((2 * i + half) * stride + n * L::WIDTH)) };
            read[half][n] = L::mul_add(L::splat(pair[half]), s, read[half][n]);
        });
    }
    let (zero, decay) = (L::splat(0.0), L::splat(row.decay));
    let (mut change, mut out) = ([zero; N], [zero; N]);
    unroll!(n < N of 8 {
        // SAFETY: the value has as many floats.
        let v = unsafe { L::load(value.as_ptr().add(n * L::WIDTH)) };
        let read = L::mul_add(L::splat(1.0), read[0][n], read[1][n]);
        change[n] = L::mul_add(L::splat(row.beta), L::mul_add(L::splat(-row.decay), read, v), zero);
    });
    for (i, (k, q)) in row.key.iter().zip(row.query).enumerate() {
        unroll!(n < N of 8 {
            // SAFETY: by this function's contract.
            unsafe {
                let at = state.add(i * stride + n * L::WIDTH);
                let s = L::mul_add(L::splat(*k), change[n], L::mul_add(decay, L::load(at), zero));
                L::store(s, at);
                out[n] = L::mul_add(L::splat(*q), s, out[n]);
            }
        });
    }
    unroll!(n < N of 8 {
        // SAFETY: y has as many floats.
        unsafe { L::store(out[n], y.as_mut_ptr().add(n * L::WIDTH)) };
    });
}
