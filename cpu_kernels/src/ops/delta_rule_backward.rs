//! Gradients of `delta_rule` over sequences of `seq` rows, with respect to x and to the gates, from dy and from the states before
//! every 32nd row, which training kept; of `count` heads from number `first` on, all heads of a sequence before those of the next.
//!
//! Chunks of 32 rows are taken in the WY form (Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule over
//! Sequence Length"). With k and q of their lengths, S the state before the chunk, D the gradient of the state behind it, and
//! G_t the sum of the logarithms of decay up to row t in the chunk:
//! - ratio_ti = e^(G_t - G_i) for i <= t in one document, otherwise 0; c_t = e^G_t if the document began before the chunk,
//!   otherwise 0; r_i = ratio_(31)i;
//! - M_ti = ratio_ti k_t.k_i for i < t, N_ti = ratio_ti q_t.k_i for i <= t;
//! - z_t = v_t - c_t S^T k_t - sum over i < t of M_ti b_i z_i, what a row corrects, u_t = b_t z_t, and y_t = c_t S^T q_t + sum over
//!   i of N_ti u_i;
//! - x_t = sum over s of N_st dy_s + r_t D^T k_t - sum over s > t of b_s M_st x_s, the gradient of b_t z_t.
//!
//! Then db_t = x_t.z_t and dv_t = b_t x_t; the others follow from those of M, N, c and r. The gradient of the state before
//! the chunk is c_31 D + sum over t of c_t (q_t dy_t^T - b_t k_t x_t^T).

use super::delta_rule::{CHUNK, DeltaRuleArgs, Sizes};
use crate::matrix::scratch::Scratch;
use crate::simd::isa::{Lanes, unroll};
use crate::simd::math::{dot, exp};
use crate::{Call, args, at_level};
use std::array;

args! {
    pub struct DeltaRuleBackwardArgs {
        rows: u32, heads: u32, key_size: u32, value_size: u32, seq: u32, first: u32, count: u32,
    }
}

impl DeltaRuleBackwardArgs {
    /// Floats in which the passes of a GPU hand on what belongs to a head.
    pub fn scratch(&self) -> u64 {
        let chunk = 2240 + 64 * self.value_size + self.key_size * self.value_size;
        u64::from(self.seq.div_ceil(CHUNK as u32)) * u64::from(chunk)
    }
}

/// # Safety
/// See [`crate::Kernel`].
///
/// # Panics
/// When the sizes are out of range.
pub unsafe fn delta_rule_backward(call: &Call<'_>) {
    let DeltaRuleBackwardArgs { rows, heads, key_size, value_size, seq, first, count } = call.args();
    let sizes = DeltaRuleArgs { rows, heads, key_size, value_size, seq }.sizes();
    let end = (first as usize).checked_add(count as usize);
    let all = rows.checked_div(seq).map(|sequences| sequences as usize * sizes.heads);
    assert!(end.is_some() && end <= all, "{count} heads from {first} on in {rows} rows in sequences of {seq}");
    call.bufs[5].holds::<f32>(0, &[rows, sizes.cols as u32]);
    call.bufs[6].holds::<f32>(0, &[rows, 2, heads]);
    for unit in call.share(count as usize) {
        let unit = first as usize + unit;
        let (seq, place) = (seq as usize, (unit / sizes.heads, unit % sizes.heads));
        at_level!(call.level, [head::<Plain, 4>, head::<Avx2, 2>, head::<Avx512, 1>, head::<Neon, 4>],
            (call: &Call<'_>, sizes: Sizes, seq: usize, place: (usize, usize)));
    }
}

/// What a row is worth to others in its chunk.
#[derive(Clone, Copy, Default)]
struct Weight {
    beta: f32,
    /// G_t, from the start of the document.
    log: f32,
    /// c_t
    carried: f32,
    /// The first row of the document in the chunk.
    start: usize,
    /// What makes keys and queries of their lengths.
    to_key: f32,
    to_query: f32,
}

/// The gradients of a head in a sequence. `N` registers are 16 floats.
#[inline(always)]
fn head<L: Lanes, const N: usize>(call: &Call<'_>, sizes: Sizes, seq: usize, (b, h): (usize, usize)) {
    let Sizes { heads, keys, values, cols } = sizes;
    // SAFETY: the contract of `Kernel`.
    let ([inputs_of, gates, states, dy_of], positions) =
        unsafe { ([0, 1, 3, 4].map(|i| call.bufs[i].read::<f32>()), call.bufs[2].read::<u32>()) };
    let (wide_k, wide_v) = (keys.next_multiple_of(16), values.next_multiple_of(16));
    let (chunks, size) = (seq.div_ceil(CHUNK), heads * keys * values);
    let mut scratch = Scratch::of_thread();
    let [by_key, by_value] = [CHUNK * wide_k, CHUNK * wide_v];
    let [square, state, turned] = [CHUNK * CHUNK, keys * wide_v, values * wide_k];
    let [k, q, turned_k, dk, dq, part, v, dy, z, x, scaled, turned_u, ratio, m, n, dm, dn, s, d, turned_s, turned_d] =
        scratch.slices([
            by_key,
            by_key,
            keys * CHUNK,
            by_key,
            by_key,
            by_key,
            by_value,
            by_value,
            by_value,
            by_value,
            by_value,
            values * CHUNK,
            square,
            square,
            square,
            square,
            square,
            state,
            state,
            turned,
            turned,
        ]);
    // The gradients of a row of the inputs.
    let [inputs, dgates] = [5, 6].map(|i| call.bufs[i].array::<f32>(0, &[]));
    let write = |row: usize, (column, size): (usize, usize)| {
        // SAFETY: the contract of `Kernel`, and there are so many rows; these columns of this sequence are this part's alone.
        unsafe { std::slice::from_raw_parts_mut(inputs.add(row * cols + column), size) }
    };
    d.fill(0.0);
    for chunk in (0..chunks).rev() {
        let first = b * seq + chunk * CHUNK;
        let rows = CHUNK.min(seq - chunk * CHUNK);
        // What the chunk reads. Rows behind the last do nothing, and columns behind the last are zeros.
        let mut w = [Weight::default(); CHUNK];
        [&mut *k, q, v, dy, s].into_iter().for_each(|part| part.fill(0.0));
        let mut before = Weight { carried: 1.0, ..Weight::default() };
        for t in 0..CHUNK {
            let mut now = Weight { beta: 0.0, ..before };
            if t < rows {
                let row = first + t;
                let [value, key, query] = sizes.of(&inputs_of[row * cols..(row + 1) * cols], h);
                [now.to_key, now.to_query] = sizes.factors(key, query);
                now.beta = gates[row * 2 * heads + h];
                now.log += gates[row * 2 * heads + heads + h];
                if positions[row] == 0 {
                    (now.log, now.carried, now.start) = (0.0, 0.0, t);
                }
                k[t * wide_k..].iter_mut().zip(key).for_each(|(k, key)| *k = key * now.to_key);
                q[t * wide_k..].iter_mut().zip(query).for_each(|(q, query)| *q = query * now.to_query);
                v[t * wide_v..][..values].copy_from_slice(value);
                dy[t * wide_v..][..values].copy_from_slice(&dy_of[(row * heads + h) * values..][..values]);
            }
            if now.carried != 0.0 {
                now.carried = exp(now.log);
            }
            for i in 0..CHUNK {
                ratio[t * CHUNK + i] = match i {
                    i if i < now.start || i > t => 0.0,
                    i if i == t => 1.0,
                    i => exp(now.log - w[i].log),
                };
            }
            (w[t], before) = (now, now);
        }
        let last = w[CHUNK - 1];
        let left = &ratio[(CHUNK - 1) * CHUNK..];
        let from = &states[(b * chunks + chunk) * size + h * keys * values..][..keys * values];
        for (s, from) in s.chunks_exact_mut(wide_v).zip(from.chunks_exact(values)) {
            s[..values].copy_from_slice(from);
        }
        transpose(k, wide_k, keys, turned_k, CHUNK);
        transpose(s, wide_v, values, turned_s, wide_k);
        transpose(d, wide_v, values, turned_d, wide_k);

        // M and N.
        product::<L, N>(m, CHUNK, (k, wide_k, 1), keys, turned_k, 0.0);
        product::<L, N>(n, CHUNK, (q, wide_k, 1), keys, turned_k, 0.0);
        for ((m, n), ratio) in m.iter_mut().zip(&mut *n).zip(&*ratio) {
            (*m, *n) = (*m * ratio, *n * ratio);
        }
        (0..CHUNK).for_each(|t| m[t * CHUNK + t] = 0.0);

        // z and x, by substitution.
        product::<L, N>(z, wide_v, (k, wide_k, 1), keys, s, 0.0);
        for t in 0..CHUNK {
            let (done, rest) = z.split_at_mut(t * wide_v);
            let mine = &mut rest[..wide_v];
            for (z, v) in mine.iter_mut().zip(&v[t * wide_v..]) {
                *z = v - w[t].carried * *z;
            }
            (w[t].start..t).for_each(|i| add(mine, -m[t * CHUNK + i] * w[i].beta, &done[i * wide_v..]));
        }
        product::<L, N>(x, wide_v, (k, wide_k, 1), keys, d, 0.0);
        scale_rows(x, wide_v, |t| left[t]);
        product::<L, N>(x, wide_v, (n, 1, CHUNK), CHUNK, dy, 1.0);
        for t in (0..CHUNK).rev() {
            let (mine, done) = x[t * wide_v..].split_at_mut(wide_v);
            (t + 1..CHUNK).for_each(|s| add(mine, -m[s * CHUNK + t] * w[s].beta, &done[(s - t - 1) * wide_v..]));
        }

        // The gradients of M and N times their ratios, and what they give to those of G.
        let mut dlog = [0.0; CHUNK];
        scaled.copy_from_slice(z);
        scale_rows(scaled, wide_v, |t| w[t].beta);
        transpose(scaled, wide_v, values, turned_u, CHUNK);
        product::<L, N>(dn, CHUNK, (dy, wide_v, 1), values, turned_u, 0.0);
        product::<L, N>(dm, CHUNK, (x, wide_v, 1), values, turned_u, 0.0);
        for t in 0..CHUNK {
            for i in 0..CHUNK {
                let at = t * CHUNK + i;
                dm[at] *= -w[t].beta;
                let change = if i < t { dm[at] * m[at] + dn[at] * n[at] } else { 0.0 };
                dlog[t] += change;
                dlog[i] -= change;
                (dm[at], dn[at]) = (if i < t { dm[at] * ratio[at] } else { 0.0 }, dn[at] * ratio[at]);
            }
        }

        // By way of the state behind the chunk. `scaled` is u.
        scale_rows(scaled, wide_v, |t| left[t]);
        product::<L, N>(dk, wide_k, (scaled, wide_v, 1), values, turned_d, 0.0);
        let changes: [f32; CHUNK] = array::from_fn(|t| dot(&k[t * wide_k..][..keys], &dk[t * wide_k..][..keys]));
        dlog.iter_mut().zip(&changes).for_each(|(dlog, change)| *dlog -= change);
        dlog[CHUNK - 1] += changes.iter().sum::<f32>() + last.carried * dot(s, d);

        // By way of the state before it, whose gradient d becomes.
        d.iter_mut().for_each(|d| *d *= last.carried);
        scaled.copy_from_slice(dy);
        scale_rows(scaled, wide_v, |t| w[t].carried);
        product::<L, N>(dq, wide_k, (scaled, wide_v, 1), values, turned_s, 0.0);
        product::<L, N>(d, wide_v, (q, 1, wide_k), CHUNK, scaled, 1.0);
        scaled.copy_from_slice(x);
        scale_rows(scaled, wide_v, |t| -w[t].carried * w[t].beta);
        product::<L, N>(part, wide_k, (scaled, wide_v, 1), values, turned_s, 0.0);
        product::<L, N>(d, wide_v, (k, 1, wide_k), CHUNK, scaled, 1.0);
        for (t, dlog) in dlog.iter_mut().enumerate() {
            let row = t * wide_k..t * wide_k + keys;
            *dlog += dot(&q[row.clone()], &dq[row.clone()]) + dot(&k[row.clone()], &part[row]);
        }
        dk.iter_mut().zip(&*part).for_each(|(dk, part)| *dk += part);

        // By way of M and N.
        product::<L, N>(dq, wide_k, (dn, CHUNK, 1), CHUNK, k, 1.0);
        product::<L, N>(dk, wide_k, (dn, 1, CHUNK), CHUNK, q, 1.0);
        product::<L, N>(dk, wide_k, (dm, CHUNK, 1), CHUNK, k, 1.0);
        product::<L, N>(dk, wide_k, (dm, 1, CHUNK), CHUNK, k, 1.0);

        let mut dlogs = 0.0;
        for t in (0..rows).rev() {
            let (row, at, own) = (first + t, t * wide_k..t * wide_k + keys, t * wide_v..t * wide_v + values);
            let [value, key, query] = sizes.places(h).map(|place| write(row, place));
            value.iter_mut().zip(&x[own.clone()]).for_each(|(to, x)| *to = w[t].beta * x);
            for (to, x, dx, factor, length) in [
                (key, &k[at.clone()], &dk[at.clone()], w[t].to_key, 1.0),
                (query, &q[at.clone()], &dq[at], w[t].to_query, sizes.scale()),
            ] {
                let along = dot(x, dx) / (length * length);
                to.iter_mut().zip(x).zip(dx).for_each(|((to, x), dx)| *to = factor * (dx - x * along));
            }
            dlogs += dlog[t];
            let starts = positions[row] == 0;
            let to = [dot(&x[own.clone()], &z[own]), if starts { 0.0 } else { dlogs }];
            for (i, to) in to.into_iter().enumerate() {
                // SAFETY: the contract of `Kernel`; these columns of this sequence are this part's alone.
                unsafe { *dgates.add(row * 2 * heads + i * heads + h) = to };
            }
            dlogs = if starts { 0.0 } else { dlogs };
        }
    }
}

/// to += by * x
#[inline(always)]
fn add(to: &mut [f32], by: f32, x: &[f32]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += by * x);
}

/// Multiplies each row by a number of its own.
#[inline(always)]
fn scale_rows(x: &mut [f32], cols: usize, by: impl Fn(usize) -> f32) {
    for (t, row) in x.chunks_exact_mut(cols).enumerate() {
        let by = by(t);
        row.iter_mut().for_each(|x| *x *= by);
    }
}

/// Rows of `cols` floats, of which `used` become the rows of `to`, `wide` floats each. Floats behind the last are zeros.
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
#[cfg_attr(target_arch = "wasm32", inline(never))]
fn transpose(x: &[f32], cols: usize, used: usize, to: &mut [f32], wide: usize) {
    for (c, to) in to.chunks_exact_mut(wide).enumerate().take(used) {
        to.fill(0.0);
        to.iter_mut().zip(x[c..].iter().step_by(cols)).for_each(|(to, x)| *to = *x);
    }
}

/// c = beta * c + a b, where beta is 0 or 1: c has rows of `cols` floats, a multiple of 16, and a multiple of 4 of them; element
/// (r, i) of a is at r * down + i * across; b (inner, cols). `N` registers are 16 floats.
///
/// It is called often. Where each function has all instructions anyway, a single copy of it makes the download of browsers smaller.
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
#[cfg_attr(target_arch = "wasm32", inline(never))]
fn product<L: Lanes, const N: usize>(
    c: &mut [f32],
    cols: usize,
    (a, down, across): (&[f32], usize, usize),
    inner: usize,
    b: &[f32],
    beta: f32,
) {
    let rows = c.len() / cols;
    assert!(rows.is_multiple_of(4) && cols.is_multiple_of(16) && N * L::WIDTH == 16, "{rows} rows of {cols}");
    assert!((rows - 1) * down + (inner - 1) * across < a.len() && inner * cols <= b.len(), "factors of {inner}");
    for row in (0..rows).step_by(4) {
        for col in (0..cols).step_by(16) {
            let mut sum = [[L::splat(0.0); N]; 4];
            // SAFETY: rows, columns and the elements of both factors are within their slices, as checked above.
            unsafe {
                for i in 0..inner {
                    let mut factor = [L::splat(0.0); N];
                    unroll!(n < N of 4 { factor[n] = L::load(b.as_ptr().add(i * cols + col + n * L::WIDTH)) });
                    unroll!(r < 4 of 4 {
                        let by = L::splat(*a.get_unchecked((row + r) * down + i * across));
                        unroll!(n < N of 4 { sum[r][n] = L::mul_add(by, factor[n], sum[r][n]) });
                    });
                }
                unroll!(r < 4 of 4, n < N of 4 {
                    let to = c.as_mut_ptr().add((row + r) * cols + col + n * L::WIDTH);
                    let before = if beta == 0.0 { L::splat(0.0) } else { L::load(to) };
                    L::store(L::mul_add(L::splat(1.0), sum[r][n], before), to);
                });
            }
        }
    }
}
