//! The feed-forward sub-layer: SwiGLU, RMSNorm before the down projection.

use super::linear::{Linear, LinearInput};
use super::residual::Residual;
use super::{Maker, Model};
use crate::graph::{Graph, TensorId};

pub(super) struct FeedForward {
    residual: Residual,
    gate: Linear,
    up: Linear,
    down: Linear,
    sub_norm: Option<TensorId>,
}

impl FeedForward {
    pub(super) fn new(make: &mut Maker<'_>, prefix: &str, index: usize) -> Self {
        let (dim, ffn) = (make.config.dim, make.config.ffn);
        let sub_norm = make.config.sub_norm;
        FeedForward {
            residual: Residual::new(make, prefix, index),
            gate: make.linear(&format!("{prefix}.gate.weight"), ffn, dim),
            up: make.linear(&format!("{prefix}.up.weight"), ffn, dim),
            down: make.linear(&format!("{prefix}.down.weight"), dim, ffn),
            sub_norm: sub_norm.then(|| make.norm(&format!("{prefix}.sub_norm.weight"), ffn)),
        }
    }

    pub(super) fn linears(&self) -> [&Linear; 3] {
        [&self.gate, &self.up, &self.down]
    }

    pub(super) fn forward(&self, g: &mut Graph, x: TensorId, model: &Model) -> TensorId {
        let config = &model.config;
        self.residual.forward(g, x, |g, x| {
            let x = LinearInput::new(g, x, config.is_ternary());
            let (gate, up) = (self.gate.forward(g, x), self.up.forward(g, x));
            let y = g.swiglu(gate, up);
            let y = self.sub_norm.map_or(y, |w| g.rms_norm(y, w, config.norm_eps));
            let y = LinearInput::new(g, y, config.is_ternary());
            self.down.forward(g, y)
        })
    }
}
