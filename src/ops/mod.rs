//! The op table. It is the only definition of each op's name, `Args`, buffers (with order, access and type), GPU grid, work
//! and gradient.
//!
//! `shaders/<name>.wgsl` and `cpu_kernels/src/ops/<name>.rs` implement the entry; both take the same `Args` and the same
//! buffers. Adding an op touches four places: the shader, the kernel, an entry here, a list of cases in `tests/`. The
//! submodules contain the functions that append an op to a graph, with its shape rules, and those that append its gradient.

mod attention;
mod bitlinear;
mod cache;
mod delta;
mod elementwise;
mod embedding;
mod exits;
mod experts;
mod loss;
mod matmul;
mod mhc;
mod norm;
mod optimizer;
mod sampling;
mod tiles;
mod wgsl;

use crate::graph::{Access, Accumulate, Backward, Binding, DType, Grad, Graph, Op, Pass, TensorId};
use cpu_kernels::Args;
use cpu_kernels::ops::STATE_BLOCK;
use delta::CHUNK;
use std::ops::Range;
use tiles::{LARGE, each_expert, grouped, is_few};
pub(crate) use tiles::{Product, SMALL};

pub use attention::{MAX_HEAD_DIM, MAX_TRAINED_HEAD_DIM, rope_frequencies, rope_table, rope_table_of};
pub use bitlinear::{Int8Weight, MAX_GROUP, QuantRows, TernaryWeight, packed_row_bytes};
pub use cache::{KvCache, PAGE, Places};
pub use cpu_kernels::ops::sample::NO_TOKEN;
pub use delta::{DeltaRows, DeltaSizes, DeltaState, MAX_DELTA_SIZE};
pub use elementwise::Activation;
pub use exits::Exits;
pub use experts::Routing;
pub use loss::{Head, IGNORE, Objective, Targets};
pub(crate) use optimizer::STATS_RING;
pub use optimizer::{AdamW, Lion, Moment, Muon, MuonMatrix, StateForm, StepControl};
pub use sampling::{SampleRow, SamplingState};
#[cfg(target_arch = "wasm32")]
pub(crate) use wgsl::bare;
pub(crate) use wgsl::wgsl;

/// Appends the gradients of `nodes` of the graph, given `seeds`: pairs of one of their outputs and its gradient.
pub fn backward<'g>(g: &'g mut Graph, nodes: Range<usize>, seeds: &[(TensorId, TensorId)]) -> Backward<'g> {
    Backward::append(g, nodes, seeds, Accumulate { copy: &COPY, add: &ADD })
}

/// Threads in a workgroup of every shader except matrix products.
const WORKGROUP: u32 = 64;
/// Rows that a workgroup of attention owns.
const TILE: u32 = 64;
/// Most rows of a matrix product that is bound by reading its right factor, as in decoding.
const FEW_ROWS: u32 = 8;
/// Most rows of attention over a cache for which keys are split into blocks of four pages.
const SPLIT_ROWS: u32 = 16;
/// Most workgroups in x; further ones go to y. A power of two below WebGPU's limit of 65,535 in a dimension.
const FOLD: u32 = 32_768;
/// Elements that are reduced to one partial result.
const BLOCK: u32 = cpu_kernels::simd::math::BLOCK as u32;
/// Rows, sorted by id, that a workgroup of the embedding's gradient adds up.
const ID_ROWS: u32 = 32;
/// Rows whose gradients through a norm a workgroup makes, with the sum of what they give to the gradient of its weight.
const NORM_ROWS: u32 = 16;
/// Columns of which a workgroup adds up these sums.
const NORM_COLUMNS: u32 = 16;

/// `n` workgroups, folded into two dimensions; the shader numbers them x + y * num_workgroups.x.
fn groups(n: u32) -> [u32; 3] {
    [n.min(FOLD), n.div_ceil(FOLD), 1]
}

/// One thread for each of `n` elements.
fn elements(n: u32) -> [u32; 3] {
    groups(n.div_ceil(WORKGROUP))
}

/// One thread for each four of `n` elements.
fn quads(n: u32) -> [u32; 3] {
    elements(n.div_ceil(4))
}

/// One workgroup for each 32 x 32 elements of each matrix of a batch.
fn squares(rows: u32, cols: u32, batch: u32) -> [u32; 3] {
    [cols.div_ceil(32), rows.div_ceil(32), batch]
}

/// One workgroup for each four blocks of optimizer state, which lie in rows.
fn state_blocks(rows: u32, cols: u32) -> [u32; 3] {
    groups((rows * cols.div_ceil(STATE_BLOCK as u32)).div_ceil(4))
}

/// One workgroup for each 4 rows x 8 columns of each matrix of a batch, for products of at most [`FEW_ROWS`] rows.
fn few_rows(m: u32, n: u32, batch: u32) -> [u32; 3] {
    [n.div_ceil(8), m.div_ceil(4), batch]
}

/// One workgroup for each block of 1,024 tokens of each row.
fn sample_blocks(a: cpu_kernels::ops::sample::SampleArgs) -> [u32; 3] {
    [a.vocab.div_ceil(1024), a.rows, 1]
}

/// A product of `kind` 2 has a matrix for each expert, the others rows that are sorted by expert. All have large tiles.
fn grouped_matmul(a: cpu_kernels::ops::grouped_matmul::GroupedMatmulArgs) -> [u32; 3] {
    match a.kind {
        0 => grouped(LARGE, true, a.outs, a.rows, a.experts),
        1 => grouped(LARGE, true, a.dim, a.rows, a.experts),
        _ => each_expert(LARGE, true, [a.outs, a.dim], a.experts),
    }
}

fn product(factors: &[u32]) -> u64 {
    factors.iter().map(|f| u64::from(*f)).product()
}

macro_rules! access {
    (r) => {
        Access::Read
    };
    (w) => {
        Access::Write
    };
    (rw) => {
        Access::ReadWrite
    };
}

macro_rules! ops {
    ($($id:ident = $name:ident($args:ident) [$($buf:ident: $access:ident $dtype:ident),* $(,)?]
        grid $grid:expr $(, pass $entry:ident $more:expr)* $(, scratch $scratch:expr)?, work $work:expr $(, flops $flops:expr)? $(, grad $grad:expr)?;)*) => {
        $(#[doc = concat!("The op `", stringify!($name), "`: `shaders/", stringify!($name), ".wgsl`.")]
        pub static $id: Op = Op {
            name: stringify!($name),
            shader: wgsl!(include_str!(concat!("../../shaders/", stringify!($name), ".wgsl"))),
            kernel: &cpu_kernels::ops::$id,
            fields: cpu_kernels::ops::$name::$args::FIELDS,
            bindings: &[$(Binding { name: stringify!($buf), access: access!($access), dtype: DType::$dtype }),*],
            passes: &[
                Pass {
                    entry: "main",
                    grid: |words| {
                        let grid: fn(cpu_kernels::ops::$name::$args) -> [u32; 3] = $grid;
                        grid(Args::from_words(words))
                    },
                },
                $(Pass {
                    entry: stringify!($entry),
                    grid: |words| {
                        let grid: fn(cpu_kernels::ops::$name::$args) -> [u32; 3] = $more;
                        grid(Args::from_words(words))
                    },
                },)*
            ],
            scratch: {
                let scratch: &[fn(&cpu_kernels::ArgWords) -> usize] = &[$(|words| {
                    let scratch: fn(cpu_kernels::ops::$name::$args) -> usize = $scratch;
                    scratch(Args::from_words(words))
                })?];
                scratch.first().copied()
            },
            work: |words| {
                let work: fn(cpu_kernels::ops::$name::$args) -> u64 = $work;
                work(Args::from_words(words))
            },
            flops: |_words| {
                #[allow(unused_mut, unused_assignments, reason = "most ops count no flops")]
                let mut flops: fn(cpu_kernels::ops::$name::$args) -> u64 = |_| 0;
                $(flops = $flops;)?
                flops(Args::from_words(_words))
            },
            grad: {
                #[allow(unused_imports, reason = "some ops have no gradient")]
                use Grad::{Append, StraightThrough};
                [$($grad,)? Grad::None][0]
            },
        };)*

        /// All ops.
        pub static TABLE: &[&Op] = &[$(&$id),*];
    };
}

ops! {
    EMBEDDING = embedding(EmbeddingArgs) [ids: r U32, table: r F32, y: rw F32]
        grid |a| elements(a.rows * a.dim), work |a| product(&[a.rows, a.dim]);
    EMBEDDING_BACKWARD = embedding_backward(EmbeddingBackwardArgs) [ids: r U32, order: r U32, dy: r F32, dtable: rw F32]
        grid |a| groups(a.rows.div_ceil(ID_ROWS) * a.dim.div_ceil(WORKGROUP)),
        pass longer_runs |a| groups(a.rows.div_ceil(ID_ROWS) * a.dim.div_ceil(WORKGROUP)),
        scratch |a| a.rows.div_ceil(ID_ROWS) as usize * a.dim as usize, work |a| product(&[a.rows, a.dim]);

    EMBEDDING_F16 = embedding_f16(EmbeddingArgs) [ids: r U32, table: r F16, y: rw F32]
        grid |a| elements(a.rows * a.dim), work |a| product(&[a.rows, a.dim]);
    EMBEDDING_INT8 = embedding_int8(EmbeddingInt8Args) [ids: r U32, codes: r I8, scales: r F32, y: rw F32]
        grid |a| elements(a.rows * a.dim), work |a| product(&[a.rows, a.dim]);

    RMS_NORM = rms_norm(RmsNormArgs) [x: r F32, w: r F32, y: w F32, rstd: w F32]
        grid |a| groups(a.rows), work |a| product(&[a.rows, a.dim, 2]), grad Append(norm::rms_norm_grad);
    RMS_NORM_QUANTIZE = rms_norm_quantize(RmsNormQuantizeArgs) [x: r F32, w: r F32, xq: w I8, step: w F32, rstd: w F32]
        grid |a| groups(a.rows), work |a| product(&[a.rows, a.dim, 4]), grad Append(norm::rms_norm_quantize_grad);
    RMS_NORM_BACKWARD = rms_norm_backward(RmsNormBackwardArgs)
        [x: r F32, w: r F32, rstd: r F32, dy: r F32, dx: rw F32, dw: rw F32]
        grid |a| groups(a.rows.div_ceil(NORM_ROWS)), pass finish |a| [a.dim.div_ceil(NORM_COLUMNS), 1, 1],
        scratch |a| a.rows.div_ceil(NORM_ROWS) as usize * a.dim as usize, work |a| product(&[a.rows, a.dim, 6]);
    SUM_ROWS = sum_rows(SumRowsArgs) [x: r F32, y: rw F32]
        grid |a| elements(a.cols), work |a| product(&[a.rows, a.cols]);

    QUANTIZE_ROWS = quantize_rows(QuantizeRowsArgs) [x: r F32, xq: w I8, step: w F32]
        grid |a| groups(a.rows), work |a| product(&[a.rows, a.dim, 2]), grad StraightThrough;
    TERNARY_QUANTIZE = ternary_quantize(TernaryQuantizeArgs) [w: r F32, codes: rw U8, scales: rw F32]
        grid |a| groups(a.rows), work |a| product(&[a.rows, a.dim, 2]), grad StraightThrough;
    MEAN_SCALE = mean_scale(MeanScaleArgs) [sums: r F32, scales: w F32]
        grid |_| [1, 1, 1], work |a| product(&[a.n, 2]);
    TERNARY_MATMUL = ternary_matmul(TernaryMatmulArgs)
        [xq: r I8, step: r F32, codes: r U8, scales: r F32, y: w F32]
        grid |a| match a.rows {
            ..=FEW_ROWS => few_rows(a.rows, a.outs, 1),
            _ => [a.outs.div_ceil(32), a.rows.div_ceil(32), 1],
        },
        work |a| product(&[a.rows, a.outs, a.dim]),
        flops |a| product(&[2, a.rows, a.outs, a.dim]), grad Append(bitlinear::ternary_matmul_grad);
    TERNARY_MATMUL_BACKWARD_INPUT = ternary_matmul_backward_input(TernaryMatmulBackwardInputArgs)
        [dy: r F32, codes: r U8, scales: r F32, dx: rw F32]
        grid |a| Product::from(a).tiles(SMALL), pass large |a| Product::from(a).tiles(LARGE),
        pass finish |a| Product::from(a).sums(SMALL), pass finish_large |a| Product::from(a).sums(LARGE),
        scratch |a| Product::from(a).scratch(),
        work |a| product(&[a.rows, a.outs, a.dim]),
        flops |a| product(&[2, a.rows, a.outs, a.dim]);
    TERNARY_MATMUL_BACKWARD_WEIGHT = ternary_matmul_backward_weight(TernaryMatmulBackwardWeightArgs)
        [dy: r F32, xq: r I8, step: r F32, dw: rw F32]
        grid |a| Product::from(a).tiles(SMALL), pass large |a| Product::from(a).tiles(LARGE),
        pass finish |a| Product::from(a).sums(SMALL), pass finish_large |a| Product::from(a).sums(LARGE),
        scratch |a| Product::from(a).scratch(),
        work |a| product(&[a.rows, a.outs, a.dim]),
        flops |a| product(&[2, a.rows, a.outs, a.dim]);

    INT8_MATMUL = int8_matmul(Int8MatmulArgs) [xq: r I8, step: r F32, codes: r I8, scales: r F32, y: w F32]
        grid |a| few_rows(a.rows, a.outs, 1), work |a| product(&[a.rows, a.outs, a.dim]),
        flops |a| product(&[2, a.rows, a.outs, a.dim]);

    MATMUL = matmul(MatmulArgs) [a: r F32, b: r F32, d: rw F32]
        grid |a| Product::from(a).tiles(SMALL), pass few |a| if is_few(a) { few_rows(a.m, a.n, a.batch) } else { [0; 3] },
        pass large |a| Product::from(a).tiles(LARGE),
        pass finish |a| Product::from(a).sums(SMALL), pass finish_large |a| Product::from(a).sums(LARGE),
        scratch |a| Product::from(a).scratch(),
        work |a| product(&[a.m, a.n, a.k, a.batch]),
        flops |a| product(&[2, a.m, a.n, a.k, a.batch]), grad Append(matmul::matmul_grad);
    MATMUL_F16 = matmul_f16(MatmulArgs) [a: r F32, b: r F16, d: rw F32]
        grid |a| Product::from(a).tiles(SMALL), pass few |a| if is_few(a) { few_rows(a.m, a.n, a.batch) } else { [0; 3] },
        pass large |a| Product::from(a).tiles(LARGE),
        pass finish |a| Product::from(a).sums(SMALL), pass finish_large |a| Product::from(a).sums(LARGE),
        scratch |a| Product::from(a).scratch(),
        work |a| product(&[a.m, a.n, a.k, a.batch]),
        flops |a| product(&[2, a.m, a.n, a.k, a.batch]);
    MATMUL_ADD = matmul_add(MatmulAddArgs) [a: r F32, b: r F32, c: r F32, d: w F32]
        grid |a| Product::from(a).tiles(SMALL), pass large |a| Product::from(a).tiles(LARGE),
        pass finish |a| Product::from(a).sums(SMALL), pass finish_large |a| Product::from(a).sums(LARGE),
        scratch |a| Product::from(a).scratch(),
        work |a| product(&[a.m, a.n, a.k, a.batch]),
        flops |a| product(&[2, a.m, a.n, a.k, a.batch]);

    GROUPED_TERNARY = grouped_ternary(GroupedTernaryArgs)
        [xq: r I8, step: r F32, starts: r U32, codes: r U8, scales: r F32, y: w F32]
        grid |a| match a.rows {
            ..=FEW_ROWS => [a.outs.div_ceil(8), a.rows, 1],
            _ => [a.outs.div_ceil(32), a.rows.div_ceil(32) + a.experts, 1],
        },
        work |a| product(&[a.rows, a.outs, a.dim]),
        flops |a| product(&[2, a.rows, a.outs, a.dim]), grad Append(experts::grouped_ternary_grad);
    GROUPED_TERNARY_BACKWARD_INPUT = grouped_ternary_backward_input(GroupedTernaryBackwardInputArgs)
        [dy: r F32, starts: r U32, codes: r U8, scales: r F32, dx: rw F32]
        grid |a| grouped(SMALL, a.fast != 0, a.dim, a.rows, a.experts), pass large |a| grouped(LARGE, a.fast != 0, a.dim, a.rows, a.experts),
        pass finish |_| [0; 3], pass finish_large |_| [0; 3], scratch |_| 0,
        work |a| product(&[a.rows, a.outs, a.dim]),
        flops |a| product(&[2, a.rows, a.outs, a.dim]);
    GROUPED_TERNARY_BACKWARD_WEIGHT = grouped_ternary_backward_weight(GroupedTernaryBackwardWeightArgs)
        [dy: r F32, xq: r I8, step: r F32, starts: r U32, dw: rw F32]
        grid |a| each_expert(SMALL, a.fast != 0, [a.outs, a.dim], a.experts),
        pass large |a| each_expert(LARGE, a.fast != 0, [a.outs, a.dim], a.experts),
        pass finish |_| [0; 3], pass finish_large |_| [0; 3], scratch |_| 0,
        work |a| product(&[a.rows, a.outs, a.dim]),
        flops |a| product(&[2, a.rows, a.outs, a.dim]);
    GROUPED_MATMUL = grouped_matmul(GroupedMatmulArgs) [a: r F32, b: r F32, starts: r U32, d: rw F32]
        grid |a| grouped_matmul(a), scratch |_| 0, work |a| product(&[a.rows, a.outs, a.dim]),
        flops |a| product(&[2, a.rows, a.outs, a.dim]), grad Append(experts::grouped_matmul_grad);

    MOE_ROUTE = moe_route(MoeRouteArgs)
        [x: r F32, w: r F32, bias: r F32, logits: w F32, chosen: w U32, weights: w F32]
        grid |a| groups(a.rows), work |a| product(&[a.rows, a.dim, a.experts]),
        flops |a| product(&[2, a.rows, a.dim, a.experts]), grad Append(experts::moe_route_grad);
    MOE_ROUTE_BACKWARD = moe_route_backward(MoeRouteBackwardArgs)
        [chosen: r U32, weights: r F32, dweights: r F32, dlogits: rw F32]
        grid |a| elements(a.rows), work |a| product(&[a.rows, a.experts, 2]);
    MOE_SORT = moe_sort(MoeSortArgs) [chosen: r U32, place: w U32, starts: w U32]
        grid |a| groups(a.experts), work |a| product(&[a.n]);
    MOE_DISPATCH = moe_dispatch(MoeDispatchArgs) [x: r F32, place: r U32, y: w F32]
        grid |a| elements(a.n * a.dim), work |a| product(&[a.n, a.dim]), grad Append(experts::moe_dispatch_grad);
    MOE_DISPATCH_BACKWARD = moe_dispatch_backward(MoeDispatchBackwardArgs) [dy: r F32, place: r U32, dx: rw F32]
        grid |a| elements(a.rows * a.dim), work |a| product(&[a.rows, a.k, a.dim]);
    MOE_COMBINE = moe_combine(MoeCombineArgs) [x: r F32, place: r U32, weights: r F32, y: w F32]
        grid |a| elements(a.rows * a.dim), work |a| product(&[a.rows, a.k, a.dim]), grad Append(experts::moe_combine_grad);
    MOE_COMBINE_BACKWARD = moe_combine_backward(MoeCombineBackwardArgs)
        [x: r F32, place: r U32, weights: r F32, dy: r F32, dx: w F32, dweights: w F32]
        grid |a| groups(a.n), work |a| product(&[a.n, a.dim, 3]);
    MOE_TALLY = moe_tally(MoeTallyArgs) [starts: r U32, load: rw F32]
        grid |a| elements(a.experts), work |a| product(&[a.experts]);
    MOE_BIAS = moe_bias(MoeBiasArgs) [load: r F32, ctl: r F32, bias: rw F32, seen: rw F32]
        grid |a| elements(a.layers), work |a| product(&[a.layers, a.experts]);
    MOE_BALANCE = moe_balance(MoeBalanceArgs) [logits: r F32, starts: r U32, value: w F32]
        grid |_| [1, 1, 1], work |a| product(&[a.rows, a.experts, 16]), grad Append(experts::moe_balance_grad);
    MOE_BALANCE_BACKWARD = moe_balance_backward(MoeBalanceBackwardArgs)
        [logits: r F32, starts: r U32, dvalue: r F32, dlogits: w F32]
        grid |a| elements(a.rows), work |a| product(&[a.rows, a.experts, 32]);

    ROPE = rope(RopeArgs) [x: rw F32, positions: r U32, table: r F32]
        grid |a| quads(a.rows * a.heads * a.head_dim), work |a| product(&[a.rows, a.heads, a.head_dim, 2]),
        grad Append(attention::rope_grad);
    // A causal mask leaves half of the scores, of which each product is counted: two forward, three for q and four for k and v,
    // both of which make the scores and their gradients. One kernel would make them once, but workgroups that own keys would add
    // to the same queries in no fixed order.
    ATTENTION = attention(AttentionArgs)
        [qkv: r F32, positions: r U32, y: w F32, lse: w F32]
        grid |a| [a.seq.div_ceil(TILE), a.heads * a.head_dim.div_ceil(128), a.batch],
        work |a| product(&[a.batch, a.seq, a.seq, a.heads, a.head_dim]),
        flops |a| product(&[2, a.batch, a.seq, a.seq, a.heads, a.head_dim]), grad Append(attention::attention_grad);
    ATTENTION_BACKWARD_DELTA = attention_backward_delta(AttentionBackwardDeltaArgs)
        [y: r F32, dy: r F32, lse: r F32, stats: w F32]
        grid |a| groups((a.batch * a.seq * a.heads).div_ceil(8)),
        work |a| product(&[a.batch, a.seq, a.heads, a.head_dim]);
    ATTENTION_BACKWARD_Q = attention_backward_q(AttentionBackwardQArgs)
        [qkv: r F32, dy: r F32, stats: r F32, positions: r U32, dqkv: rw F32]
        grid |a| [a.seq.div_ceil(TILE), a.heads, a.batch],
        work |a| product(&[2, a.batch, a.seq, a.seq, a.heads, a.head_dim]),
        flops |a| product(&[3, a.batch, a.seq, a.seq, a.heads, a.head_dim]);
    ATTENTION_BACKWARD_KV = attention_backward_kv(AttentionBackwardKvArgs)
        [qkv: r F32, dy: r F32, stats: r F32, positions: r U32, dqkv: rw F32]
        grid |a| [a.seq.div_ceil(TILE), a.kv_heads, a.batch],
        work |a| product(&[2, a.batch, a.seq, a.seq, a.heads, a.head_dim]),
        flops |a| product(&[4, a.batch, a.seq, a.seq, a.heads, a.head_dim]);

    KV_APPEND = kv_append(KvAppendArgs)
        [x: r F32, positions: r U32, slots: r U32, pages: r U32, cache: rw F32]
        grid |a| elements(a.rows * a.kv_heads * a.head_dim), work |a| product(&[a.rows, a.kv_heads, a.head_dim]);
    ATTENTION_CACHED = attention_cached(AttentionCachedArgs)
        [q: r F32, k: r F32, v: r F32, positions: r U32, slots: r U32, pages: r U32, y: w F32]
        grid |a| [if a.rows <= SPLIT_ROWS { a.slot_pages.div_ceil(4) } else { 1 }, a.heads, a.rows],
        pass combine |a| [1, a.heads, if a.rows <= SPLIT_ROWS { a.rows } else { 0 }],
        scratch |a| if a.rows <= SPLIT_ROWS {
            product(&[a.rows, 1 + a.heads * a.slot_pages.div_ceil(4) * (2 + a.head_dim)]) as usize
        } else {
            0
        },
        work |a| product(&[2, a.rows, a.slot_pages, PAGE as u32, a.heads, a.head_dim]);
    SHORT_CONV = short_conv(ShortConvArgs)
        [x: r F32, w: r F32, positions: r U32, slots: r U32, tail: rw F32, y: rw F32]
        grid |a| elements(a.rows * a.cols),
        pass store |a| if a.seq == 0 { elements(a.rows * a.cols) } else { [0; 3] },
        work |a| product(&[a.rows, a.cols, 16 + a.width]), grad Append(delta::short_conv_grad);
    SHORT_CONV_BACKWARD = short_conv_backward(ShortConvBackwardArgs)
        [x: r F32, w: r F32, positions: r U32, dy: r F32, dx: w F32, dw: rw F32]
        grid |a| elements(a.rows * a.cols), pass input |a| elements(a.rows * a.cols),
        pass weight |a| elements(a.rows.div_ceil(64) * a.width * a.cols), pass finish |a| elements(a.width * a.cols),
        scratch |a| (a.rows as usize + (a.rows.div_ceil(64) * a.width) as usize) * a.cols as usize,
        work |a| product(&[a.rows, a.cols, 24 + 3 * a.width]);
    DELTA_GATES = delta_gates(DeltaGatesArgs) [x: r F32, p: r F32, y: w F32]
        grid |a| elements(2 * a.rows * a.heads), work |a| product(&[a.rows, a.heads, 64]),
        grad Append(delta::delta_gates_grad);
    DELTA_GATES_BACKWARD = delta_gates_backward(DeltaGatesBackwardArgs)
        [x: r F32, p: r F32, y: r F32, dy: r F32, dx: w F32, dp: rw F32]
        grid |a| groups(a.heads), work |a| product(&[a.rows, a.heads, 64]);
    DELTA_RULE = delta_rule(DeltaRuleArgs)
        [x: r F32, gates: r F32, positions: r U32, slots: r U32, state: rw F32, y: w F32]
        grid |a| [a.value_size.div_ceil(16), a.heads, a.rows.checked_div(a.seq).unwrap_or(a.rows)],
        work |a| product(&[4, a.rows, a.heads, a.key_size, a.value_size]), grad Append(delta::delta_rule_grad);
    DELTA_RULE_BACKWARD = delta_rule_backward(DeltaRuleBackwardArgs)
        [x: r F32, gates: r F32, positions: r U32, states: r F32, dy: r F32, dx: rw F32, dgates: rw F32]
        grid |a| [a.seq.div_ceil(CHUNK), a.count, 1],
        pass correct |a| [a.seq.div_ceil(CHUNK) * a.value_size.div_ceil(64), a.count, 1],
        pass carry |a| [a.value_size.div_ceil(64), a.count, 1],
        pass gradients |a| [a.seq.div_ceil(CHUNK), a.count, 1],
        scratch |a| a.scratch() as usize * a.count as usize,
        work |a| product(&[16, a.count, a.seq, a.key_size, a.value_size]);
    GATHER_ROWS = gather_rows(GatherRowsArgs) [x: r F32, index: r U32, y: w F32]
        grid |a| quads(a.rows * a.dim), work |a| product(&[a.rows, a.dim]);
    EXIT_ROWS = exit_rows(ExitRowsArgs) [logits: r F32, ends: rw U32]
        grid |a| groups(a.rows), work |a| product(&[a.rows, a.vocab, 24]);
    KEEP_ROWS = keep_rows(KeepRowsArgs) [pick: r U32, ends: r U32, old: r F32, next: r F32, y: w F32]
        grid |a| quads(a.streams * a.rows * a.dim), work |a| product(&[a.streams, a.rows, a.dim]);
    MARK_SEEN = mark_seen(MarkSeenArgs) [ids: r U32, slots: r U32, seen: rw U32]
        grid |_| [1, 1, 1], work |a| u64::from(a.rows);
    SAMPLE = sample(SampleArgs) [logits: r F32, bias: r F32, params: r U32, seen: rw U32, tokens: w U32]
        grid |a| sample_blocks(a), pass weigh |a| sample_blocks(a), pass narrow |a| sample_blocks(a),
        pass pick |a| [1, a.rows, 1],
        scratch |a| (a.rows as usize).saturating_mul(4 * 1024 + a.vocab.div_ceil(1024) as usize * (5 + 1024)),
        work |a| product(&[a.rows, a.vocab, 32]);

    SWIGLU = swiglu(SwigluArgs) [gate: r F32, up: r F32, y: w F32]
        grid |a| quads(a.rows * a.cols), work |a| product(&[a.rows, a.cols, 16]), grad Append(elementwise::swiglu_grad);
    SWIGLU_BACKWARD = swiglu_backward(SwigluBackwardArgs) [gate: r F32, up: r F32, dy: r F32, dgate: w F32, dup: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n, 24]);
    SWIGLU_COLUMNS_BACKWARD = swiglu_columns_backward(SwigluColumnsBackwardArgs) [x: r F32, dy: r F32, dx: w F32]
        grid |a| quads(a.rows * a.cols), work |a| product(&[a.rows, a.cols, 24]);
    ADD = add(AddArgs) [a: r F32, b: r F32, y: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n]), grad Append(elementwise::add_grad);
    ADD_BIAS = add_bias(AddBiasArgs) [x: rw F32, bias: r F32]
        grid |a| elements(a.rows * a.cols), work |a| product(&[a.rows, a.cols]), grad Append(elementwise::add_bias_grad);
    COPY = copy(CopyArgs) [x: r F32, y: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n]);
    ROUND_F16 = round_f16(RoundF16Args) [x: r F32, y: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n, 4]), grad StraightThrough;
    FILL = fill(FillArgs) [y: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n]);

    MHC_WEIGHTS = mhc_weights(MhcWeightsArgs) [p: r F32, coef: w F32]
        grid |_| [1, 1, 1], work |_| 1000, grad Append(mhc::mhc_weights_grad);
    MHC_WEIGHTS_BACKWARD = mhc_weights_backward(MhcWeightsBackwardArgs) [p: r F32, coef: r F32, dcoef: r F32, dp: rw F32]
        grid |_| [1, 1, 1], work |_| 1000;
    MHC_EXPAND = mhc_expand(MhcExpandArgs) [x: r F32, y: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n, a.streams]), grad Append(mhc::mhc_expand_grad);
    MHC_COLLAPSE = mhc_collapse(MhcCollapseArgs) [x: r F32, y: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n, a.streams]), grad Append(mhc::mhc_collapse_grad);
    MHC_PRE = mhc_pre(MhcPreArgs) [coef: r F32, x: r F32, u: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n, a.streams]), grad Append(mhc::mhc_pre_grad);
    MHC_PRE_BACKWARD = mhc_pre_backward(MhcPreBackwardArgs) [coef: r F32, du: r F32, dx: rw F32]
        grid |a| quads(a.n), work |a| product(&[a.n, a.streams]);
    MHC_PRE_BACKWARD_COEF = mhc_pre_backward_coef(MhcPreBackwardCoefArgs) [x: r F32, du: r F32, partial: w F32]
        grid |a| groups(a.n.div_ceil(BLOCK)), work |a| product(&[a.n, a.streams]);
    MHC_POST = mhc_post(MhcPostArgs) [coef: r F32, x: r F32, f: r F32, y: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n, a.streams, a.streams]), grad Append(mhc::mhc_post_grad);
    MHC_POST_BACKWARD = mhc_post_backward(MhcPostBackwardArgs) [coef: r F32, dy: r F32, dx: w F32, df: w F32]
        grid |a| quads(a.n), work |a| product(&[a.n, a.streams, a.streams]);
    MHC_POST_BACKWARD_COEF = mhc_post_backward_coef(MhcPostBackwardCoefArgs)
        [x: r F32, f: r F32, dy: r F32, partial: w F32]
        grid |a| groups(a.n.div_ceil(BLOCK)), work |a| product(&[a.n, a.streams, a.streams]);

    CROSS_ENTROPY_PARTIAL = cross_entropy_partial(CrossEntropyPartialArgs)
        [targets: r U32, logits: r F32, partial: rw F32, chosen: rw F32]
        grid |a| groups(a.rows * a.cols.div_ceil(BLOCK)), work |a| product(&[a.rows, a.cols, 12]);
    CROSS_ENTROPY = cross_entropy(CrossEntropyArgs)
        [targets: r U32, partial: r F32, chosen: r F32, losses: rw F32, softmax: w F32]
        grid |a| elements(a.rows), work |a| product(&[a.rows, a.blocks, 20]);
    CROSS_ENTROPY_GRADIENT = cross_entropy_gradient(CrossEntropyGradientArgs)
        [targets: r U32, softmax: r F32, logits: rw F32]
        grid |a| groups(a.rows * a.cols.div_ceil(BLOCK)), work |a| product(&[a.rows, a.cols, 12]);
    SOFTMAX_MEAN = softmax_mean(SoftmaxMeanArgs) [logits: r F32, softmax: rw F32]
        grid |a| groups(a.rows), work |a| product(&[a.rows, a.cols, 12]);
    FILTER_TARGETS = filter_targets(FilterTargetsArgs) [losses: r F32, targets: r U32, kept: w U32]
        grid |a| elements(a.rows), work |a| product(&[a.rows, a.seq]);
    JOIN_COLUMNS = join_columns(JoinColumnsArgs) [x: r F32, y: rw F32]
        grid |a| elements(a.rows * a.cols), work |a| product(&[a.rows, a.cols]), grad Append(elementwise::join_columns_grad);
    SUM = sum(SumArgs) [x: r F32, y: rw F32]
        grid |_| [1, 1, 1], work |a| product(&[a.n]);
    SUM_SQUARES = sum_squares(SumSquaresArgs) [x: r F32, partial: rw F32]
        grid |a| groups(a.rows * a.n.div_ceil(BLOCK)), work |a| product(&[a.n, a.rows]);
    FINITE_BF16 = finite_bf16(FiniteBf16Args) [x: r Bf16, partial: rw F32]
        grid |a| groups(a.n.div_ceil(BLOCK)), work |a| product(&[a.n]);
    CLIP = clip(ClipArgs) [partial: r F32, loss: r F32, step: r F32, ctl: rw F32, stats: rw F32]
        grid |_| [1, 1, 1], work |a| product(&[a.partials + a.checks]);

    ADAMW = adamw(AdamwArgs) [g: r F32, ctl: r F32, step: r F32, w: rw F32, m: rw F32, v: rw F32]
        grid |a| quads(a.n), work |a| product(&[a.n, 8]);
    ADAMW_BF16 = adamw_bf16(AdamwStateArgs) [g: r F32, ctl: r F32, step: r F32, w: rw F32, m: rw Bf16, v: rw Bf16]
        grid |a| quads(a.rows * a.cols), work |a| product(&[a.rows, a.cols, 12]);
    ADAMW_INT8 = adamw_int8(AdamwStateArgs)
        [g: r F32, ctl: r F32, step: r F32, w: rw F32, m: rw I8, m_scales: rw F32, v: rw U8, v_scales: rw F32]
        grid |a| state_blocks(a.rows, a.cols), work |a| product(&[a.rows, a.cols, 16]);
    LION = lion(LionArgs) [g: r F32, ctl: r F32, step: r F32, w: rw F32, m: rw F32]
        grid |a| quads(a.n), work |a| product(&[a.n, 4]);
    LION_BF16 = lion_bf16(LionStateArgs) [g: r F32, ctl: r F32, step: r F32, w: rw F32, m: rw Bf16]
        grid |a| quads(a.rows * a.cols), work |a| product(&[a.rows, a.cols, 8]);
    LION_INT8 = lion_int8(LionStateArgs) [g: r F32, ctl: r F32, step: r F32, w: rw F32, m: rw I8, scales: rw F32]
        grid |a| state_blocks(a.rows, a.cols), work |a| product(&[a.rows, a.cols, 10]);
    MUON_MOMENTUM = muon_momentum(MuonMomentumArgs) [g: r F32, ctl: r F32, m: rw F32, x: rw F32]
        grid |a| squares(a.rows, a.cols, a.batch), work |a| product(&[a.rows, a.cols, a.batch, 4]);
    MUON_MOMENTUM_BF16 = muon_momentum_bf16(MuonStateArgs) [g: r F32, ctl: r F32, step: r F32, m: rw Bf16, x: rw F32]
        grid |a| [a.cols.div_ceil(64), a.rows.div_ceil(32), a.batch],
        work |a| product(&[a.rows, a.cols, a.batch, 8]);
    MUON_MOMENTUM_INT8 = muon_momentum_int8(MuonStateArgs)
        [g: r F32, ctl: r F32, step: r F32, m: rw I8, scales: rw F32, x: rw F32]
        grid |a| [a.cols.div_ceil(64), a.rows.div_ceil(32), a.batch],
        work |a| product(&[a.rows, a.cols, a.batch, 10]);
    MUON_NORMALIZE = muon_normalize(MuonNormalizeArgs) [partial: r F32, x: rw F32]
        grid |a| groups(a.batch * a.n.div_ceil(BLOCK)), work |a| product(&[a.n, a.batch]);
    MUON_UPDATE = muon_update(MuonUpdateArgs) [x: r F32, ctl: r F32, step: r F32, w: rw F32]
        grid |a| squares(a.rows, a.cols, a.batch), work |a| product(&[a.rows, a.cols, a.batch, 4]);

    PROBE_COPY = probe_copy(ProbeCopyArgs) [x: r F32, y: w F32]
        grid |a| groups(a.n.div_ceil(4 * WORKGROUP)), work |a| product(&[a.n, 4]);
    PROBE_FMA = probe_fma(ProbeFmaArgs) [y: w F32]
        grid |a| elements(a.n), work |a| a.flops() / 2, flops |a| a.flops();
}
