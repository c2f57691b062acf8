//! The mixer `attention`: grouped queries (Ainslie et al. 2023), rotary positions (Su et al. 2021), RMSNorm before the
//! output projection.

use super::layer::Pass;
use super::linear::{Linear, LinearInput};
use super::state::{Context, LayerState};
use super::weight::Builder;
use crate::graph::{Graph, TensorId};
use crate::ops::Places;

pub(super) struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    inner_norm: Option<TensorId>,
    rope: TensorId,
    head_dim: usize,
    kv_heads: usize,
    eps: f32,
}

impl Attention {
    pub(super) fn new(make: &mut Builder<'_>, prefix: &str) -> Self {
        let c = make.config;
        let (dim, kv_dim) = (c.dim, c.kv_heads * c.head_dim());
        Attention {
            q: Linear::new(make, &format!("{prefix}.q.weight"), dim, dim),
            k: Linear::new(make, &format!("{prefix}.k.weight"), kv_dim, dim),
            v: Linear::new(make, &format!("{prefix}.v.weight"), kv_dim, dim),
            o: Linear::new(make, &format!("{prefix}.o.weight"), dim, dim),
            inner_norm: make.inner_norm(prefix, dim),
            rope: make.rope,
            head_dim: c.head_dim(),
            kv_heads: c.kv_heads,
            eps: c.norm_eps,
        }
    }

    /// The keys and values of sequences whose pages are in this table.
    pub(super) fn state(&self, g: &mut Graph, name: &str, pages: TensorId) -> LayerState {
        LayerState::Attention(g.kv_cache(name, pages, (self.kv_heads, self.head_dim)))
    }

    /// x (rows, dim) -> (rows, dim).
    pub(super) fn forward(&self, g: &mut Graph, x: TensorId, pass: &mut Pass<'_>) -> TensorId {
        let mut x = LinearInput::new(x);
        let (q, k, v) = (self.q.forward(g, &mut x), self.k.forward(g, &mut x), self.v.forward(g, &mut x));
        let q = g.rope(q, pass.positions, self.rope);
        let k = g.rope(k, pass.positions, self.rope);
        let y = match pass.context {
            Context::Batch(batch) => g.attention([q, k, v], pass.positions, batch, self.head_dim),
            Context::Cached { slots, state } => {
                #[cfg_attr(not(test), expect(irrefutable_let_patterns, reason = "there is one mixer so far"))]
                let LayerState::Attention(cache) = &state.layers[pass.layer] else { unreachable!("its own state") };
                let places = Places { positions: pass.positions, slots };
                g.kv_append(k, v, places, *cache);
                g.attention_cached(q, *cache, places)
            }
        };
        let y = self.inner_norm.map_or(y, |w| g.rms_norm(y, w, self.eps));
        self.o.forward(g, &mut LinearInput::new(y))
    }
}
