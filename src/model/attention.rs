//! The attention sub-layer: grouped queries, rotary positions, RMSNorm before the output projection.

use super::linear::{Linear, LinearInput};
use super::residual::Residual;
use super::{Context, Inputs, Maker, Model};
use crate::graph::{Graph, TensorId};
use crate::ops::Places;

pub(super) struct Attention {
    residual: Residual,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    sub_norm: Option<TensorId>,
}

impl Attention {
    pub(super) fn new(make: &mut Maker<'_>, prefix: &str, index: usize) -> Self {
        let c = make.config;
        let (dim, kv_dim) = (c.dim, c.kv_heads * c.head_dim());
        Attention {
            residual: Residual::new(make, prefix, index),
            q: make.linear(&format!("{prefix}.q.weight"), dim, dim),
            k: make.linear(&format!("{prefix}.k.weight"), kv_dim, dim),
            v: make.linear(&format!("{prefix}.v.weight"), kv_dim, dim),
            o: make.linear(&format!("{prefix}.o.weight"), dim, dim),
            sub_norm: c.sub_norm.then(|| make.norm(&format!("{prefix}.sub_norm.weight"), dim)),
        }
    }

    pub(super) fn linears(&self) -> [&Linear; 4] {
        [&self.q, &self.k, &self.v, &self.o]
    }

    pub(super) fn forward(
        &self,
        g: &mut Graph,
        x: TensorId,
        layer: usize,
        inputs: &Inputs<'_>,
        model: &Model,
    ) -> TensorId {
        let config = &model.config;
        self.residual.forward(g, x, |g, x| {
            let x = LinearInput::new(g, x, config.is_ternary());
            let (q, k, v) = (self.q.forward(g, x), self.k.forward(g, x), self.v.forward(g, x));
            let q = g.rope(q, inputs.positions, model.rope);
            let k = g.rope(k, inputs.positions, model.rope);
            let y = match inputs.context {
                Context::Batch(batch) => g.attention(q, k, v, batch, config.head_dim()),
                Context::Cached { slots, layers } => {
                    let places = Places { positions: inputs.positions, slots };
                    g.kv_append(k, v, places, layers[layer]);
                    g.attention_cached(q, layers[layer], places)
                }
            };
            let y = self.sub_norm.map_or(y, |w| g.rms_norm(y, w, config.norm_eps));
            let y = LinearInput::new(g, y, config.is_ternary());
            self.o.forward(g, y)
        })
    }
}
