//! The residual around a sub-layer f, which reads from the streams and writes to them.
//!
//! One stream is the plain residual x + f(norm(x)). With 2 or 4 streams (mHC-lite), u = sum h_pre[i] X_i,
//! f = sublayer(norm(u)), X'_i = sum_j H_res[i][j] X_j + h_post[i] f. Sub-layer k starts by reading stream k mod N: streams
//! that start as equal copies with equal weights would stay equal for ever.

use super::linear::LinearInput;
use super::weight::{Builder, Role};
use super::{Init, ModelConfig};
use crate::graph::{Graph, TensorId};

/// Parameters that mix the streams of one sub-layer; none for a single stream.
pub fn mixing_params(streams: usize) -> usize {
    match streams {
        2 => 9,
        4 => 40,
        _ => 0,
    }
}

/// Copies x (rows, dim) to the streams of the model: (streams, rows, dim), or x itself for one stream.
pub(super) fn open(g: &mut Graph, x: TensorId, config: &ModelConfig) -> TensorId {
    if config.mhc_streams == 1 { x } else { g.mhc_expand(x, config.mhc_streams) }
}

/// The mean of the streams, (rows, dim).
pub(super) fn close(g: &mut Graph, x: TensorId, config: &ModelConfig) -> TensorId {
    if config.mhc_streams == 1 { x } else { g.mhc_collapse(x) }
}

pub(super) struct Residual {
    /// What the names of the sub-layer's tensors start with.
    prefix: String,
    norm: TensorId,
    /// Mixing parameters, in the order of the `.mhc` file.
    mixing: Option<TensorId>,
    streams: usize,
    eps: f32,
}

impl Residual {
    /// The residual of sub-layer number `index` of the model.
    pub(super) fn new(make: &mut Builder<'_>, prefix: &str, index: usize) -> Self {
        let (streams, eps) = (make.config.mhc_streams, make.config.norm_eps);
        let norm = make.norm(&format!("{prefix}.norm.weight"), make.config.dim);
        let init = Init::Mhc { streams, reads: index % streams };
        let mixing =
            (streams > 1).then(|| make.vector(&format!("{prefix}.mhc"), mixing_params(streams), Role::Mixing, init));
        Residual { prefix: format!("{prefix}."), norm, mixing, streams, eps }
    }

    /// x (rows, dim) or (streams, rows, dim) -> the same, with `inner` applied to the normalised input (rows, dim).
    pub(super) fn forward(
        &self,
        g: &mut Graph,
        x: TensorId,
        inner: impl FnOnce(&mut Graph, LinearInput) -> TensorId,
    ) -> TensorId {
        let before = g.set_prefix(&self.prefix);
        let coef = self.mixing.map(|p| g.mhc_weights(p, self.streams));
        let u = coef.map_or(x, |coef| g.mhc_pre(coef, x));
        let f = inner(g, LinearInput::new(u, Some(self.norm), self.eps));
        g.name(f, "out");
        let y = match coef {
            Some(coef) => g.mhc_post(coef, x, f),
            None => {
                let y = g.add_tensors(x, f);
                g.name(y, "streams")
            }
        };
        g.set_prefix(&before);
        y
    }
}
