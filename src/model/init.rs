//! Initial values of parameters.

use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Ones,
    /// Normal, with this standard deviation.
    Normal(f32),
    /// Residual mixing of a sub-layer that starts by reading stream `reads` and mixing next to nothing.
    Mhc {
        streams: usize,
        reads: usize,
    },
}

/// Standard deviation of the embedding and of a head of its own: logits start small, and the first loss near ln(vocab).
pub(super) const EMBEDDING_STD: f32 = 0.02;

/// Read weights start at sigmoid(4) for the stream that is read and sigmoid(-4) for the others.
const READ_BIAS: f32 = 4.0;

impl Init {
    /// Initial values of `n` parameters.
    pub fn values(&self, n: usize, rng: &mut Rng) -> Vec<f32> {
        match *self {
            Init::Ones => vec![1.0; n],
            Init::Normal(std) => (0..n).map(|_| std * rng.normal()).collect(),
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
