//! Fusion: in a decode step of few rows, sequences of nodes become one dispatch each, since starting them takes longer than their
//! work. The graph stays as it is: a program runs the nodes themselves where a range ends within a sequence, and where the
//! device allows fewer buffers than the fused shader has.
//!
//! A fused shader is an op outside of the op table. Its words of `Args` are listed in the function that makes them.

use crate::graph::{Access, Binding, DType, Graph, Kind, Node, Op, Pass, TensorId};
use crate::ops::{self, wgsl};
use cpu_kernels::ops::attention_cached::AttentionCachedArgs;
use cpu_kernels::ops::kv_append::KvAppendArgs;
use cpu_kernels::ops::quantize_rows::QuantizeRowsArgs;
use cpu_kernels::ops::rms_norm_quantize::RmsNormQuantizeArgs;
use cpu_kernels::ops::rope::RopeArgs;
use cpu_kernels::ops::swiglu::SwigluArgs;
use cpu_kernels::ops::ternary_matmul::TernaryMatmulArgs;
use cpu_kernels::{ArgWords, Args, Call, Kernel};
use std::ops::Range;

/// Most rows of a step whose nodes are fused.
const FEW_ROWS: u32 = 8;
/// Words of workgroup memory for the codes of four rows, `ROOM` of the shaders; less where other values are held too.
const ROOM: u32 = 3584;
const ROOM_BESIDE_VALUES: u32 = 1024;
/// Most values and heads of a row of attention.
const MOST_VALUES: u32 = 2560;
const MOST_HEADS: u32 = 64;

/// Nodes, and what runs instead of them.
pub struct Fused {
    /// The nodes.
    pub nodes: Range<usize>,
    /// Nodes of fused ops.
    pub instead: Vec<Node>,
}

macro_rules! fused {
    ($id:ident = $name:literal($($field:ident: $ty:ident),*) [$($buf:ident: $access:ident $dtype:ident),* $(,)?]
        grid $grid:expr $(, scratch $scratch:expr)?;) => {
        static $id: Op = Op {
            name: concat!("fused_", $name),
            shader: wgsl!(include_str!(concat!("../../../shaders/fused/", $name, ".wgsl"))),
            kernel: &NO_KERNEL,
            fields: &[$((stringify!($field), stringify!($ty))),*],
            bindings: &[$(Binding { name: stringify!($buf), access: Access::$access, dtype: DType::$dtype }),*],
            passes: &[Pass { entry: "main", grid: $grid }],
            scratch: [$(Some($scratch as fn(&ArgWords) -> usize),)? None][0],
            work: |words| words[..3].iter().map(|n| u64::from(*n)).product(),
            flops: |_| 0,
            grad: crate::graph::Grad::None,
        };
    };
}

/// Tiles of 4 rows by 8 outputs.
fn tiles(words: &ArgWords) -> [u32; 3] {
    [words[1].div_ceil(8), words[0].div_ceil(4), 1]
}

fused! {
    QKV = "qkv"(rows: u32, dim: u32, eps: f32, group: u32, heads: u32, kv_heads: u32, head_dim: u32, slot_pages: u32)
        [x: Read F32, w: Read F32, codes_q: Read U8, scales_q: Read F32, codes_k: Read U8, scales_k: Read F32, codes_v: Read U8,
        scales_v: Read F32, positions: Read U32, table: Read F32, slots: Read U32, pages: Read U32, q: Write F32,
        k: ReadWrite F32, v: ReadWrite F32]
        grid |w| [(w[4] + 2 * w[5]) * (w[6] / 8), w[0].div_ceil(4), 1];
}
fused! {
    ATTENTION_OUT = "attention_out"
        (rows: u32, outs: u32, dim: u32, eps: f32, group: u32, head_dim: u32, blocks: u32)
        [w: Read F32, codes: Read U8, scales: Read F32, stream: Read F32, y: Write F32]
        grid tiles, scratch |_| 0;
}
fused! {
    GATE_UP = "gate_up"(rows: u32, outs: u32, dim: u32, eps: f32, group: u32, squared: u32)
        [x: Read F32, w: Read F32, codes_gate: Read U8, scales_gate: Read F32, codes_up: Read U8, scales_up: Read F32,
        y: Write F32]
        grid tiles;
}
fused! {
    DOWN = "down"(rows: u32, outs: u32, dim: u32, eps: f32, group: u32)
        [x: Read F32, w: Read F32, codes: Read U8, scales: Read F32, stream: Read F32, y: Write F32]
        grid tiles;
}

/// `attention_cached` without its last pass.
static PARTS: Op = Op {
    name: "attention_parts",
    shader: ops::ATTENTION_CACHED.shader,
    kernel: ops::ATTENTION_CACHED.kernel,
    fields: ops::ATTENTION_CACHED.fields,
    bindings: ops::ATTENTION_CACHED.bindings,
    passes: ops::ATTENTION_CACHED.passes.split_at(1).0,
    scratch: ops::ATTENTION_CACHED.scratch,
    work: ops::ATTENTION_CACHED.work,
    flops: ops::ATTENTION_CACHED.flops,
    grad: ops::ATTENTION_CACHED.grad,
};

/// All fused shaders.
pub static FUSED: &[&Op] = &[&QKV, &ATTENTION_OUT, &GATE_UP, &DOWN];

#[expect(unsafe_code, reason = "a kernel promises what it does with buffers")]
// SAFETY: it touches no buffer.
static NO_KERNEL: Kernel = unsafe { Kernel::new(no_kernel) };

#[expect(unsafe_code, reason = "the type of kernels")]
unsafe fn no_kernel(_: &Call<'_>) {
    unreachable!("a fused op runs on a GPU");
}

/// The sequences of a graph that can be fused, in order.
pub fn fuse(graph: &Graph) -> Vec<Fused> {
    // The first node that uses a tensor, and the one behind the last.
    let mut uses: Vec<[usize; 2]> = vec![[usize::MAX, 0]; graph.tensors.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for t in &node.tensors {
            let uses = &mut uses[t.index()];
            *uses = [uses[0].min(i), i + 1];
        }
    }
    let (mut found, mut i) = (Vec::new(), 0);
    while i < graph.nodes.len() {
        let at = At(graph, i);
        let fused = at.qkv().or_else(|| at.attention_out()).or_else(|| at.gate_up()).or_else(|| at.down());
        match fused.filter(|fused| hides_nothing(graph, &uses, fused)) {
            Some(fused) => {
                i = fused.nodes.end;
                found.push(fused);
            }
            None => i += 1,
        }
    }
    found
}

/// The nodes of each sequence that can be fused. A plan that keeps temporaries through them allows it.
pub fn fusible(graph: &Graph) -> Vec<Range<usize>> {
    fuse(graph).into_iter().map(|fused| fused.nodes).collect()
}

/// Dispatches of a range of nodes, with every sequence in it fused.
pub fn dispatches(graph: &Graph, nodes: Range<usize>) -> usize {
    let fused = fuse(graph).into_iter().filter(|f| nodes.start <= f.nodes.start && f.nodes.end <= nodes.end);
    let (mut total, mut left) = (0, nodes.clone().collect::<std::collections::BTreeSet<usize>>());
    for Fused { nodes, instead } in fused {
        total += instead.iter().map(passes).sum::<usize>();
        nodes.for_each(|i| _ = left.remove(&i));
    }
    total + left.into_iter().map(|i| passes(&graph.nodes[i])).sum::<usize>()
}

fn passes(node: &Node) -> usize {
    node.op.passes.iter().filter(|pass| !(pass.grid)(&node.args).contains(&0)).count()
}

/// Whether what the nodes write is written by the fused nodes too, or read by no other node.
fn hides_nothing(graph: &Graph, uses: &[[usize; 2]], fused: &Fused) -> bool {
    let nodes = &fused.nodes;
    let written: Vec<TensorId> = fused.instead.iter().flat_map(|node| graph.outputs(node)).collect();
    let within = |t: TensorId| {
        let [start, end] = uses[t.index()];
        graph.tensor(t).kind == Kind::Temp && nodes.start <= start && end <= nodes.end
    };
    graph.nodes[nodes.clone()].iter().flat_map(|node| graph.outputs(node)).all(|t| written.contains(&t) || within(t))
}

/// The place of a node in a graph.
#[derive(Clone, Copy)]
struct At<'g>(&'g Graph, usize);

/// Quantised rows, after normalisation if there is one.
struct Input {
    x: TensorId,
    w: Option<TensorId>,
    eps: f32,
    rows: u32,
    dim: u32,
    codes: TensorId,
    step: TensorId,
}

/// A product of quantised rows with a ternary matrix.
struct Product {
    codes: TensorId,
    scales: TensorId,
    y: TensorId,
    outs: u32,
    group: u32,
}

impl<'g> At<'g> {
    /// The node here if it is of this op, with its arguments; moves on.
    fn take<A: Args>(&mut self, op: &Op) -> Option<(A, &'g [TensorId])> {
        let node = self.0.nodes.get(self.1).filter(|node| node.op.name == op.name)?;
        self.1 += 1;
        Some((A::from_words(&node.args), &node.tensors))
    }

    fn input(&mut self) -> Option<Input> {
        let input = match self.take(&ops::RMS_NORM_QUANTIZE) {
            Some((RmsNormQuantizeArgs { rows, dim, eps }, t)) => {
                Input { x: t[0], w: Some(t[1]), eps: (eps >= 0.0).then_some(eps)?, rows, dim, codes: t[2], step: t[3] }
            }
            None => {
                let (QuantizeRowsArgs { rows, dim }, t) = self.take(&ops::QUANTIZE_ROWS)?;
                Input { x: t[0], w: None, eps: -1.0, rows, dim, codes: t[1], step: t[2] }
            }
        };
        (input.rows <= FEW_ROWS).then_some(input)
    }

    /// Whether there is room for the codes of a workgroup's rows.
    fn fits(input: &Input, room: u32) -> Option<()> {
        (u64::from(input.rows.min(4)) * u64::from(input.dim) <= u64::from(4 * room)).then_some(())
    }

    fn product(&mut self, of: &Input) -> Option<Product> {
        let (TernaryMatmulArgs { rows, outs, group, x_row, .. }, t) = self.take(&ops::TERNARY_MATMUL)?;
        let all = t[0] == of.codes && t[1] == of.step && rows == of.rows && x_row == 0;
        all.then_some(Product { codes: t[2], scales: t[3], y: t[4], outs, group })
    }

    /// The sum of a product and another tensor: (that tensor, the sum).
    fn sum(&mut self, with: &Product) -> Option<(TensorId, TensorId)> {
        let (_, t) = self.take::<cpu_kernels::ops::add::AddArgs>(&ops::ADD)?;
        let stream = if t[1] == with.y { t[0] } else { t[1] };
        (t[..2].contains(&with.y) && stream != with.y).then_some((stream, t[2]))
    }

    /// What was found since `from`.
    fn fused(self, from: At<'_>, instead: Vec<(&'static Op, Vec<u32>, Vec<TensorId>)>) -> Option<Fused> {
        let node = |(op, words, tensors): (&'static Op, Vec<u32>, Vec<TensorId>)| {
            let mut args = ArgWords::default();
            args[..words.len()].copy_from_slice(&words);
            Node { op, args, tensors }
        };
        Some(Fused { nodes: from.1..self.1, instead: instead.into_iter().map(node).collect() })
    }

    fn qkv(self) -> Option<Fused> {
        let mut at = self;
        let input = at.input()?;
        Self::fits(&input, ROOM)?;
        let [q, k, v] = [at.product(&input)?, at.product(&input)?, at.product(&input)?];
        let [(turn_q, rope_q), (turn_k, rope_k)] = [at.take::<RopeArgs>(&ops::ROPE)?, at.take::<RopeArgs>(&ops::ROPE)?];
        let (keys, append_k) = at.take::<KvAppendArgs>(&ops::KV_APPEND)?;
        let (values, append_v) = at.take::<KvAppendArgs>(&ops::KV_APPEND)?;
        let chained = rope_q[0] == q.y
            && rope_k[0] == k.y
            && rope_q[1..3] == rope_k[1..3]
            && append_k[0] == k.y
            && append_v[0] == v.y
            && append_k[1..4] == append_v[1..4]
            && append_k[1] == rope_q[1];
        let alike = [turn_q.sign, turn_k.sign] == [1.0; 2]
            && [turn_q.first, turn_k.first] == [0; 2]
            && [keys.transposed, values.transposed] == [1, 0]
            && [k.group, v.group] == [q.group; 2]
            && [keys.kv_heads, values.kv_heads, values.head_dim] == [turn_k.heads, turn_k.heads, keys.head_dim]
            && [turn_q.head_dim, turn_k.head_dim] == [keys.head_dim; 2]
            && keys.head_dim.is_multiple_of(8);
        let w = input.w.filter(|_| chained && alike)?;
        let (heads, KvAppendArgs { kv_heads, head_dim, slot_pages, .. }) = (turn_q.heads, keys);
        let words = [input.rows, input.dim, input.eps.to_bits(), q.group, heads, kv_heads, head_dim, slot_pages];
        let [positions, table, slots, pages] = [rope_q[1], rope_q[2], append_k[2], append_k[3]];
        let tensors = [
            [input.x, w, q.codes, q.scales, k.codes],
            [k.scales, v.codes, v.scales, positions, table],
            [slots, pages, q.y, append_k[4], append_v[4]],
        ];
        at.fused(self, vec![(&QKV, words.to_vec(), tensors.concat())])
    }

    fn attention_out(self) -> Option<Fused> {
        let mut at = self;
        let (args, t) = at.take::<AttentionCachedArgs>(&ops::ATTENTION_CACHED)?;
        let input = at.input()?;
        Self::fits(&input, ROOM_BESIDE_VALUES)?;
        let product = at.product(&input)?;
        let (stream, y) = at.sum(&product)?;
        let AttentionCachedArgs { rows, heads, head_dim, slot_pages, .. } = args;
        let good = input.x == t[6] && input.dim == heads * head_dim && rows == input.rows;
        if !good || heads > MOST_HEADS || input.dim > MOST_VALUES {
            return None;
        }
        let blocks = slot_pages.div_ceil(4);
        let words = [rows, product.outs, input.dim, input.eps.to_bits(), product.group, head_dim, blocks];
        let tensors = vec![input.w.unwrap_or(stream), product.codes, product.scales, stream, y];
        let parts = (&PARTS, args.to_words().to_vec(), t.to_vec());
        at.fused(self, vec![parts, (&ATTENTION_OUT, words.to_vec(), tensors)])
    }

    fn gate_up(self) -> Option<Fused> {
        let mut at = self;
        let input = at.input()?;
        Self::fits(&input, ROOM)?;
        let [gate, up] = [at.product(&input)?, at.product(&input)?];
        let (unit, t) = at.take::<SwigluArgs>(&ops::SWIGLU)?;
        let good = t[..2] == [gate.y, up.y] && [gate.outs, gate.group] == [up.outs, up.group];
        let w = input.w.filter(|_| good)?;
        let words = [input.rows, gate.outs, input.dim, input.eps.to_bits(), gate.group, unit.squared];
        let tensors = vec![input.x, w, gate.codes, gate.scales, up.codes, up.scales, t[2]];
        at.fused(self, vec![(&GATE_UP, words.to_vec(), tensors)])
    }

    fn down(self) -> Option<Fused> {
        let mut at = self;
        let input = at.input()?;
        Self::fits(&input, ROOM)?;
        let product = at.product(&input)?;
        let (stream, y) = at.sum(&product)?;
        let words = [input.rows, product.outs, input.dim, input.eps.to_bits(), product.group];
        let tensors = vec![input.x, input.w.unwrap_or(stream), product.codes, product.scales, stream, y];
        at.fused(self, vec![(&DOWN, words.to_vec(), tensors)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::COPY;
    use cpu_kernels::ops::copy::CopyArgs;

    /// The nodes that are fused of a normalised product of so many rows that is added to its input, and whose result `also`
    /// reads.
    fn found(rows: usize, also: impl Fn(&mut Graph, [TensorId; 3])) -> Option<Range<usize>> {
        let mut g = Graph::new();
        let (x, norm) = (g.persistent("x", &[rows, 64], DType::F32), g.persistent("norm", &[64], DType::F32));
        let weight = g.ternary_weight("w", 64, 64, 32);
        let kept = g.persistent("kept", &[rows, 64], DType::F32);
        let quantized = g.rms_norm_quantize(x, norm, 1e-5);
        let product = g.ternary_matmul(quantized, &weight, 0..rows);
        let sum = g.add_tensors(x, product);
        also(&mut g, [product, sum, kept]);
        fusible(&g).pop()
    }

    fn copy(g: &mut Graph, from: TensorId, to: TensorId) {
        g.push(&COPY, CopyArgs { n: 64 }, &[from, to]);
    }

    #[test]
    fn what_another_node_reads_is_not_hidden() {
        assert_eq!(found(1, |g, [_, sum, kept]| copy(g, sum, kept)), Some(0..3));
        assert_eq!(found(1, |g, [product, _, kept]| copy(g, product, kept)), None);
        assert_eq!(found(8, |_, _| ()), Some(0..3));
        assert_eq!(found(9, |_, _| ()), None);
    }
}
