//! The state of optimizers in fewer bits than f32, for the ops `*_bf16` and `*_int8`.
//!
//! Rounding is stochastic: to one of both neighbours, at random, so that the mean is the value. A moving average whose
//! changes are smaller than half of the distance between neighbours would otherwise never move. In 8 bits, a value that changes
//! by more than that distance is rounded to the nearest, which has half of the variance: the gradients then are noise enough. The
//! random bits are a hash of the step's key, in step[4..6], and of the element's place, `stream` + its index.
//!
//! bf16 is the upper half of an f32. int8 (Dettmers et al. 2022) has one f32 scale for each block of 64 values of a row, of
//! which the last may have fewer. A momentum is code * scale with codes within +-127. A second moment is (code * scale)^2 with
//! codes from 1 to 255: its root has the range of a gradient, and no rate of a weight grows because a small one became 0. A
//! block with a value that is not finite has the scale NaN.

use super::lion::LionArgs;
use super::muon_momentum::MuonMomentumArgs;
use super::{adamw::AdamwArgs, sample::hash};
use crate::{Call, args};
use std::ops::Range;

args! {
    /// Those of `adamw` for rows of `cols` elements, a multiple of 4.
    pub struct AdamwStateArgs {
        rows: u32, cols: u32, stream: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32,
    }
}

args! {
    /// Those of `lion` for rows of `cols` elements, a multiple of 4.
    pub struct LionStateArgs {
        rows: u32, cols: u32, stream: u32, lr: f32, beta1: f32, beta2: f32, weight_decay: f32,
    }
}

args! {
    /// Those of `muon_momentum`; `cols`, a multiple of 4, divides `start` and `stride`.
    pub struct MuonStateArgs {
        rows: u32, cols: u32, batch: u32, start: u32, stride: u32, offset: u32, transposed: u32, stream: u32, beta: f32,
    }
}

impl AdamwStateArgs {
    pub(super) fn of_f32(&self) -> AdamwArgs {
        let AdamwStateArgs { lr, beta1, beta2, eps, weight_decay, .. } = *self;
        AdamwArgs { n: 0, lr, beta1, beta2, eps, weight_decay }
    }
}

impl LionStateArgs {
    pub(super) fn of_f32(&self) -> LionArgs {
        let LionStateArgs { lr, beta1, beta2, weight_decay, .. } = *self;
        LionArgs { n: 0, lr, beta1, beta2, weight_decay }
    }
}

impl MuonStateArgs {
    pub(super) fn of_f32(&self) -> MuonMomentumArgs {
        let MuonStateArgs { rows, cols, batch, start, stride, offset, transposed, beta, .. } = *self;
        MuonMomentumArgs { rows, cols, batch, start, stride, offset, transposed, beta }
    }
}

/// What all ops on optimizer state read for a part of a tensor.
pub(super) struct Inputs<'a, A> {
    pub args: &'a A,
    pub ctl: &'a [f32],
    pub step: &'a [f32],
    /// The gradients of the part.
    pub g: &'a [f32],
    /// The element of the tensor at which the part begins.
    pub first: usize,
}

impl<'a, A> Inputs<'a, A> {
    /// Those of elements `part`, from the buffers of gradients, `ctl` and `step`, the first three of each op.
    ///
    /// # Safety
    /// That of [`Buf::read`].
    pub unsafe fn new(args: &'a A, call: &Call<'a>, part: Range<usize>) -> Self {
        // SAFETY: this function's contract.
        let [g, ctl, step] = unsafe { [0, 1, 2].map(|i| call.bufs[i].read()) };
        Inputs { args, ctl, step, first: part.start, g: &g[part] }
    }
}

/// Codes and their scales.
pub(super) type Codes<'a, T> = (&'a mut [T], &'a mut [f32]);

/// Values that share a scale.
pub const STATE_BLOCK: usize = 64;

/// The random bits of a step.
#[derive(Clone, Copy)]
pub(super) struct Noise {
    key: u32,
    stream: u32,
}

impl Noise {
    /// Those of a tensor; `step` holds the lower and the upper 16 bits of the key.
    #[inline(always)]
    pub fn new(step: &[f32], stream: u32) -> Noise {
        Noise { key: step[4] as u32 | (step[5] as u32) << 16, stream }
    }

    /// Those of element i: 16 for the momentum, 16 for the second moment.
    #[inline(always)]
    fn at(self, i: usize) -> [u32; 2] {
        let bits = hash(self.key ^ hash(self.stream.wrapping_add(i as u32)));
        [bits >> 16, bits & 0xffff]
    }

    /// The bits for the momentum.
    #[inline(always)]
    pub fn first(self, i: usize) -> u32 {
        self.at(i)[0]
    }

    /// The bits for the second moment.
    #[inline(always)]
    pub fn second(self, i: usize) -> u32 {
        self.at(i)[1]
    }
}

#[inline(always)]
pub(super) fn widen(bits: &[u16], values: &mut [f32]) {
    for (v, bits) in values.iter_mut().zip(bits) {
        *v = f32::from_bits(u32::from(*bits) << 16);
    }
}

/// Rounds to bf16; `noise` gives 16 bits for each element.
#[inline(always)]
pub(super) fn narrow(values: &[f32], noise: impl Fn(usize) -> u32, bits: &mut [u16]) {
    for (i, (v, to)) in values.iter().zip(bits).enumerate() {
        let bits = v.to_bits();
        let finite = bits & 0x7f80_0000 != 0x7f80_0000;
        *to = (if finite { bits + noise(i) } else { bits } >> 16) as u16;
    }
}

/// The scale of values of which the largest is code `most`: 0 where all are 0 or nearly so.
#[inline(always)]
fn scale(largest: u32, most: f32) -> f32 {
    let size = f32::from_bits(largest);
    if !size.is_finite() {
        f32::NAN
    } else if size < 1e-30 {
        0.0
    } else {
        size / most
    }
}

/// value / scale, rounded by 16 random bits if it was `old` before and did not change by more than the scale; 0 where the scale
/// is 0 or NaN.
#[inline(always)]
fn code(value: f32, old: f32, scale: f32, noise: u32) -> f32 {
    let scaled = if scale > 0.0 { value / scale } else { 0.0 };
    let noise = if (value - old).abs() > scale { 0x8000 } else { noise };
    (scaled + noise as f32 / 65536.0).floor()
}

/// The largest of the bits of the sizes: those of a value that is not finite are beyond all others.
#[inline(always)]
fn largest(values: &[f32]) -> u32 {
    values.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff))
}

/// A block of a momentum.
#[inline(always)]
pub(super) fn decode(codes: &[i8], scale: f32, values: &mut [f32]) {
    for (v, code) in values.iter_mut().zip(codes) {
        *v = f32::from(*code) * scale;
    }
}

/// Rounds a block of a momentum that was `codes` with a scale before; `noise` gives 16 bits for each element.
#[inline(always)]
pub(super) fn encode(values: &[f32], noise: impl Fn(usize) -> u32, codes: &mut [i8], scale: &mut f32) {
    let old = std::mem::replace(scale, self::scale(largest(values), 127.0));
    for (i, (v, to)) in values.iter().zip(codes).enumerate() {
        *to = code(*v, f32::from(*to) * old, *scale, noise(i)).clamp(-127.0, 127.0) as i8;
    }
}

/// A block of a second moment.
#[inline(always)]
pub(super) fn decode_squares(codes: &[u8], scale: f32, values: &mut [f32]) {
    for (v, code) in values.iter_mut().zip(codes) {
        let root = f32::from(*code) * scale;
        *v = root * root;
    }
}

/// Rounds a block of a second moment, as [`encode`] does, and overwrites the values with their roots.
#[inline(always)]
pub(super) fn encode_squares(values: &mut [f32], noise: impl Fn(usize) -> u32, codes: &mut [u8], scale: &mut f32) {
    values.iter_mut().for_each(|v| *v = v.sqrt());
    let old = std::mem::replace(scale, self::scale(largest(values), 255.0));
    for (i, (v, to)) in values.iter().zip(codes).enumerate() {
        *to = code(*v, f32::from(*to) * old, *scale, noise(i)).clamp(1.0, 255.0) as u8;
    }
}
