//! One file for each op, named like its shader: its `Args`, and the kernel that works on one part of the call.
//!
//! The scalar function *defines* the op; SIMD levels agree with it. The constants name the kernels for programs.
#![allow(rustdoc::broken_intra_doc_links, reason = "formulas have indices in brackets")]

pub mod adamw;
pub mod adamw_bf16;
pub mod adamw_int8;
pub mod add;
pub mod add_bias;
pub mod attention;
pub mod attention_backward_delta;
pub mod attention_backward_kv;
pub mod attention_backward_q;
pub mod attention_cached;
pub mod clip;
pub mod copy;
pub mod cross_entropy;
pub mod cross_entropy_gradient;
pub mod cross_entropy_partial;
pub mod delta_gates;
pub mod delta_gates_backward;
pub mod delta_rule;
pub mod delta_rule_backward;
mod documents;
pub mod embedding;
pub mod embedding_backward;
pub mod embedding_f16;
pub mod embedding_int8;
pub mod exit_rows;
mod experts;
pub mod fill;
pub mod filter_targets;
pub mod finite_bf16;
pub mod gather_rows;
pub mod grouped_matmul;
pub mod grouped_ternary;
pub mod grouped_ternary_backward_input;
pub mod grouped_ternary_backward_weight;
pub mod int8_matmul;
pub mod join_columns;
pub mod keep_rows;
pub mod kv_append;
pub mod lion;
pub mod lion_bf16;
pub mod lion_int8;
pub mod mark_seen;
pub mod matmul;
pub mod matmul_add;
pub mod matmul_f16;
pub mod mean_scale;
pub mod mhc_collapse;
pub mod mhc_expand;
pub mod mhc_post;
pub mod mhc_post_backward;
pub mod mhc_post_backward_coef;
pub mod mhc_pre;
pub mod mhc_pre_backward;
pub mod mhc_pre_backward_coef;
pub mod mhc_weights;
pub mod mhc_weights_backward;
pub mod moe_balance;
pub mod moe_balance_backward;
pub mod moe_bias;
pub mod moe_combine;
pub mod moe_combine_backward;
pub mod moe_dispatch;
pub mod moe_dispatch_backward;
pub mod moe_route;
pub mod moe_route_backward;
pub mod moe_sort;
pub mod moe_tally;
pub mod muon_momentum;
pub mod muon_momentum_bf16;
pub mod muon_momentum_int8;
pub mod muon_normalize;
pub mod muon_update;
pub mod probe_copy;
pub mod probe_fma;
pub mod quantize_rows;
pub mod rms_norm;
pub mod rms_norm_backward;
pub mod rms_norm_quantize;
pub mod rope;
pub mod round_f16;
pub mod sample;
pub mod short_conv;
pub mod short_conv_backward;
pub mod softmax_mean;
mod state;
mod streams;
pub mod sum;
pub mod sum_rows;
pub mod sum_squares;
pub mod swiglu;
pub mod swiglu_backward;
pub mod swiglu_columns_backward;
pub mod ternary_matmul;
pub mod ternary_matmul_backward_input;
pub mod ternary_matmul_backward_weight;
pub mod ternary_quantize;

pub use state::STATE_BLOCK;

use crate::Kernel;

macro_rules! kernels {
    ($($id:ident = $name:ident $(packs $packing:path)?,)*) => {
    $(
        #[doc = concat!("The kernel of the op `", stringify!($name), "`.")]
        pub static $id: Kernel = Kernel { run: $name::$name, packing: [$(Some(&$packing),)? None][0] };
    )*
    /// All kernels by name.
    pub static ALL: &[(&str, &Kernel)] = &[$((stringify!($name), &$id)),*];
    };
}

kernels! {
    ADAMW = adamw,
    ADAMW_BF16 = adamw_bf16,
    ADAMW_INT8 = adamw_int8,
    ADD = add,
    ADD_BIAS = add_bias,
    ATTENTION = attention,
    ATTENTION_BACKWARD_DELTA = attention_backward_delta,
    ATTENTION_BACKWARD_KV = attention_backward_kv,
    ATTENTION_BACKWARD_Q = attention_backward_q,
    ATTENTION_CACHED = attention_cached,
    CLIP = clip,
    COPY = copy,
    CROSS_ENTROPY = cross_entropy,
    CROSS_ENTROPY_GRADIENT = cross_entropy_gradient,
    CROSS_ENTROPY_PARTIAL = cross_entropy_partial,
    DELTA_GATES = delta_gates,
    DELTA_GATES_BACKWARD = delta_gates_backward,
    DELTA_RULE = delta_rule,
    DELTA_RULE_BACKWARD = delta_rule_backward,
    EMBEDDING = embedding,
    EMBEDDING_BACKWARD = embedding_backward,
    EMBEDDING_F16 = embedding_f16,
    EMBEDDING_INT8 = embedding_int8,
    EXIT_ROWS = exit_rows,
    FILL = fill,
    FILTER_TARGETS = filter_targets,
    FINITE_BF16 = finite_bf16,
    GATHER_ROWS = gather_rows,
    GROUPED_MATMUL = grouped_matmul,
    GROUPED_TERNARY = grouped_ternary packs grouped_ternary::PACKING,
    GROUPED_TERNARY_BACKWARD_INPUT = grouped_ternary_backward_input,
    GROUPED_TERNARY_BACKWARD_WEIGHT = grouped_ternary_backward_weight,
    INT8_MATMUL = int8_matmul packs int8_matmul::PACKING,
    JOIN_COLUMNS = join_columns,
    KEEP_ROWS = keep_rows,
    KV_APPEND = kv_append,
    LION = lion,
    LION_BF16 = lion_bf16,
    LION_INT8 = lion_int8,
    MARK_SEEN = mark_seen,
    MATMUL = matmul packs matmul::PACKING,
    MATMUL_ADD = matmul_add,
    MATMUL_F16 = matmul_f16 packs matmul_f16::PACKING,
    MHC_COLLAPSE = mhc_collapse,
    MHC_EXPAND = mhc_expand,
    MHC_POST = mhc_post,
    MHC_POST_BACKWARD = mhc_post_backward,
    MHC_POST_BACKWARD_COEF = mhc_post_backward_coef,
    MHC_PRE = mhc_pre,
    MHC_PRE_BACKWARD = mhc_pre_backward,
    MHC_PRE_BACKWARD_COEF = mhc_pre_backward_coef,
    MHC_WEIGHTS = mhc_weights,
    MHC_WEIGHTS_BACKWARD = mhc_weights_backward,
    MOE_BALANCE = moe_balance,
    MOE_BALANCE_BACKWARD = moe_balance_backward,
    MOE_BIAS = moe_bias,
    MOE_COMBINE = moe_combine,
    MOE_COMBINE_BACKWARD = moe_combine_backward,
    MOE_DISPATCH = moe_dispatch,
    MOE_DISPATCH_BACKWARD = moe_dispatch_backward,
    MOE_ROUTE = moe_route,
    MOE_ROUTE_BACKWARD = moe_route_backward,
    MOE_SORT = moe_sort,
    MOE_TALLY = moe_tally,
    MUON_MOMENTUM = muon_momentum,
    MUON_MOMENTUM_BF16 = muon_momentum_bf16,
    MUON_MOMENTUM_INT8 = muon_momentum_int8,
    MUON_NORMALIZE = muon_normalize,
    MUON_UPDATE = muon_update,
    PROBE_COPY = probe_copy,
    PROBE_FMA = probe_fma,
    QUANTIZE_ROWS = quantize_rows,
    RMS_NORM = rms_norm,
    RMS_NORM_BACKWARD = rms_norm_backward,
    RMS_NORM_QUANTIZE = rms_norm_quantize,
    ROPE = rope,
    ROUND_F16 = round_f16,
    SAMPLE = sample,
    SHORT_CONV = short_conv,
    SHORT_CONV_BACKWARD = short_conv_backward,
    SOFTMAX_MEAN = softmax_mean,
    SUM = sum,
    SUM_ROWS = sum_rows,
    SUM_SQUARES = sum_squares,
    SWIGLU = swiglu,
    SWIGLU_BACKWARD = swiglu_backward,
    SWIGLU_COLUMNS_BACKWARD = swiglu_columns_backward,
    TERNARY_MATMUL = ternary_matmul packs ternary_matmul::PACKING,
    TERNARY_MATMUL_BACKWARD_INPUT = ternary_matmul_backward_input,
    TERNARY_MATMUL_BACKWARD_WEIGHT = ternary_matmul_backward_weight,
    TERNARY_QUANTIZE = ternary_quantize,
    MEAN_SCALE = mean_scale,
}
