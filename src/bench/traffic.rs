//! What a training step asks of a device, from its graph alone: launches, bytes moved, memory.
//!
//! A node moves what it reads and what it writes of each tensor, and what its passes hand on. A product whose factors do not fit
//! the caches reads each again for every tile across it; both counts are given, since the truth lies between.

use crate::graph::{Access, Graph, Node};
use crate::train::{Aux, Config, StepShape, TrainStep};
use cpu_kernels::Args;
use cpu_kernels::ops::*;
use std::collections::BTreeMap;

/// What one op does in a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpTraffic {
    /// Dispatches.
    pub launches: usize,
    /// Bytes read and written.
    pub bytes: u64,
    /// The same with every tile of a product reading its factors from memory.
    pub tiled_bytes: u64,
}

/// What a training step asks of a device.
#[derive(Clone, Debug)]
pub struct StepPlan {
    /// By op.
    pub ops: BTreeMap<&'static str, OpTraffic>,
    /// The sum of all ops.
    pub total: OpTraffic,
    /// [`least_bytes`] of the step.
    pub least_bytes: u64,
    /// Bytes of all buffers.
    pub buffer_bytes: usize,
    /// Of these, bytes that hold intermediate results.
    pub temporary_bytes: usize,
}

/// Plans the training step of a checked configuration, without a device.
pub fn plan_step(config: &Config, vocab: usize) -> StepPlan {
    let shape = StepShape::of(config);
    let step = TrainStep::build(&config.model, vocab, shape, &config.optim);
    let (graph, sections) = (&step.plan.graph, step.sections);
    let (mut ops, mut total) = (BTreeMap::<_, OpTraffic>::new(), OpTraffic::default());
    for (section, runs) in [(sections.begin, 1), (sections.micro, shape.accum), (sections.update, 1)] {
        for node in &graph.nodes[section.nodes()] {
            let (bytes, again) = (moved(graph, node), read_again(graph, node));
            let launches = node.op.passes.iter().filter(|pass| !(pass.grid)(&node.args).contains(&0)).count();
            for sum in [ops.entry(node.op.name).or_default(), &mut total] {
                sum.launches += runs * launches;
                sum.bytes += runs as u64 * bytes;
                sum.tiled_bytes += runs as u64 * (bytes + again);
            }
        }
    }
    StepPlan {
        ops,
        total,
        least_bytes: least_bytes(config, vocab),
        buffer_bytes: step.plan.bytes() + step.plan.scratch(),
        temporary_bytes: step.plan.temp_bytes() + step.plan.scratch(),
    }
}

/// Bytes that a node reads and writes.
pub(super) fn moved(graph: &Graph, node: &Node) -> u64 {
    let parts = parts(node);
    let of_binding = |(i, t): (usize, &crate::graph::TensorId)| {
        let tensor = graph.tensor(*t);
        let times = if node.op.bindings[i].access == Access::ReadWrite { 2 } else { 1 };
        let elements = parts.get(i).copied().flatten().unwrap_or(times * tensor.elements() as u64);
        elements * tensor.dtype.bytes() as u64
    };
    let handed_on = node.op.scratch.map_or(0, |words| 2 * 4 * words(&node.args) as u64);
    node.tensors.iter().enumerate().map(of_binding).sum::<u64>() + handed_on
}

/// Elements that a node reads and writes of each tensor, where it is not all of them, or a tensor that it could read is only
/// written.
fn parts(node: &Node) -> Vec<Option<u64>> {
    fn args<A: Args>(node: &Node) -> A {
        A::from_words(&node.args)
    }
    let n = |factors: &[u32]| Some(factors.iter().map(|f| u64::from(*f)).product::<u64>());
    // A result that is added to is read too.
    let kept = |beta: f32| if beta == 0.0 { 1 } else { 2 };
    match node.op.name {
        "matmul" => {
            let a: matmul::MatmulArgs = args(node);
            vec![n(&[a.batch, a.m, a.k]), n(&[a.batch, a.k, a.n]), n(&[kept(a.beta), a.batch, a.m, a.n])]
        }
        "ternary_matmul" => {
            let a: ternary_matmul::TernaryMatmulArgs = args(node);
            vec![n(&[a.rows, a.dim]), n(&[a.rows])]
        }
        "ternary_matmul_backward_input" => {
            let a: ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs = args(node);
            vec![None, None, None, n(&[kept(a.beta), a.rows, a.dim])]
        }
        "ternary_matmul_backward_weight" => {
            let a: ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs = args(node);
            vec![None, n(&[a.rows, a.dim]), n(&[a.rows])]
        }
        "rms_norm_backward" => {
            let a: rms_norm_backward::RmsNormBackwardArgs = args(node);
            vec![None, None, None, None, n(&[kept(a.beta), a.rows, a.dim])]
        }
        "rope" => {
            let a: rope::RopeArgs = args(node);
            vec![n(&[2, a.rows, a.heads, a.head_dim])]
        }
        "swiglu" => {
            let a: swiglu::SwigluArgs = args(node);
            vec![n(&[a.rows, a.cols]); 2]
        }
        "attention_backward_q" => {
            let a: attention_backward_q::AttentionBackwardQArgs = args(node);
            vec![None, None, None, None, n(&[a.batch, a.seq, a.heads, a.head_dim])]
        }
        "attention_backward_kv" => {
            let a: attention_backward_kv::AttentionBackwardKvArgs = args(node);
            vec![None, None, None, None, n(&[2, a.batch, a.seq, a.kv_heads, a.head_dim])]
        }
        "embedding" => {
            let a: embedding::EmbeddingArgs = args(node);
            vec![None, n(&[a.rows, a.dim]), n(&[a.rows, a.dim])]
        }
        "embedding_backward" => {
            let a: embedding_backward::EmbeddingBackwardArgs = args(node);
            vec![None, None, None, n(&[2, a.rows, a.dim])]
        }
        "cross_entropy_partial" => {
            let a: cross_entropy_partial::CrossEntropyPartialArgs = args(node);
            let blocks = a.cols.div_ceil(cpu_kernels::simd::math::BLOCK as u32);
            vec![n(&[a.rows]), n(&[a.rows, a.cols]), n(&[2, a.rows, blocks]), n(&[a.rows])]
        }
        "cross_entropy" => {
            let a: cross_entropy::CrossEntropyArgs = args(node);
            vec![n(&[a.rows]), None, None, n(&[a.rows])]
        }
        "cross_entropy_gradient" => {
            let a: cross_entropy_gradient::CrossEntropyGradientArgs = args(node);
            vec![n(&[a.rows]), None, n(&[2, a.rows, a.cols])]
        }
        "sum_squares" => {
            let a: sum_squares::SumSquaresArgs = args(node);
            vec![n(&[a.n, a.rows]), n(&[a.rows, a.n.div_ceil(cpu_kernels::simd::math::BLOCK as u32)])]
        }
        "muon_momentum" => {
            let a: muon_momentum::MuonMomentumArgs = args(node);
            let all = [a.rows, a.cols, a.batch];
            vec![n(&all), None, n(&[2, n32(&all)]), n(&all)]
        }
        "muon_momentum_bf16" => {
            let a: muon_momentum_bf16::MuonStateArgs = args(node);
            let all = [a.rows, a.cols, a.batch];
            vec![n(&all), None, None, n(&[2, n32(&all)]), n(&all)]
        }
        "muon_momentum_int8" => {
            let a: muon_momentum_int8::MuonStateArgs = args(node);
            let all = [a.rows, a.cols, a.batch];
            let scales = n(&[2, a.rows, a.cols.div_ceil(STATE_BLOCK as u32), a.batch]);
            vec![n(&all), None, None, n(&[2, n32(&all)]), scales, n(&all)]
        }
        "muon_update" => {
            let a: muon_update::MuonUpdateArgs = args(node);
            let all = [a.rows, a.cols, a.batch];
            vec![n(&all), None, None, n(&[2, n32(&all)])]
        }
        _ => Vec::new(),
    }
}

fn n32(factors: &[u32]) -> u32 {
    factors.iter().product()
}

/// Bytes of the factors of a product that are read again, if every tile of the result reads its rows and columns.
fn read_again(graph: &Graph, node: &Node) -> u64 {
    if (node.op.flops)(&node.args) == 0 || node.op.name.starts_with("attention") {
        return 0;
    }
    let grids = node.op.passes.iter().map(|pass| (pass.grid)(&node.args));
    let Some([across, down, _]) = grids.into_iter().find(|grid| !grid.contains(&0)) else { return 0 };
    let parts = parts(node);
    let bytes = |i: usize| {
        let tensor = graph.tensor(node.tensors[i]);
        parts.get(i).copied().flatten().unwrap_or(tensor.elements() as u64) * tensor.dtype.bytes() as u64
    };
    // The left factor, and the right one, of which each is one tensor or two.
    let (left, right): (&[usize], &[usize]) = match node.op.name {
        "ternary_matmul" => (&[0, 1], &[2, 3]),
        "ternary_matmul_backward_input" => (&[0], &[1, 2]),
        "ternary_matmul_backward_weight" => (&[0], &[1, 2]),
        _ => (&[0], &[1]),
    };
    let sum = |factor: &[usize]| factor.iter().map(|i| bytes(*i)).sum::<u64>();
    u64::from(across - 1) * sum(left) + u64::from(down - 1) * sum(right)
}

/// The bytes that a training step moves at least, whatever the ops are: each product reads its factors once and writes its result
/// once, where the product that ends a sub-layer also adds the residual; every other step of the algorithm (normalisation with
/// quantisation, attention with rotation, the gated unit, loss, their gradients) reads what it needs once and writes what it makes
/// once; a gradient of a weight is written once a micro-batch; rounding, the norm of the gradients and the optimizers read and
/// write each parameter and its state once, and Muon's products what they need.
pub fn least_bytes(config: &Config, vocab: usize) -> u64 {
    let (c, train) = (&config.model, &config.train);
    let rows = (train.batch_size * config.seq_len()) as u64;
    let [dim, q, kv, ffn, vocab, layers, streams] =
        [c.dim, c.attention_dim(), c.kv_heads * c.head_dim(), c.ffn, vocab, c.layers, c.mhc_streams].map(|n| n as u64);
    let floats = |n: u64| 4 * n;
    // Layers, each as often as a token passes it.
    let passes = c.schedule().len() as u64;
    // A matrix as products read it, and its input.
    let weight = |outs: u64, inputs: u64| {
        let scales = floats(outs * inputs / c.group(inputs as usize) as u64);
        if c.is_ternary() { outs * inputs / 4 + scales } else { floats(outs * inputs) }
    };
    let input = |inputs: u64| if c.is_ternary() { rows * inputs + floats(rows) } else { floats(rows * inputs) };
    let matrices = [(q + 2 * kv, dim), (dim, q), (2 * ffn, dim), (dim, ffn)];
    let each = |of: &dyn Fn(u64, u64) -> u64| matrices.iter().map(|(outs, inputs)| of(*outs, *inputs)).sum::<u64>();

    let products = each(&|outs, inputs| input(inputs) + weight(outs, inputs) + floats(rows * outs));
    let gradients = each(&|outs, inputs| {
        let to_input = floats(rows * outs) + weight(outs, inputs) + floats(rows * inputs);
        to_input + floats(rows * outs) + input(inputs) + floats(outs * inputs)
    });
    // The normalised vectors of a layer.
    let normed = 2 * dim + if c.sub_norm { q + ffn } else { 0 };
    let norms = floats(rows * normed) + input(normed);
    let norm_gradients = floats(rows * (3 * normed + 2 * dim));
    // Streams are read and mixed before and after a sub-layer.
    let (mixing, mixing_gradients) = match streams {
        1 => (floats(2 * rows * dim), 0),
        n => (floats(2 * rows * dim * (3 * n + 2)), floats(2 * rows * dim * (6 * n + 3))),
    };
    let qkv = q + 2 * kv;
    let attention = floats(rows * (qkv + q));
    let attention_gradient = floats(rows * (2 * qkv + 2 * q));
    let (gated, gated_gradient) = (floats(rows * 3 * ffn), floats(rows * 5 * ffn));
    let forward = passes * (products + norms + mixing + attention + gated);
    let backward = passes * (gradients + norm_gradients + mixing_gradients + attention_gradient + gated_gradient);
    let table = floats(vocab * dim);
    let head = floats(rows * (3 * dim + 6 * vocab)) + 3 * table;
    let ends = floats(rows * dim * (2 + 3 + 5)) + head;
    let micro = if train.recompute { 2 } else { 1 } * forward + backward + ends;

    let inside = layers * each(&|outs, inputs| outs * inputs);
    let tables = vocab * dim * if c.tie_embeddings { 1 } else { 2 };
    let rounding = floats(inside + tables) + layers * each(&weight) + floats(tables);
    // Of each value of a table: its gradient and weight, the new weight, and its moments before and after.
    let moments = if config.optim.aux == Aux::AdamW { 2 } else { 1 };
    let aux = floats(3 * tables) + 2 * moments * config.optim.state.bytes(tables);
    // X X^T, its polynomial and that times X, of every matrix X along its short side.
    let squares = 2 * dim.min(q).pow(2) + 2 * dim.min(kv).pow(2) + 3 * dim.min(ffn).pow(2);
    let iteration = floats(3 * inside + 4 * layers * squares);
    let momentum = floats(2 * inside) + 2 * config.optim.state.bytes(inside);
    let muon = momentum + floats(inside * (1 + 3)) + config.optim.muon_steps as u64 * iteration;
    train.grad_accum as u64 * micro + rounding + floats(inside + tables) + aux + muon
}
