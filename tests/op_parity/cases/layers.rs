//! What the layers of a model are made of, besides products.

use super::*;

/// Whole tables and parts of them. Ids beyond the table too: just behind it, and those whose place in it is that of another when
/// it wraps at 2^32. And one id in most rows, in runs that end at the blocks of the gradient or between them.
pub fn embedding() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, dim, vocab, first) in
        [(1, 1, 1, 0), (5, 7, 3, 0), (33, 96, 40, 0), (64, 256, 16, 0), (33, 96, 20, 10), (300, 70, 20, 30)]
    {
        let args = embedding::EmbeddingArgs { rows, dim, first };
        let ids = |r: &mut Rng| below(r, rows, vocab + 2 * first);
        let data = |r: &mut Rng| vec![Data::U32(ids(r)), normal(r, vocab * dim, 0.02), normal(r, rows * dim, 1.0)];
        cases.push(exact(case(&ops::EMBEDDING, args, data)));
        let data = |r: &mut Rng| vec![Data::U32(ids(r)), halves(r, vocab * dim, 0.02), normal(r, rows * dim, 1.0)];
        cases.push(exact(case(&ops::EMBEDDING_F16, args, data)));
        let args = embedding_backward::EmbeddingBackwardArgs { rows, dim, first };
        let data = |r: &mut Rng| {
            let (ids, dy) = (ids(r), normal(r, rows * dim, 1.0));
            vec![Data::U32(ids.clone()), sorted(&ids), dy, normal(r, vocab * dim, 1.0)]
        };
        cases.push(case(&ops::EMBEDDING_BACKWARD, args, data));
    }
    for runs in [&[400][..], &[32, 64, 33, 1, 30], &[31, 1, 65, 32, 200], &[1, 96, 95, 64], &[20, 20, 500, 3]] {
        let ids: Vec<u32> = runs.iter().zip(0..).flat_map(|(n, id)| vec![id; *n]).collect();
        let (rows, dim) = (ids.len() as u32, 70);
        let args = embedding_backward::EmbeddingBackwardArgs { rows, dim, first: 0 };
        let data = |r: &mut Rng| {
            vec![Data::U32(ids.clone()), sorted(&ids), normal(r, rows * dim, 1.0), normal(r, 5 * dim, 1.0)]
        };
        cases.push(case(&ops::EMBEDDING_BACKWARD, args, data));
    }
    let (rows, dim, vocab) = (8, 64, 10);
    let ids = || Data::U32(vec![3, 10, 1 << 26, 9, 67_108_867, u32::MAX, 0, 3]);
    let args = embedding::EmbeddingArgs { rows, dim, first: 0 };
    cases.push(exact(case(&ops::EMBEDDING, args, |r| vec![ids(), normal(r, vocab * dim, 0.02), out(rows * dim)])));
    cases.push(exact(case(&ops::EMBEDDING_F16, args, |r| vec![ids(), halves(r, vocab * dim, 0.02), out(rows * dim)])));
    // Every finite f16 value, also those that are not normal.
    let (rows, dim) = (2 * 31, 1024);
    let finite = (0..=u16::MAX).filter(|bits| half::f16::from_bits(*bits).is_finite());
    let table = Data::Bytes(finite.flat_map(u16::to_le_bytes).collect());
    let args = embedding::EmbeddingArgs { rows, dim, first: 0 };
    let data = |_: &mut Rng| vec![Data::U32((0..rows).collect()), table, out(rows * dim)];
    cases.push(exact(case(&ops::EMBEDDING_F16, args, data)));
    let (rows, dim) = (8, 64);
    for first in [0, 1, 3] {
        let args = embedding_backward::EmbeddingBackwardArgs { rows, dim, first };
        let order = Data::U32(vec![6, 0, 7, 3, 1, 4, 8, u32::MAX]);
        let data = |r: &mut Rng| vec![ids(), order, normal(r, rows * dim, 1.0), normal(r, vocab * dim, 1.0)];
        cases.push(case(&ops::EMBEDDING_BACKWARD, args, data));
        let args = embedding_int8::EmbeddingInt8Args { rows, dim, first };
        let data = |r: &mut Rng| {
            let (codes, scales) = (activations(r, vocab * dim), uniform(r, vocab * dim / 32, 0.001, 0.1));
            vec![ids(), codes, scales, if first == 0 { out(rows * dim) } else { normal(r, rows * dim, 1.0) }]
        };
        cases.push(exact(case(&ops::EMBEDDING_INT8, args, data)));
    }
    cases
}

/// The rows sorted by id, equal ids in order.
fn sorted(ids: &[u32]) -> Data {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|row| ids[*row as usize]);
    Data::U32(order)
}

pub fn norms() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, dim) in [(1, 1), (1, 7), (3, 63), (5, 64), (2, 256), (130, 65), (7, 768)] {
        let args = rms_norm::RmsNormArgs { rows, dim, eps: 1e-5 };
        let data = |r: &mut Rng| vec![normal(r, rows * dim, 1.5), normal(r, dim, 1.0), out(rows * dim), out(rows)];
        cases.push(case(&ops::RMS_NORM, args, data));
        for beta in [0.0, 1.0] {
            let args = rms_norm_backward::RmsNormBackwardArgs { rows, dim, beta };
            let data = |r: &mut Rng| {
                let [x, w] = [normal(r, rows * dim, 1.5), normal(r, dim, 1.0)];
                let [rstd, dy] = [uniform(r, rows, 0.5, 2.0), normal(r, rows * dim, 1.0)];
                vec![x, w, rstd, dy, target(r, beta, rows * dim), normal(r, dim, 1.0)]
            };
            cases.push(case(&ops::RMS_NORM_BACKWARD, args, data));
        }
    }
    // The squares of some rows overflow.
    let (rows, dim) = (4, 96);
    let data = |r: &mut Rng| {
        let mut x = values(r, rows * dim, 1.0);
        x.chunks_mut(dim as usize).step_by(2).for_each(|row| row.iter_mut().for_each(|x| *x *= 1e30));
        vec![Data::F32(x), normal(r, dim, 1.0), out(rows * dim), out(rows)]
    };
    cases.push(case(&ops::RMS_NORM, rms_norm::RmsNormArgs { rows, dim, eps: 1e-5 }, data));
    for (rows, cols, offset, beta) in [(1, 1, 0, 0.0), (9, 130, 0, 1.0), (3, 20, 4, 0.0), (70, 64, 3, 1.0)] {
        let args = sum_rows::SumRowsArgs { rows, cols, offset, beta };
        let data = |r: &mut Rng| vec![normal(r, rows * cols, 1.0), target(r, beta, offset + cols + 2)];
        cases.push(case(&ops::SUM_ROWS, args, data));
    }
    cases
}

/// Each of so many places once.
fn places(r: &mut Rng, n: u32) -> Data {
    let mut places: Vec<u32> = (0..n).collect();
    (1..n as usize).rev().for_each(|i| places.swap(i, r.below(i as u64 + 1) as usize));
    Data::U32(places)
}

pub fn experts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, dim, experts, k, scale) in [
        (1, 4, 2, 1, 1.0),
        (5, 70, 8, 2, 1.0),
        (33, 256, 16, 4, 0.1),
        (3, 64, 5, 5, 1.0),
        (130, 33, 100, 3, 1.0),
        (4, 32, 8, 3, 0.0),
    ] {
        let n = rows * k;
        let args = moe_route::MoeRouteArgs { rows, dim, experts, k };
        let data = |r: &mut Rng| {
            let [x, w, bias] = [normal(r, rows * dim, scale), normal(r, experts * dim, 0.3), normal(r, experts, scale)];
            vec![x, w, bias, out(rows * experts), out(n), out(n)]
        };
        cases.push(case(&ops::MOE_ROUTE, args, data));
        for beta in [0.0, 1.0] {
            let args = moe_route_backward::MoeRouteBackwardArgs { rows, experts, k, beta };
            let data = |r: &mut Rng| {
                // Different experts for each row.
                let first = below(r, rows, experts);
                let chosen = first.iter().flat_map(|first| (0..k).map(move |j| (first + j) % experts)).collect();
                let [weights, dweights] = [uniform(r, n, 0.0, 1.0), normal(r, n, 1.0)];
                vec![Data::U32(chosen), weights, dweights, target(r, beta, rows * experts)]
            };
            cases.push(case(&ops::MOE_ROUTE_BACKWARD, args, data));
        }
        let args = moe_sort::MoeSortArgs { n, experts };
        let data = |r: &mut Rng| vec![Data::U32(below(r, n, experts)), out(n), out(experts + 1)];
        cases.push(case(&ops::MOE_SORT, args, data));
        let args = moe_dispatch::MoeDispatchArgs { n, dim, k };
        let data = |r: &mut Rng| vec![normal(r, rows * dim, 1.0), places(r, n), out(n * dim)];
        cases.push(exact(case(&ops::MOE_DISPATCH, args, data)));
        for beta in [0.0, 1.0] {
            let args = moe_dispatch_backward::MoeDispatchBackwardArgs { rows, dim, k, beta };
            let data = |r: &mut Rng| vec![normal(r, n * dim, 1.0), places(r, n), target(r, beta, rows * dim)];
            cases.push(case(&ops::MOE_DISPATCH_BACKWARD, args, data));
        }
        let args = moe_combine::MoeCombineArgs { rows, dim, k };
        let data = |r: &mut Rng| vec![normal(r, n * dim, 1.0), places(r, n), uniform(r, n, 0.0, 1.0), out(rows * dim)];
        cases.push(case(&ops::MOE_COMBINE, args, data));
        let args = moe_combine_backward::MoeCombineBackwardArgs { n, dim, k };
        let data = |r: &mut Rng| {
            let [x, places, weights] = [normal(r, n * dim, 1.0), places(r, n), uniform(r, n, 0.0, 1.0)];
            vec![x, places, weights, normal(r, rows * dim, 1.0), out(n * dim), out(n)]
        };
        cases.push(case(&ops::MOE_COMBINE_BACKWARD, args, data));
        let counts = |r: &mut Rng| {
            let mut counts = vec![0; experts as usize];
            below(r, n, experts).iter().for_each(|e| counts[*e as usize] += 1);
            counts
        };
        let args = moe_tally::MoeTallyArgs { experts };
        let data = |r: &mut Rng| vec![starts(&counts(r)), Data::F32(vec![3.0; experts as usize])];
        cases.push(exact(case(&ops::MOE_TALLY, args, data)));
        let args = moe_balance::MoeBalanceArgs { rows, experts };
        let data = |r: &mut Rng| vec![normal(r, rows * experts, 1.0), starts(&counts(r)), out(1)];
        cases.push(case(&ops::MOE_BALANCE, args, data));
        let args = moe_balance_backward::MoeBalanceBackwardArgs { rows, experts };
        let data = |r: &mut Rng| {
            vec![normal(r, rows * experts, 1.0), starts(&counts(r)), Data::F32(vec![0.3]), out(rows * experts)]
        };
        cases.push(case(&ops::MOE_BALANCE_BACKWARD, args, data));
    }
    for (layers, experts, stride, skip) in [(1, 2, 2, 0.0), (3, 8, 64, 0.0), (2, 5, 64, 1.0)] {
        let args = moe_bias::MoeBiasArgs { layers, experts, stride, rate: 0.01 };
        let all = layers * stride;
        let data = |r: &mut Rng| {
            let load = below(r, all, 4).into_iter().map(|n| n as f32).collect();
            vec![Data::F32(load), Data::F32(vec![1.0, skip, 0.0, 0.0]), normal(r, all, 0.1), normal(r, all, 9.0)]
        };
        cases.push(case(&ops::MOE_BIAS, args, data));
    }
    cases
}

pub fn attention() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, heads, head_dim, first, all, sign) in [
        (1, 1, 4, 0, 1, 1.0),
        (5, 3, 20, 0, 3, 1.0),
        (5, 3, 20, 2, 6, 1.0),
        (33, 4, 64, 1, 5, -1.0),
        (7, 2, 128, 0, 2, 1.0),
    ] {
        let args = rope::RopeArgs { rows, heads, head_dim, first, all, sign };
        let data = |r: &mut Rng| {
            let x = normal(r, rows * all * head_dim, 1.0);
            let table = Data::F32(rope_table(50, head_dim as usize, 10_000.0));
            let mut positions = below(r, rows, 50);
            // Beyond the table: behind its end, and where its place wraps at 2^32.
            positions.iter_mut().skip(1).step_by(3).for_each(|p| *p += 70);
            positions.iter_mut().skip(2).step_by(3).for_each(|p| *p += 1 << 31);
            vec![x, Data::U32(positions), table]
        };
        cases.push(case(&ops::ROPE, args, data));
    }
    // Rows of a sequence at which positions start again.
    let documents: [&[u32]; 4] = [&[], &[1], &[3, 4, 16, 20], &[15, 17, 33, 40, 41, 64, 96]];
    let shapes = [
        (1, 1, 1, 1, 4),
        (2, 5, 2, 1, 16),
        (1, 16, 4, 4, 32),
        (2, 33, 4, 1, 64),
        (1, 47, 4, 2, 20),
        (3, 17, 2, 2, 128),
        (1, 100, 2, 1, 64),
        (1, 150, 4, 2, 100),
        (1, 140, 2, 1, 128),
        (1, 70, 2, 1, 132),
        (2, 40, 2, 1, 256),
    ];
    for (i, (batch, seq, heads, kv_heads, head_dim)) in shapes.into_iter().cycle().take(4 * shapes.len()).enumerate() {
        let starts = documents[i / shapes.len()];
        // The first document may have started before the sequence, however far.
        let before = [0, 7, u32::MAX - 200][i % 3];
        let position = |row: u32| {
            // Each sequence has its own documents.
            let (t, shift) = (row % seq, row / seq);
            let start = starts.iter().map(|start| start + shift).filter(|start| *start <= t).max();
            start.map_or(t + before, |start| t - start)
        };
        let positions = || Data::U32((0..batch * seq).map(position).collect());
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (q, rows) = (batch * seq * heads * head_dim, batch * heads * seq);
        let qkv = batch * seq * (2 * kv_heads + heads) * head_dim;
        let args = attention::AttentionArgs { batch, seq, heads, kv_heads, head_dim, scale };
        let data = |r: &mut Rng| vec![normal(r, qkv, 1.0), positions(), out(q), out(rows)];
        cases.push(case(&ops::ATTENTION, args, data));
        if head_dim as usize > ops::MAX_TRAINED_HEAD_DIM {
            continue;
        }
        let args = attention_backward_delta::AttentionBackwardDeltaArgs { batch, seq, heads, head_dim };
        let data = |r: &mut Rng| vec![normal(r, q, 1.0), normal(r, q, 1.0), normal(r, rows, 1.0), out(2 * rows)];
        cases.push(case(&ops::ATTENTION_BACKWARD_DELTA, args, data));
        let inputs = |r: &mut Rng| {
            let stats = (0..2 * rows).map(|i| if i < rows { 2.0 + 2.0 * r.f32() } else { 0.5 * r.normal() }).collect();
            // The columns that the op does not write stay.
            vec![normal(r, qkv, 1.0), normal(r, q, 1.0), Data::F32(stats), positions(), normal(r, qkv, 1.0)]
        };
        let args = attention_backward_q::AttentionBackwardQArgs { batch, seq, heads, kv_heads, head_dim, scale };
        cases.push(case(&ops::ATTENTION_BACKWARD_Q, args, inputs));
        let args = attention_backward_kv::AttentionBackwardKvArgs { batch, seq, heads, kv_heads, head_dim, scale };
        cases.push(case(&ops::ATTENTION_BACKWARD_KV, args, inputs));
    }
    cases
}

/// Rows of three sequences: one from its start, one that goes on, and a single row; rows without a slot, and one of a slot that is
/// not there.
fn going_on() -> [Vec<u32>; 2] {
    let runs = [(0, 0, 40), (NOWHERE, 0, 2), (2, 7, 35), (9, 3, 2), (1, 2, 1), (NOWHERE, 0, 1)];
    let rows = || runs.into_iter().flat_map(|(slot, first, n)| (first..first + n).map(move |at| (slot, at)));
    [rows().map(|(_, at)| at).collect(), rows().map(|(slot, _)| slot).collect()]
}

pub fn delta() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, seq, cols, width) in [(1, 1, 3, 2), (2, 9, 20, 4), (3, 70, 65, 3), (2, 130, 33, 8)] {
        let (rows, total) = (batch * seq, cols);
        let positions = || Data::U32(documents(batch, seq));
        let args = short_conv::ShortConvArgs { rows, cols, first: 0, total, width, seq };
        let data = |r: &mut Rng| {
            let [x, w] = [rows * cols, width * cols].map(|n| normal(r, n, 1.0));
            vec![x, w, positions(), Data::Same(2), normal(r, 1, 1.0), out(rows * cols)]
        };
        cases.push(case(&ops::SHORT_CONV, args, data));
        let args = short_conv_backward::ShortConvBackwardArgs { rows, cols, width, seq };
        let data = |r: &mut Rng| {
            let [x, w, dy] = [rows * cols, width * cols, rows * cols].map(|n| normal(r, n, 1.0));
            vec![x, w, positions(), dy, out(rows * cols), normal(r, width * cols, 1.0)]
        };
        cases.push(case(&ops::SHORT_CONV_BACKWARD, args, data));
    }
    let [positions, slots] = going_on();
    let rows = positions.len() as u32;
    let places = || [&positions, &slots].map(|x| Data::U32(x.clone()));
    for (cols, first, total, width) in [(1, 9, 10, 2), (20, 0, 40, 4), (65, 3, 70, 3), (33, 0, 33, 8)] {
        let args = short_conv::ShortConvArgs { rows, cols, first, total, width, seq: 0 };
        let data = |r: &mut Rng| {
            let [x, w] = [rows * cols, width * total].map(|n| normal(r, n, 1.0));
            let [at, slot] = places();
            vec![x, w, at, slot, normal(r, 3 * (width - 1) * total, 1.0), normal(r, rows * total, 1.0)]
        };
        cases.push(case(&ops::SHORT_CONV, args, data));
    }
    for (rows, heads) in [(1, 1), (5, 3), (130, 4), (33, 70)] {
        let n = 2 * rows * heads;
        let data = |r: &mut Rng| vec![normal(r, n, 4.0), normal(r, 2 * heads, 2.0), out(n)];
        cases.push(case(&ops::DELTA_GATES, delta_gates::DeltaGatesArgs { rows, heads }, data));
        let args = delta_gates_backward::DeltaGatesBackwardArgs { rows, heads };
        let data = |r: &mut Rng| {
            let [x, p] = [normal(r, n, 4.0), normal(r, 2 * heads, 2.0)];
            vec![x, p, uniform(r, n, 0.0, 1.0), normal(r, n, 1.0), out(n), normal(r, 2 * heads, 1.0)]
        };
        cases.push(case(&ops::DELTA_GATES_BACKWARD, args, data));
    }
    let gates = |r: &mut Rng, rows: u32, heads: u32| {
        let gate = |i: u32, r: &mut Rng| if i % (2 * heads) < heads { r.f32() } else { -0.3 * r.f32() };
        Data::F32((0..2 * rows * heads).map(|i| gate(i, r)).collect())
    };
    for (batch, seq, heads, key_size, value_size) in [
        (1, 1u32, 1, 4, 4),
        (2, 33, 2, 16, 8),
        (3, 64, 1, 36, 20),
        (1, 100, 3, 8, 76),
        (2, 150, 2, 64, 64),
        (1, 40, 1, 128, 128),
    ] {
        let (rows, cols, size) = (batch * seq, heads * (value_size + 2 * key_size), heads * key_size * value_size);
        let states = batch * seq.div_ceil(32) * size;
        let positions = || Data::U32(documents(batch, seq));
        let args = delta_rule::DeltaRuleArgs { rows, heads, key_size, value_size, seq };
        let data = |r: &mut Rng| {
            let x = normal(r, rows * cols, 1.0);
            vec![x, gates(r, rows, heads), positions(), Data::Same(2), out(states), out(rows * heads * value_size)]
        };
        cases.push(case(&ops::DELTA_RULE, args, data));
        let mut first = 0;
        // Two nodes may share the heads.
        for count in [batch * heads / 2, batch * heads - batch * heads / 2].into_iter().filter(|n| *n > 0) {
            let args =
                delta_rule_backward::DeltaRuleBackwardArgs { rows, heads, key_size, value_size, seq, first, count };
            let data = |r: &mut Rng| {
                let x = normal(r, rows * cols, 1.0);
                let [states, dy] = [states, rows * heads * value_size].map(|n| normal(r, n, 0.5));
                let [dx, dgates] = [rows * cols, 2 * rows * heads].map(|n| normal(r, n, 1.0));
                vec![x, gates(r, rows, heads), positions(), states, dy, dx, dgates]
            };
            cases.push(case(&ops::DELTA_RULE_BACKWARD, args, data));
            first += count;
        }
    }
    for (heads, key_size, value_size) in [(1, 4, 4), (2, 16, 36), (3, 64, 64), (1, 128, 128)] {
        let (cols, size) = (heads * (value_size + 2 * key_size), heads * key_size * value_size);
        let args = delta_rule::DeltaRuleArgs { rows, heads, key_size, value_size, seq: 0 };
        let data = |r: &mut Rng| {
            let [at, slot] = places();
            let (x, gates, state) = (normal(r, rows * cols, 1.0), gates(r, rows, heads), normal(r, 3 * size, 0.5));
            vec![x, gates, at, slot, state, out(rows * heads * value_size)]
        };
        cases.push(case(&ops::DELTA_RULE, args, data));
    }
    cases
}

pub fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, squared) in [1, 3, 63, 64, 1000, 4097, 4098].into_iter().flat_map(|n| [(n, 0), (n, 1)]) {
        let args = swiglu::SwigluArgs { rows: 1, cols: n, stride: n, gate: 0, up: 0, squared };
        cases.push(case(&ops::SWIGLU, args, |r| vec![normal(r, n, 4.0), normal(r, n, 1.0), out(n)]));
        let data = |r: &mut Rng| vec![normal(r, n, 4.0), normal(r, n, 1.0), normal(r, n, 1.0), out(n), out(n)];
        cases.push(case(&ops::SWIGLU_BACKWARD, swiglu_backward::SwigluBackwardArgs { n, squared }, data));
        let data = |r: &mut Rng| vec![normal(r, n, 1.0), normal(r, n, 1.0), out(n)];
        cases.push(exact(case(&ops::ADD, add::AddArgs { n }, data)));
        cases.push(exact(case(&ops::COPY, copy::CopyArgs { n }, |r| vec![normal(r, n, 1.0), out(n)])));
        cases.push(exact(case(&ops::FILL, fill::FillArgs { n, value: -1.25 }, |_| vec![out(n)])));
    }
    let shapes = [(1, 1), (3, 7), (2, 64), (65, 20), (5, 130)];
    for (rows, cols) in shapes {
        let data = |r: &mut Rng| vec![normal(r, rows * cols, 1.0), normal(r, cols, 1.0)];
        cases.push(exact(case(&ops::ADD_BIAS, add_bias::AddBiasArgs { rows, cols }, data)));
    }
    for ((rows, cols), squared) in shapes.into_iter().flat_map(|shape| [(shape, 0), (shape, 1)]) {
        let args = swiglu::SwigluArgs { rows, cols, stride: 2 * cols, gate: cols, up: 0, squared };
        let data = |r: &mut Rng| vec![normal(r, 2 * rows * cols, 4.0), Data::Same(0), out(rows * cols)];
        cases.push(case(&ops::SWIGLU, args, data));
        let args = swiglu_columns_backward::SwigluColumnsBackwardArgs { rows, cols, squared };
        let n = rows * cols;
        let data = |r: &mut Rng| vec![normal(r, 2 * n, 4.0), normal(r, n, 1.0), out(2 * n)];
        cases.push(case(&ops::SWIGLU_COLUMNS_BACKWARD, args, data));
    }
    let edges = vec![0.0, 1.0, 1.0 + 2f32.powi(-11), 65519.0, -70000.0, 2f32.powi(-25), 5e-8, -6.1e-5, 3.3e-6, 0.02];
    let (n, edges) = (edges.len() as u32, Data::F32(edges));
    cases.push(exact(case(&ops::ROUND_F16, round_f16::RoundF16Args { n }, |_| vec![edges, out(n)])));
    let data = |r: &mut Rng| vec![normal(r, 999, 1e-4), out(999)];
    cases.push(exact(case(&ops::ROUND_F16, round_f16::RoundF16Args { n: 999 }, data)));
    // More workgroups than a grid may have in x: the others go to y.
    let n = 4 * 64 * 32_768 + 65;
    cases.push(exact(case(&ops::FILL, fill::FillArgs { n, value: 3.0 }, |_| vec![out(n)])));
    let extremes = vec![-1e4, -100.0, -80.0, 0.0, 80.0, 100.0, 1e4];
    for squared in [0, 1] {
        let args = swiglu::SwigluArgs { rows: 1, cols: 7, stride: 7, gate: 0, up: 0, squared };
        cases.push(case(&ops::SWIGLU, args, |r| vec![Data::F32(extremes.clone()), normal(r, 7, 1.0), out(7)]));
        let args = swiglu_backward::SwigluBackwardArgs { n: 7, squared };
        let data =
            |r: &mut Rng| vec![Data::F32(extremes.clone()), normal(r, 7, 1.0), normal(r, 7, 1.0), out(7), out(7)];
        cases.push(case(&ops::SWIGLU_BACKWARD, args, data));
        let args = swiglu_columns_backward::SwigluColumnsBackwardArgs { rows: 1, cols: 7, squared };
        let data = |r: &mut Rng| {
            let x = [values(r, 7, 1.0), extremes.clone()].concat();
            vec![Data::F32(x), normal(r, 7, 1.0), out(14)]
        };
        cases.push(case(&ops::SWIGLU_COLUMNS_BACKWARD, args, data));
    }
    cases
}

/// h_pre, h_post and H_res for `streams` streams.
fn coef(r: &mut Rng, streams: u32) -> Data {
    uniform(r, streams * (2 + streams), 0.05, 0.95)
}

pub fn streams() -> Vec<Case> {
    let mut cases = Vec::new();
    for (streams, params) in [(2, 9), (4, 40)] {
        let args = mhc_weights::MhcWeightsArgs { streams };
        cases.push(case(&ops::MHC_WEIGHTS, args, |r| vec![normal(r, params, 2.0), out(streams * (2 + streams))]));
        let args = mhc_weights_backward::MhcWeightsBackwardArgs { streams };
        let data = |r: &mut Rng| {
            let dcoef = normal(r, streams * (2 + streams), 1.0);
            vec![normal(r, params, 2.0), coef(r, streams), dcoef, normal(r, params, 1.0)]
        };
        cases.push(case(&ops::MHC_WEIGHTS_BACKWARD, args, data));
        for n in [4, 68, 5000] {
            let x = |r: &mut Rng| normal(r, n, 1.0);
            let all = |r: &mut Rng| normal(r, n * streams, 1.0);
            let args = mhc_expand::MhcExpandArgs { n, streams, scale: 0.25 };
            cases.push(case(&ops::MHC_EXPAND, args, |r| vec![x(r), out(n * streams)]));
            let args = mhc_collapse::MhcCollapseArgs { n, streams, scale: 0.25 };
            cases.push(case(&ops::MHC_COLLAPSE, args, |r| vec![all(r), out(n)]));
            let args = mhc_pre::MhcPreArgs { n, streams };
            cases.push(case(&ops::MHC_PRE, args, |r| vec![coef(r, streams), all(r), out(n)]));
            for beta in [0.0, 1.0] {
                let args = mhc_pre_backward::MhcPreBackwardArgs { n, streams, beta };
                let data = |r: &mut Rng| vec![coef(r, streams), x(r), target(r, beta, n * streams)];
                cases.push(case(&ops::MHC_PRE_BACKWARD, args, data));
            }
            let blocks = n.div_ceil(4096);
            let args = mhc_pre_backward_coef::MhcPreBackwardCoefArgs { n, streams };
            cases.push(case(&ops::MHC_PRE_BACKWARD_COEF, args, |r| vec![all(r), x(r), out(blocks * streams)]));
            let args = mhc_post::MhcPostArgs { n, streams };
            cases.push(case(&ops::MHC_POST, args, |r| vec![coef(r, streams), all(r), x(r), out(n * streams)]));
            let args = mhc_post_backward::MhcPostBackwardArgs { n, streams };
            let data = |r: &mut Rng| vec![coef(r, streams), all(r), out(n * streams), out(n)];
            cases.push(case(&ops::MHC_POST_BACKWARD, args, data));
            let args = mhc_post_backward_coef::MhcPostBackwardCoefArgs { n, streams };
            let data = |r: &mut Rng| vec![all(r), x(r), all(r), out(blocks * streams * (1 + streams))];
            cases.push(case(&ops::MHC_POST_BACKWARD_COEF, args, data));
        }
    }
    cases
}
