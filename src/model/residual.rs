//! The residual around a sub-layer: f is read from and written to the streams.
//!
//! One stream is the plain residual x + f(norm(x)). With 2 or 4 (mHC-lite), u = sum h_pre[i] X_i, f = sublayer(norm(u)),
//! X'_i = sum_j H_res[i][j] X_j + h_post[i] f. Sub-layer k starts by reading stream k mod N: streams that start as equal
//! copies with equal weights would stay equal for ever.

use super::{Init, Maker, Role};
use crate::graph::{Graph, TensorId};

pub(super) struct Residual {
    norm: TensorId,
    /// Mixing parameters, in the order of the `.mhc` file.
    mhc: Option<TensorId>,
    streams: usize,
    eps: f32,
}

impl Residual {
    pub(super) fn new(make: &mut Maker<'_>, prefix: &str, index: usize) -> Self {
        let config = make.config;
        let norm = make.norm(&format!("{prefix}.norm.weight"), config.dim);
        let streams = config.mhc_streams;
        let init = Init::Mhc { streams, reads: index % streams };
        let mhc =
            (streams > 1).then(|| make.dense(&format!("{prefix}.mhc"), &[config.mhc_params()], Role::Other, init));
        Residual { norm, mhc, streams, eps: config.norm_eps }
    }

    /// x (rows, dim) or (streams, rows, dim) -> the same, with `inner` applied to the normalised input.
    pub(super) fn forward(
        &self,
        g: &mut Graph,
        x: TensorId,
        inner: impl FnOnce(&mut Graph, TensorId) -> TensorId,
    ) -> TensorId {
        let coef = self.mhc.map(|p| g.mhc_weights(p, self.streams));
        let u = coef.map_or(x, |coef| g.mhc_pre(coef, x));
        let normed = g.rms_norm(u, self.norm, self.eps);
        let f = inner(g, normed);
        g.name(f, "out");
        match coef {
            Some(coef) => g.mhc_post(coef, x, f),
            None => {
                let y = g.add_tensors(x, f);
                g.name(y, "streams")
            }
        }
    }
}
