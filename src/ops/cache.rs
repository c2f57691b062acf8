//! Attention over cached keys and values, for rows of several sequences at once.

use super::{ATTENTION_CACHED, GATHER_ROWS, KV_APPEND};
use crate::graph::{DType, Graph, TensorId};
use cpu_kernels::ops::attention_cached::AttentionCachedArgs;
use cpu_kernels::ops::gather_rows::GatherRowsArgs;
use cpu_kernels::ops::kv_append::KvAppendArgs;

pub use cpu_kernels::ops::kv_append::PAGE;

/// The slot and the position of each row.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// (rows) u32: the row's position in its sequence.
    pub positions: TensorId,
    /// (rows) u32: the slot of the row's sequence; 0xffffffff marks an empty row.
    pub slots: TensorId,
}

/// Keys and values of one layer, in f32, in pages of [`PAGE`] positions.
#[derive(Clone, Copy, Debug)]
pub struct KvCache {
    /// Keys (pages, kv_heads, head_dim, 64).
    pub k: TensorId,
    /// Values (pages, kv_heads, 64, head_dim).
    pub v: TensorId,
    /// (slots, slot_pages) u32: the pages of each sequence, in order. One that is beyond the cache, such as 0xffffffff, is none.
    pub pages: TensorId,
    /// The sizes, with the layout flag of values.
    layout: KvAppendArgs,
}

impl KvCache {
    /// Bytes of k, and of v, with so many pages.
    pub fn bytes(&self, pages: usize) -> usize {
        self.layout.cache_len(pages).saturating_mul(DType::F32.bytes())
    }
}

impl Graph {
    /// Makes a cache of one page, for sequences whose pages are in the table `pages`. `heads` is (kv_heads, head_dim).
    pub fn kv_cache(&mut self, name: &str, pages: TensorId, heads: (usize, usize)) -> KvCache {
        let [slot_pages, kv_heads, head_dim] = [self.matrix(pages).1, heads.0, heads.1].map(|n| n as u32);
        let layout = KvAppendArgs { rows: 0, kv_heads, head_dim, slot_pages, transposed: 0 };
        let [k, v] =
            ["k", "v"].map(|part| self.persistent(&format!("{name}.{part}"), &[layout.cache_len(1)], DType::F32));
        KvCache { k, v, pages, layout }
    }

    /// Stores k and v (rows, kv_heads * head_dim) at the slots and positions of the rows.
    ///
    /// # Panics
    /// When the shapes do not match the cache.
    pub fn kv_append(&mut self, k: TensorId, v: TensorId, places: Places, cache: KvCache) {
        for (x, to, transposed) in [(k, cache.k, 1), (v, cache.v, 0)] {
            let (rows, dim) = self.matrix(x);
            let args = KvAppendArgs { rows: rows as u32, transposed, ..cache.layout };
            assert_eq!((args.kv_heads * args.head_dim) as usize, dim, "kv_append: {}", self.tensor(x).name);
            self.push(&KV_APPEND, args, &[x, places.positions, places.slots, cache.pages, to]);
        }
    }

    /// Attention of q (rows, heads * head_dim), each row over its own sequence up to its position -> like q. Empty rows
    /// give 0.
    pub fn attention_cached(&mut self, q: TensorId, cache: KvCache, places: Places) -> TensorId {
        let (rows, q_dim) = self.matrix(q);
        let KvAppendArgs { slot_pages, kv_heads, head_dim, .. } = cache.layout;
        let y = self.temp("attention", &[rows, q_dim], DType::F32);
        let args = AttentionCachedArgs {
            rows: rows as u32,
            heads: q_dim as u32 / head_dim,
            kv_heads,
            head_dim,
            slot_pages,
            scale: 1.0 / (head_dim as f32).sqrt(),
        };
        self.push(&ATTENTION_CACHED, args, &[q, cache.k, cache.v, places.positions, places.slots, cache.pages, y]);
        y
    }

    /// The rows `index` (rows) of x (any, dim) -> (rows, dim). An index of 0xffffffff gives 0.
    ///
    /// # Panics
    /// When dim is not a multiple of 4.
    pub fn gather_rows(&mut self, x: TensorId, index: TensorId) -> TensorId {
        let (rows, (_, dim)) = (self.tensor(index).elements(), self.matrix(x));
        assert!(dim.is_multiple_of(4), "gather_rows: {}", self.tensor(x).name);
        let y = self.temp("gathered", &[rows, dim], DType::F32);
        self.push(&GATHER_ROWS, GatherRowsArgs { rows: rows as u32, dim: dim as u32 }, &[x, index, y]);
        y
    }
}
