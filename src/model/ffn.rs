//! The feed-forward `gated`: SwiGLU (Shazeer 2020), RMSNorm before the down projection.

use super::linear::{Linear, LinearInput, Linears};
use super::weight::Builder;
use crate::graph::{Graph, TensorId};

pub(super) struct Gated {
    gate_up: Linears<2>,
    down: Linear,
    inner_norm: Option<TensorId>,
    eps: f32,
}

impl Gated {
    /// A layer of width `ffn`.
    pub(super) fn new(make: &mut Builder<'_>, prefix: &str, ffn: usize) -> Self {
        let dim = make.config.dim;
        let layers = ["gate", "up"].map(|n| (format!("{prefix}.{n}.weight"), ffn));
        Gated {
            gate_up: Linears::new(make, &format!("{prefix}.gate_up.weight"), layers, dim),
            down: Linear::new(make, &format!("{prefix}.down.weight"), dim, ffn),
            inner_norm: make.inner_norm(prefix, ffn),
            eps: make.config.norm_eps,
        }
    }

    /// x (rows, dim) -> (rows, dim).
    pub(super) fn forward(&self, g: &mut Graph, mut x: LinearInput) -> TensorId {
        let y = if self.gate_up.are_together(x.rows(g)) {
            let both = self.gate_up.together(g, &mut x);
            g.swiglu_columns(both)
        } else {
            let [gate, up] = self.gate_up.apart(g, &mut x);
            g.swiglu(gate, up)
        };
        self.down.forward(g, &mut LinearInput::new(y, self.inner_norm, self.eps))
    }
}
