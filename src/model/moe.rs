//! The feed-forward `moe`: a mixture of experts (Shazeer et al. 2017), each a small SwiGLU. A router in f32 chooses a few for each
//! token, whose results it weighs by a softmax over the chosen ones. No token is dropped. The experts of a layer are balanced by a
//! bias on their choice (Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3), by a further loss (Fedus et al. 2021), or by both.

use super::ffn::Gated;
use super::layer::Pass;
use super::linear::{ExpertLinear, LinearInput};
use super::state::Context;
use super::weight::{Builder, Form, Role};
use super::{ExpertLoad, ExtraLoss, Init};
use crate::graph::{Graph, TensorId};
use crate::ops::Activation;
use serde::{Deserialize, Serialize};

/// The section `[model.moe]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MoeOptions {
    /// Experts of a layer.
    pub experts: usize,
    /// Experts of a token.
    pub active: usize,
    /// Width of an expert; 0 for that of `model.ffn`.
    pub width: usize,
    /// Width of an expert that every token has besides; 0 for none.
    pub shared: usize,
    /// The first layer with experts, where `model.ffns` does not say which have them. Those before are gated.
    pub from: usize,
    /// How far a step moves the bias of each expert towards an equal load. 0: there is no bias.
    pub bias_rate: f32,
    /// Weight of the loss that balances experts. 0: there is none.
    pub balance_loss: f32,
}

impl Default for MoeOptions {
    /// Two of eight experts, balanced by the bias.
    fn default() -> Self {
        MoeOptions { experts: 8, active: 2, width: 0, shared: 0, from: 0, bias_rate: 1e-3, balance_loss: 0.0 }
    }
}

/// Most experts of a layer, and of a token.
const MOST: [usize; 2] = [256, 16];

impl MoeOptions {
    /// Width of an expert in a model whose gated layers have this width.
    pub fn width(&self, ffn: usize) -> usize {
        if self.width == 0 { ffn } else { self.width }
    }

    /// The error names the key and the limit.
    pub(super) fn check(&self) -> Result<(), String> {
        let MoeOptions { experts, active, bias_rate, balance_loss, .. } = *self;
        let sizes = [
            ("experts", experts, 2..=MOST[0]),
            ("active", active, 1..=experts.min(MOST[1])),
            ("width", self.width, 0..=65_536),
            ("shared", self.shared, 0..=65_536),
        ];
        for (key, value, possible) in sizes {
            if !possible.contains(&value) {
                let (low, high) = (possible.start(), possible.end());
                return Err(format!("moe.{key} = {value}: between {low} and {high} is possible"));
            }
        }
        for (key, value, most) in [("bias_rate", bias_rate, 1.0), ("balance_loss", balance_loss, 100.0)] {
            if !(0.0..=most).contains(&value) {
                return Err(format!("moe.{key} = {value}: between 0 and {most} is possible"));
            }
        }
        Ok(())
    }
}

/// Standard deviation of the router: experts of a token start with nearly equal weights.
const ROUTER_STD: f32 = 0.02;

pub(super) struct Moe {
    router: TensorId,
    bias: TensorId,
    gate: ExpertLinear,
    up: ExpertLinear,
    down: ExpertLinear,
    inner_norm: Option<TensorId>,
    shared: Option<Gated>,
    active: usize,
    balance_loss: f32,
    activation: Activation,
    eps: f32,
}

impl Moe {
    pub(super) fn new(make: &mut Builder<'_>, prefix: &str) -> Self {
        let (dim, eps) = (make.config.dim, make.config.norm_eps);
        let moe = make.config.moe.clone().unwrap_or_default();
        let (experts, width) = (moe.experts, moe.width(make.config.ffn));
        let shape = [experts, dim];
        let router = format!("{prefix}.router.weight");
        let router = make.dense(&router, &shape, Form::F32, Role::Router, Init::Normal(ROUTER_STD));
        let own = format!("{prefix}.experts");
        let mut linear = |part: &str, outs, inputs| {
            ExpertLinear::new(make, &format!("{own}.{part}.weight"), [experts, outs, inputs])
        };
        let [gate, up, down] = [linear("gate", width, dim), linear("up", width, dim), linear("down", dim, width)];
        Moe {
            router,
            bias: make.vector(&format!("{prefix}.router.bias"), experts, Role::Balance, Init::Zeros),
            gate,
            up,
            down,
            inner_norm: make.inner_norm(&own, width),
            shared: (moe.shared > 0).then(|| Gated::new(make, &format!("{prefix}.shared"), moe.shared)),
            active: moe.active,
            balance_loss: moe.balance_loss,
            activation: make.config.activation,
            eps,
        }
    }

    /// x (rows, dim) -> (rows, dim).
    pub(super) fn forward(&self, g: &mut Graph, mut x: LinearInput, pass: &mut Pass<'_>) -> TensorId {
        let x = x.dense(g);
        let routing = g.route(x, self.router, self.bias, self.active);
        if let Context::Batch(_) = pass.context {
            pass.loads.push(ExpertLoad { bias: self.bias, starts: routing.starts });
            if self.balance_loss != 0.0 {
                pass.losses.push(ExtraLoss { value: g.balance_loss(&routing), weight: self.balance_loss });
            }
        }
        let sorted = g.dispatch(x, &routing);
        let mut sorted = LinearInput::new(sorted, None, 0.0);
        let [gate, up] = [&self.gate, &self.up].map(|linear| linear.forward(g, &mut sorted, routing.starts));
        let y = g.swiglu(gate, up, self.activation);
        let y = self.down.forward(g, &mut LinearInput::new(y, self.inner_norm, self.eps), routing.starts);
        let y = g.combine(y, &routing);
        match &self.shared {
            Some(shared) => {
                let z = shared.forward(g, LinearInput::new(x, None, 0.0));
                g.add_tensors(y, z)
            }
            None => y,
        }
    }
}
