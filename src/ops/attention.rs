//! Rotary position embedding (Su et al. 2021) and causal grouped-query attention (Ainslie et al. 2023).

use super::{ATTENTION, ATTENTION_BACKWARD_DELTA, ATTENTION_BACKWARD_KV, ATTENTION_BACKWARD_Q, ROPE};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::ops::attention::AttentionArgs;
use cpu_kernels::ops::attention_backward_delta::AttentionBackwardDeltaArgs;
use cpu_kernels::ops::attention_backward_kv::AttentionBackwardKvArgs;
use cpu_kernels::ops::attention_backward_q::AttentionBackwardQArgs;
use cpu_kernels::{Args, ops::rope::RopeArgs};

/// Most elements of an attention head: the limit of a workgroup's memory.
pub const MAX_HEAD_DIM: usize = 256;
/// Most elements of a head that is trained: the limit of the registers of a gradient's shader.
pub const MAX_TRAINED_HEAD_DIM: usize = 128;

/// (cos, sin) of position * theta^(-2i/head_dim) for each position below `positions` and each i below head_dim / 2.
/// Computed in f64 on the host, because a GPU's sine is inaccurate at large angles.
pub fn rope_table(positions: usize, head_dim: usize, theta: f64) -> Vec<f32> {
    rope_table_of(positions, &rope_frequencies(head_dim, theta), 1.0)
}

/// theta^(-2i/head_dim) for each i below head_dim / 2: what a position turns a pair by, in radians.
pub fn rope_frequencies(head_dim: usize, theta: f64) -> Vec<f64> {
    (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect()
}

/// [`rope_table`] of these frequencies, times `magnitude`.
pub fn rope_table_of(positions: usize, frequencies: &[f64], magnitude: f64) -> Vec<f32> {
    let pair = |p: usize, frequency: &f64| {
        let angle = p as f64 * frequency;
        [angle.cos(), angle.sin()].map(|part| (magnitude * part) as f32)
    };
    (0..positions).flat_map(|p| frequencies.iter().flat_map(move |frequency| pair(p, frequency))).collect()
}

impl Graph {
    /// Rotates x (rows, heads * head_dim) in place by `positions` (rows), without the heads before number `first`. `table`
    /// (positions, head_dim) is a [`rope_table`].
    ///
    /// # Panics
    /// When head_dim is not a multiple of 4, or the shapes do not match.
    pub fn rope(&mut self, x: TensorId, first: usize, positions: TensorId, table: TensorId) {
        let ((rows, dim), (_, head_dim)) = (self.matrix(x), self.matrix(table));
        let fits = dim.is_multiple_of(head_dim) && head_dim.is_multiple_of(4) && self.shape(positions) == [rows];
        let all = dim / head_dim;
        assert!(fits && first < all, "rope: {}", self.tensor(x).name);
        let [rows, heads, head_dim, first, all] = [rows, all - first, head_dim, first, all].map(|n| n as u32);
        self.push(&ROPE, RopeArgs { rows, heads, head_dim, first, all, sign: 1.0 }, &[x, positions, table]);
    }

    /// softmax(q k^T / sqrt(head_dim)) v, causal within each document of each of `batch` sequences: a position of 0 starts one.
    /// qkv (batch * seq, (2 * kv_heads + heads) * head_dim): values, keys and queries; positions (batch * seq) ->
    /// (batch * seq, heads * head_dim).
    ///
    /// # Panics
    /// When head_dim is not a multiple of 4 or exceeds [`MAX_HEAD_DIM`], or the shapes do not match.
    pub fn attention(
        &mut self,
        qkv: TensorId,
        positions: TensorId,
        batch: usize,
        (heads, kv_heads, head_dim): (usize, usize, usize),
    ) -> TensorId {
        let (rows, dim) = self.matrix(qkv);
        let seq = rows / batch;
        assert!(
            head_dim.is_multiple_of(4) && head_dim <= MAX_HEAD_DIM,
            "attention: head_dim {head_dim} is not a multiple of 4 up to {MAX_HEAD_DIM}"
        );
        assert!(
            heads.is_multiple_of(kv_heads)
                && dim == (2 * kv_heads + heads) * head_dim
                && self.shape(positions) == [rows],
            "attention: {heads}/{kv_heads} heads of {head_dim} in {dim} columns"
        );
        let y = self.temp("attention", &[rows, heads * head_dim], DType::F32);
        let lse = self.temp("lse", &[batch, heads, seq], DType::F32);
        let args = AttentionArgs {
            batch: batch as u32,
            seq: seq as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            scale: 1.0 / (head_dim as f32).sqrt(),
        };
        self.push(&ATTENTION, args, &[qkv, positions, y, lse]);
        y
    }
}

pub(super) fn rope_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, positions, table] = node.tensors[..] else { unreachable!("three buffers") };
    let args: RopeArgs = Args::from_words(&node.args);
    let (dx, _) = b.slot(x);
    b.push(&ROPE, RopeArgs { sign: -args.sign, ..args }, &[dx, positions, table]);
}

/// Two ops: both make the scores and their gradients, 3 and 4 products, where one op for all would make 5. It would have to keep
/// the sums of queries and of keys at once.
pub(super) fn attention_grad(b: &mut Backward<'_>, node: &Node) {
    let [qkv, positions, y, lse] = node.tensors[..] else { unreachable!("four buffers") };
    let AttentionArgs { batch, seq, heads, kv_heads, head_dim, scale } = Args::from_words(&node.args);
    assert!(head_dim as usize <= MAX_TRAINED_HEAD_DIM, "the gradient of heads of {head_dim}");
    let dy = b.grad(y).expect("an output has a gradient");
    let stats = b.graph.temp("d.stats", &[2, batch as usize, heads as usize, seq as usize], DType::F32);
    b.push(&ATTENTION_BACKWARD_DELTA, AttentionBackwardDeltaArgs { batch, seq, heads, head_dim }, &[y, dy, lse, stats]);
    let dqkv = b.fresh(qkv);
    let args = AttentionBackwardQArgs { batch, seq, heads, kv_heads, head_dim, scale };
    b.push(&ATTENTION_BACKWARD_Q, args, &[qkv, dy, stats, positions, dqkv]);
    let args = AttentionBackwardKvArgs { batch, seq, heads, kv_heads, head_dim, scale };
    b.push(&ATTENTION_BACKWARD_KV, args, &[qkv, dy, stats, positions, dqkv]);
    b.pass(qkv, dqkv);
}
