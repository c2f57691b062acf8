//! y = x rounded to f16, half to even, and widened again; clamped to +-65504, the largest f16.
//!
//! What is stored as f16 is rounded while it is trained, so that storing it loses nothing. Below 2^-14 an f16 is a multiple
//! of 2^-24.

use crate::simd::math::LANES;
use crate::{Call, args, at_level};

args! {
    pub struct RoundF16Args { n: u32 }
}

/// # Safety
/// See [`crate::Kernel`].
pub unsafe fn round_f16(call: &Call<'_>) {
    let part = call.share_blocks(call.args::<RoundF16Args>().n as usize, LANES);
    // SAFETY: the contract of `Kernel`; this part writes `part` alone.
    let (x, y) = unsafe { (call.bufs[0].read(), call.bufs[1].write(part.clone())) };
    let x = &x[part];
    at_level!(call.level, body, (x: &[f32], y: &mut [f32]));
}

#[inline(always)]
fn body(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = round(*x);
    }
}

/// The rounding of one value.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    let (bits, limit) = (x.to_bits(), 65504.0);
    let normal = f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & 0xffff_e000);
    // Adding and taking away 1.5 * 2^-1 leaves a multiple of 2^-24: its last bit is worth that much.
    let small = (x + 0.75) - 0.75;
    let rounded = if x.abs() < 6.103_515_6e-5 { small } else { normal };
    if rounded.abs() > limit { limit.copysign(x) } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::round;

    #[test]
    fn rounds_like_f16() {
        for (x, want) in [
            (0.0, 0.0),
            (1.0, 1.0),
            (1.0 + 2f32.powi(-11), 1.0),
            (1.0 + 3.0 * 2f32.powi(-11), 1.0 + 2f32.powi(-9)),
            (-0.1, -0.099_975_586),
            (65519.0, 65504.0),
            (1e9, 65504.0),
            (-70000.0, -65504.0),
            (2f32.powi(-25), 0.0),
            (3.0 * 2f32.powi(-25), 2f32.powi(-23)),
            (-1.1 * 2f32.powi(-24), -(2f32.powi(-24))),
            (2f32.powi(-14) * 0.9999, 2f32.powi(-14)),
        ] {
            assert_eq!(round(x), want, "{x}");
        }
        assert!(round(f32::NAN).is_nan());
    }
}
