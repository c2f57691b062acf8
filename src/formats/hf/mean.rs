//! The mean magnitude of a matrix, from which BitNet b1.58 takes the scale, to the last bit of PyTorch.

/// Values from which on two threads add up half of them each.
const PARALLEL: usize = 1 << 15;
/// Values of a vector, and those that are added up side by side.
const LANES: usize = 8;
const ROW: usize = 4 * LANES;

/// The mean magnitude in f32. The sum is rounded in the order in which PyTorch adds up on two threads with AVX2; on other machines PyTorch
/// itself has other last bits.
pub(super) fn magnitude(values: &[f32]) -> f32 {
    let parts = if values.len() < PARALLEL { 1 } else { 2 };
    let sums = values.chunks(values.len().div_ceil(parts)).map(sum);
    sums.fold(0.0, |all, part| all + part) / values.len() as f32
}

/// Adds up rows of 32 values in four levels: each takes over what the one below it has added up from so many rows.
fn sum(values: &[f32]) -> f32 {
    let (rows, rest) = values.as_chunks::<ROW>();
    let step = 1usize << (rows.len().next_power_of_two().ilog2() / 4).max(4);
    let mut levels = [[0f32; ROW]; 4];
    for (i, row) in rows.iter().enumerate() {
        levels[0].iter_mut().zip(row).for_each(|(sum, v)| *sum += v.abs());
        for above in (1..4).take_while(|above| (i + 1).is_multiple_of(step.pow(*above as u32))) {
            let below = std::mem::replace(&mut levels[above - 1], [0.0; ROW]);
            levels[above].iter_mut().zip(below).for_each(|(sum, v)| *sum += v);
        }
    }
    let [mut all, above @ ..] = levels;
    above.iter().for_each(|level| all.iter_mut().zip(level).for_each(|(sum, v)| *sum += v));
    let (vectors, single) = rest.as_chunks::<LANES>();
    vectors.iter().for_each(|vector| all.iter_mut().zip(vector).for_each(|(sum, v)| *sum += v.abs()));
    let lane = |i: usize| (1..4).fold(all[i], |sum, k| sum + all[k * LANES + i]);
    single.iter().map(|v| v.abs()).chain((0..LANES).map(lane)).fold(0.0, |sum, v| sum + v)
}

#[cfg(test)]
mod tests {
    /// Means of `abs().mean()` of PyTorch 2.15.
    #[test]
    fn the_mean_has_the_bits_of_pytorch() {
        let value = |i: u64| (i.wrapping_mul(2_654_435_761) % 16_777_216) as f32 / 8_388_608.0 - 1.0;
        for (count, bits) in
            [(1_000, 0x3f00_0216), (32_767, 0x3f00_0079), (40_013, 0x3eff_fff5), (1_100_000, 0x3f00_0002)]
        {
            let values: Vec<f32> = (0..count).map(value).collect();
            assert_eq!(super::magnitude(&values).to_bits(), bits, "{count} values");
        }
    }
}
