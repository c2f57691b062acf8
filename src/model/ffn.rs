//! The feed-forward `gated`: SwiGLU (Shazeer 2020), RMSNorm before the down projection.

use super::linear::{Linear, LinearInput};
use super::weight::Builder;
use crate::graph::{Graph, TensorId};

pub(super) struct Gated {
    gate: Linear,
    up: Linear,
    down: Linear,
    inner_norm: Option<TensorId>,
    eps: f32,
}

impl Gated {
    pub(super) fn new(make: &mut Builder<'_>, prefix: &str) -> Self {
        let (dim, ffn) = (make.config.dim, make.config.ffn);
        Gated {
            gate: Linear::new(make, &format!("{prefix}.gate.weight"), ffn, dim),
            up: Linear::new(make, &format!("{prefix}.up.weight"), ffn, dim),
            down: Linear::new(make, &format!("{prefix}.down.weight"), dim, ffn),
            inner_norm: make.inner_norm(prefix, ffn),
            eps: make.config.norm_eps,
        }
    }

    /// x (rows, dim) -> (rows, dim).
    pub(super) fn forward(&self, g: &mut Graph, x: TensorId) -> TensorId {
        let mut x = LinearInput::new(x);
        let (gate, up) = (self.gate.forward(g, &mut x), self.up.forward(g, &mut x));
        let y = g.swiglu(gate, up);
        let y = self.inner_norm.map_or(y, |w| g.rms_norm(y, w, self.eps));
        self.down.forward(g, &mut LinearInput::new(y))
    }
}
