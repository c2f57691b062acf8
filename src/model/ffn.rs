//! The feed-forward `gated`: a gated unit (Shazeer 2020), RMSNorm before the down projection.

use super::linear::{Linear, LinearInput, Linears};
use super::weight::Builder;
use crate::graph::{Graph, TensorId};
use crate::ops::Activation;

pub(super) struct Gated {
    gate_up: Linears<2>,
    down: Linear,
    inner_norm: Option<TensorId>,
    activation: Activation,
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
            activation: make.config.activation,
            eps: make.config.norm_eps,
        }
    }

    /// x (rows, dim) -> (rows, dim).
    pub(super) fn forward(&self, g: &mut Graph, mut x: LinearInput) -> TensorId {
        let y = if self.gate_up.are_together(x.rows(g)) {
            let both = self.gate_up.together(g, &mut x);
            g.swiglu_columns(both, self.activation)
        } else {
            let [gate, up] = self.gate_up.apart(g, &mut x);
            g.swiglu(gate, up, self.activation)
        };
        self.down.forward(g, &mut LinearInput::new(y, self.inner_norm, self.eps))
    }
}
