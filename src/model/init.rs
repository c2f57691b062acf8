//! Initial values of weights.

use crate::rng::Rng;

/// How a weight is initialised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every value is 0.
    Zeros,
    /// Every value is 1.
    Ones,
    /// Normal values with mean 0 and this standard deviation.
    Normal(f32),
    /// What a gated delta rule forgets: for each head the logarithm of a rate between 1 and 16, then for each what makes a step
    /// between 0.001 and 0.1, evenly in its logarithm, as in Mamba 2 (Dao and Gu 2024). A row keeps e^(-rate * step) of a state.
    Decay,
    /// Residual mixing of a sub-layer. It reads one stream and hardly mixes at the start.
    Mhc {
        /// Streams of the model.
        streams: usize,
        /// The stream that the sub-layer reads at the start.
        reads: usize,
    },
}

/// Standard deviation of the embedding and the head. It keeps the first logits small, and the first loss near ln(vocab).
pub(super) const EMBEDDING_STD: f32 = 0.02;

/// Read weights start at sigmoid(4) for the stream that is read, and at sigmoid(-4) for the others.
const READ_BIAS: f32 = 4.0;

impl Init {
    /// `n` initial values.
    ///
    /// # Panics
    /// When `n` is not the number of mixing parameters of so many streams.
    pub fn values(&self, n: usize, rng: &mut Rng) -> Vec<f32> {
        match *self {
            Init::Zeros => vec![0.0; n],
            Init::Ones => vec![1.0; n],
            Init::Normal(std) => (0..n).map(|_| std * rng.normal()).collect(),
            Init::Decay => {
                let rate = |rng: &mut Rng| (1.0 + 15.0 * rng.f32()).ln();
                // The inverse of softplus.
                let step = |rng: &mut Rng| (1e-3 * 100f32.powf(rng.f32())).exp_m1().ln();
                (0..n).map(|i| if i < n / 2 { rate(rng) } else { step(rng) }).collect()
            }
            Init::Mhc { streams, reads } => {
                let mut p = match streams {
                    2 => vec![3.0],
                    _ => std::iter::once(6.0).chain([0.0; 23]).collect::<Vec<f32>>(),
                };
                p.extend(std::iter::repeat_n(0.0, streams));
                p.extend((0..streams).map(|i| if i == reads { READ_BIAS } else { -READ_BIAS }));
                p.extend(std::iter::repeat_n(0.0, 2 * streams));
                assert_eq!(p.len(), n, "parameters of {streams} streams");
                p
            }
        }
    }
}
