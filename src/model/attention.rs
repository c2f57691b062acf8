//! The mixer `attention`: grouped queries (Ainslie et al. 2023), rotary positions (Su et al. 2021), RMSNorm before the
//! output projection, and of each query and key (Henry et al. 2020), where the configuration has them.

use super::layer::Pass;
use super::linear::{Linear, LinearInput, Linears};
use super::state::{Context, LayerState};
use super::weight::Builder;
use crate::graph::{Graph, TensorId};
use crate::ops::Places;

pub(super) struct Attention {
    qkv: Linears<3>,
    o: Linear,
    /// The gains of queries and of keys.
    norms: Option<[TensorId; 2]>,
    inner_norm: Option<TensorId>,
    rope: TensorId,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    eps: f32,
}

impl Attention {
    pub(super) fn new(make: &mut Builder<'_>, prefix: &str) -> Self {
        let c = make.config;
        let (dim, q_dim, kv_dim) = (c.dim, c.attention_dim(), c.kv_heads * c.head_dim());
        let layers =
            [("q", q_dim), ("k", kv_dim), ("v", kv_dim)].map(|(n, outs)| (format!("{prefix}.{n}.weight"), outs));
        let qkv = match c.qk_norm {
            true => Linears::alone(make, layers, dim),
            false => Linears::new(make, &format!("{prefix}.qkv.weight"), layers, dim),
        };
        let norm = |part| make.norm(&format!("{prefix}.{part}.weight"), c.head_dim());
        Attention {
            qkv,
            norms: c.qk_norm.then(|| ["q_norm", "k_norm"].map(norm)),
            o: Linear::new(make, &format!("{prefix}.o.weight"), dim, q_dim),
            inner_norm: make.inner_norm(prefix, q_dim),
            rope: make.rope,
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim(),
            eps: c.norm_eps,
        }
    }

    /// The keys and values of sequences whose pages are in this table.
    pub(super) fn state(&self, g: &mut Graph, name: &str, pages: TensorId) -> LayerState {
        LayerState::Attention(g.kv_cache(name, pages, (self.kv_heads, self.head_dim)))
    }

    /// x (rows, dim) -> queries, keys and values.
    fn heads(&self, g: &mut Graph, x: &mut LinearInput) -> [TensorId; 3] {
        let [q, k, v] = self.qkv.apart(g, x);
        match self.norms {
            Some([q_norm, k_norm]) => [g.rms_norm(q, q_norm, self.eps), g.rms_norm(k, k_norm, self.eps), v],
            None => [q, k, v],
        }
    }

    /// x (rows, dim) -> (rows, dim).
    pub(super) fn forward(&self, g: &mut Graph, mut x: LinearInput, pass: &mut Pass<'_>) -> TensorId {
        let y = match pass.context {
            Context::Batch(batch) => {
                let qkv = if self.norms.is_some() {
                    let [q, k, v] = self.heads(g, &mut x);
                    g.join_columns(&[v, k, q])
                } else {
                    self.qkv.together(g, &mut x)
                };
                g.rope(qkv, self.kv_heads, pass.positions, self.rope);
                g.attention(qkv, pass.positions, batch, (self.heads, self.kv_heads, self.head_dim))
            }
            Context::Cached { slots, state } => {
                let [q, k, v] = self.heads(g, &mut x);
                g.rope(q, 0, pass.positions, self.rope);
                g.rope(k, 0, pass.positions, self.rope);
                let LayerState::Attention(cache) = &state.layers[pass.state] else { unreachable!("its own state") };
                let places = Places { positions: pass.positions, slots };
                g.kv_append(k, v, places, *cache);
                g.attention_cached(q, *cache, places)
            }
        };
        self.o.forward(g, &mut LinearInput::new(y, self.inner_norm, self.eps))
    }
}
