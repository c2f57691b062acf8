//! A linear layer without bias, ternary (BitLinear) or f32.

use super::init::EMBEDDING_STD;
use super::{Init, Maker, Role, Weight, WeightForm};
use crate::graph::{Graph, TensorId};
use crate::ops::{Head, QuantRows, TernaryWeight};

pub(super) enum Linear {
    /// f32 (outs, dim).
    Dense(TensorId),
    /// Ternary, and the f32 parameter (outs, dim) it is quantised from, where it is trained.
    Ternary { weight: TernaryWeight, latent: Option<TensorId> },
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
        let init = Init::Normal(std);
        if !make.config.is_ternary() {
            return Linear::Dense(make.dense(name, &[outs, dim], role, init));
        }
        let latent = make.latent(name, &[outs, dim], role, init);
        let weight = make.g.ternary_weight(name, outs, dim, make.config.group(dim));
        make.weights.push(Weight { name: name.to_string(), form: WeightForm::Ternary(weight) });
        Linear::Ternary { weight, latent }
    }

    pub(super) fn quantize(&self, g: &mut Graph) {
        if let Linear::Ternary { weight, latent: Some(latent) } = self {
            g.ternary_quantize(*latent, weight);
        }
    }

    /// (rows, dim) -> (rows, outs).
    pub(super) fn forward(&self, g: &mut Graph, x: LinearInput) -> TensorId {
        match (x, self) {
            (LinearInput::Dense(x), Linear::Dense(w)) => g.linear(x, *w, 0..g.matrix(x).0),
            (LinearInput::Quantized(x), Linear::Ternary { weight, .. }) => {
                g.ternary_matmul(x, weight, 0..g.matrix(x.codes).0)
            }
            _ => unreachable!("a model's linear layers are all of one kind"),
        }
    }

    /// This layer as the head over hidden (rows, dim).
    pub(super) fn as_head(&self, g: &mut Graph, hidden: TensorId) -> Head {
        match *self {
            Linear::Dense(weight) => Head::Dense { x: hidden, weight, latent: Some(weight) },
            Linear::Ternary { weight, latent } => {
                Head::Ternary { x: g.quantize_rows(hidden), input: hidden, weight, latent }
            }
        }
    }
}
