//! A linear layer without bias, ternary (BitLinear) or f32.

use super::init::EMBEDDING_STD;
use super::{Init, Maker, Role};
use crate::graph::{Graph, TensorId};
use crate::ops::{Head, QuantRows, TernaryWeight};

pub(super) struct Linear {
    /// f32 (outs, dim).
    latent: TensorId,
    ternary: Option<TernaryWeight>,
}

/// The input of linear layers, prepared once for all that share it.
#[derive(Clone, Copy)]
pub(super) enum LinearInput {
    Dense(TensorId),
    Quantized(QuantRows),
}

impl LinearInput {
    /// x (rows, dim), as the linear layers of a model take it.
    pub(super) fn new(g: &mut Graph, x: TensorId, ternary: bool) -> Self {
        if ternary { LinearInput::Quantized(g.quantize_rows(x)) } else { LinearInput::Dense(x) }
    }
}

impl Linear {
    pub(super) fn new(make: &mut Maker<'_>, name: &str, outs: usize, dim: usize, role: Role) -> Self {
        let std = match role {
            Role::Matrix => 1.0 / (dim as f32).sqrt(),
            Role::Other => EMBEDDING_STD,
        };
        let latent = make.param(name, &[outs, dim], role, Init::Normal(std));
        let ternary = make.config.is_ternary().then(|| make.g.ternary_weight(name, outs, dim, make.config.group(dim)));
        Linear { latent, ternary }
    }

    pub(super) fn quantize(&self, g: &mut Graph) {
        if let Some(ternary) = &self.ternary {
            g.ternary_quantize(self.latent, ternary);
        }
    }

    /// (rows, dim) -> (rows, outs).
    pub(super) fn forward(&self, g: &mut Graph, x: LinearInput) -> TensorId {
        match (x, &self.ternary) {
            (LinearInput::Dense(x), None) => g.linear(x, self.latent, 0..g.matrix(x).0),
            (LinearInput::Quantized(x), Some(w)) => g.ternary_matmul(x, w, 0..g.matrix(x.codes).0),
            _ => unreachable!("a model's linear layers are all of one kind"),
        }
    }

    /// This ternary layer as the head over hidden (rows, dim).
    pub(super) fn as_head(&self, g: &mut Graph, hidden: TensorId) -> Head {
        let weight = self.ternary.expect("a ternary head");
        Head::Ternary { x: g.quantize_rows(hidden), input: hidden, weight, latent: self.latent }
    }
}
