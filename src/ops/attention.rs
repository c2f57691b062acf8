//! Rotary position embedding (Su et al. 2021) and causal grouped-query attention (Ainslie et al. 2023).

use super::{ATTENTION, ATTENTION_BACKWARD_DELTA, ATTENTION_BACKWARD_KV, ATTENTION_BACKWARD_Q, ROPE};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::ops::attention::AttentionArgs;
use cpu_kernels::ops::attention_backward_delta::AttentionBackwardDeltaArgs;
use cpu_kernels::ops::attention_backward_kv::AttentionBackwardKvArgs;
use cpu_kernels::ops::attention_backward_q::AttentionBackwardQArgs;
use cpu_kernels::{Args, ops::rope::RopeArgs};

/// Most elements of an attention head: the limit of a workgroup's memory.
pub const MAX_HEAD_DIM: usize = 128;

/// (cos, sin) of position * theta^(-2i/head_dim) for each position below `positions` and each i below head_dim / 2.
/// Computed in f64 on the host, because a GPU's sine is inaccurate at large angles.
pub fn rope_table(positions: usize, head_dim: usize, theta: f64) -> Vec<f32> {
    let pair = |p: usize, i: usize| {
        let angle = p as f64 * theta.powf(-2.0 * i as f64 / head_dim as f64);
        [angle.cos() as f32, angle.sin() as f32]
    };
    (0..positions).flat_map(|p| (0..head_dim / 2).flat_map(move |i| pair(p, i))).collect()
}

impl Graph {
    /// Rotates x (rows, heads * head_dim) by `positions` (rows) -> like x. `table` (positions, head_dim) is a [`rope_table`].
    ///
    /// # Panics
    /// When head_dim is not a multiple of 4, or the shapes do not match.
    pub fn rope(&mut self, x: TensorId, positions: TensorId, table: TensorId) -> TensorId {
        let ((rows, dim), (_, head_dim)) = (self.matrix(x), self.matrix(table));
        let fits = dim.is_multiple_of(head_dim) && head_dim.is_multiple_of(4) && self.shape(positions) == [rows];
        assert!(fits, "rope: {}", self.tensor(x).name);
        let y = self.temp("rope", &[rows, dim], DType::F32);
        let (heads, head_dim) = ((dim / head_dim) as u32, head_dim as u32);
        self.push(&ROPE, RopeArgs { rows: rows as u32, heads, head_dim, sign: 1.0 }, &[x, positions, table, y]);
        y
    }

    /// softmax(q k^T / sqrt(head_dim)) v, causal within each document of each of `batch` sequences: a position of 0 starts one.
    /// q (batch * seq, heads * head_dim), k and v (batch * seq, kv_heads * head_dim), positions (batch * seq) -> like q.
    ///
    /// # Panics
    /// When head_dim is not a multiple of 4 or exceeds [`MAX_HEAD_DIM`], or the shapes do not match.
    pub fn attention(
        &mut self,
        [q, k, v]: [TensorId; 3],
        positions: TensorId,
        batch: usize,
        head_dim: usize,
    ) -> TensorId {
        let ((rows, q_dim), (_, kv_dim)) = (self.matrix(q), self.matrix(k));
        let (heads, kv_heads, seq) = (q_dim / head_dim, kv_dim / head_dim, rows / batch);
        assert!(
            head_dim.is_multiple_of(4) && head_dim <= MAX_HEAD_DIM,
            "attention: head_dim {head_dim} is not a multiple of 4 up to {MAX_HEAD_DIM}"
        );
        assert!(
            heads.is_multiple_of(kv_heads) && self.shape(k) == self.shape(v) && self.shape(positions) == [rows],
            "attention: {heads}/{kv_heads} heads"
        );
        let y = self.temp("attention", &[rows, q_dim], DType::F32);
        let lse = self.temp("lse", &[batch, heads, seq], DType::F32);
        let args = AttentionArgs {
            batch: batch as u32,
            seq: seq as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            scale: 1.0 / (head_dim as f32).sqrt(),
        };
        self.push(&ATTENTION, args, &[q, k, v, positions, y, lse]);
        y
    }
}

pub(super) fn rope_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, positions, table, y] = node.tensors[..] else { unreachable!("four buffers") };
    let args: RopeArgs = Args::from_words(&node.args);
    let (dy, dx) = (b.grad(y).expect("an output has a gradient"), b.fresh(x));
    b.push(&ROPE, RopeArgs { sign: -args.sign, ..args }, &[dy, positions, table, dx]);
    b.pass(x, dx, true);
}

/// Two ops: both make the scores and their gradients, 3 and 4 products. One op for all would make 5, but it would bind ten
/// buffers, and a browser lets it bind eight.
pub(super) fn attention_grad(b: &mut Backward<'_>, node: &Node) {
    let [q, k, v, positions, y, lse] = node.tensors[..] else { unreachable!("six buffers") };
    let AttentionArgs { batch, seq, heads, kv_heads, head_dim, scale } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    let stats = b.graph.temp("d.stats", &[2, batch as usize, heads as usize, seq as usize], DType::F32);
    b.push(&ATTENTION_BACKWARD_DELTA, AttentionBackwardDeltaArgs { batch, seq, heads, head_dim }, &[y, dy, lse, stats]);
    let (dq, dk, dv) = (b.fresh(q), b.fresh(k), b.fresh(v));
    let args = AttentionBackwardQArgs { batch, seq, heads, kv_heads, head_dim, scale };
    b.push(&ATTENTION_BACKWARD_Q, args, &[q, k, v, dy, stats, positions, dq]);
    let args = AttentionBackwardKvArgs { batch, seq, heads, kv_heads, head_dim, scale };
    b.push(&ATTENTION_BACKWARD_KV, args, &[q, k, v, dy, stats, positions, dk, dv]);
    for (t, dt) in [(q, dq), (k, dk), (v, dv)] {
        b.pass(t, dt, true);
    }
}
