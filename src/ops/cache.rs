//! Inference over cached keys and values: rows of several sequences at once.

use super::{ATTENTION_CACHED, DType, GATHER_ROWS, KV_APPEND};
use crate::graph::{Graph, TensorId};
use cpu_kernels::attention_cached::AttentionCachedArgs;
use cpu_kernels::gather_rows::GatherRowsArgs;
use cpu_kernels::kv_append::KvAppendArgs;

/// Where each row belongs.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// (rows): position in its sequence.
    pub positions: TensorId,
    /// (rows): which sequence; 0xffffffff is no row at all.
    pub slots: TensorId,
}

/// Keys and values of one layer, each (slots, context, kv_heads * head_dim).
#[derive(Clone, Copy, Debug)]
pub struct KvCache {
    pub k: TensorId,
    pub v: TensorId,
}

impl Graph {
    /// Room for `slots` sequences of `context` tokens.
    pub fn kv_cache(&mut self, name: &str, slots: usize, context: usize, kv_dim: usize) -> KvCache {
        let mut make = |part: &str| self.persistent(&format!("{name}.{part}"), &[slots, context, kv_dim], DType::F32);
        KvCache { k: make("k"), v: make("v") }
    }

    /// Stores x (rows, kv_dim) at its rows' places.
    pub fn kv_append(&mut self, x: TensorId, places: Places, cache: TensorId) {
        let ((rows, dim), context) = (self.matrix(x), self.shape(cache)[1]);
        assert_eq!(self.shape(cache)[2], dim, "kv_append: {}", self.tensor(x).name);
        let args = KvAppendArgs { rows: rows as u32, dim: dim as u32, context: context as u32 };
        self.push(&KV_APPEND, args, &[x, places.positions, places.slots, cache]);
    }

    /// Attention of q (rows, heads * head_dim), each row over its own sequence in the cache.
    pub fn attention_cached(&mut self, q: TensorId, cache: KvCache, places: Places, head_dim: usize) -> TensorId {
        let (rows, q_dim) = self.matrix(q);
        let [_, context, kv_dim] = self.shape(cache.k)[..] else { panic!("a cache has three dimensions") };
        let (heads, kv_heads) = (q_dim / head_dim, kv_dim / head_dim);
        let y = self.temp("attention", &[rows, q_dim], DType::F32);
        let args = AttentionCachedArgs {
            rows: rows as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            context: context as u32,
            scale: 1.0 / (head_dim as f32).sqrt(),
        };
        self.push(&ATTENTION_CACHED, args, &[q, cache.k, cache.v, places.positions, places.slots, y]);
        y
    }

    /// Rows `index` (rows) of x (any, dim): (rows, dim).
    pub fn gather_rows(&mut self, x: TensorId, index: TensorId) -> TensorId {
        let (rows, (_, dim)) = (self.tensor(index).elements(), self.matrix(x));
        let y = self.temp("gathered", &[rows, dim], DType::F32);
        self.push(&GATHER_ROWS, GatherRowsArgs { rows: rows as u32, dim: dim as u32 }, &[x, index, y]);
        y
    }
}
