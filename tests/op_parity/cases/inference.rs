//! What decoding needs besides.

use super::*;
pub fn inference() -> Vec<Case> {
    let mut cases = Vec::new();
    for (heads, kv_heads, head_dim, slot_pages) in
        [(1, 1, 4, 1), (4, 2, 16, 1), (4, 4, 64, 3), (2, 1, 128, 2), (2, 2, 8, 11), (2, 1, 196, 1), (2, 1, 256, 2)]
    {
        let last = 64 * slot_pages - 1;
        // Consecutive and single rows of three sequences, also over the end of a page, an empty row, a slot and positions beyond
        // the table, a slot whose place wraps at 2^32 to that of slot 1, and sequences whose first or last page is not there.
        let positions = vec![0, 1, 2, 3, last, NOWHERE, 2, 62, 63, 64, 65, 1, last, last + 1, NOWHERE, 2, 1, last];
        let slots = vec![0, 0, 0, 0, 1, NOWHERE, 1, 2, 2, 2, 2, 5, 0, 0, 0, (1 << 31) + 1, 3, 4];
        // Three sequences have pages of their own.
        let held = 3 * slot_pages + 1;
        let mut pages: Vec<u32> = (1..held).rev().collect();
        pages.extend([held].into_iter().chain(0..slot_pages - 1));
        pages.extend((0..slot_pages - 1).chain([NOWHERE]));
        let (rows, dim, kv_dim) = (positions.len() as u32, heads * head_dim, kv_heads * head_dim);
        let append = |transposed| kv_append::KvAppendArgs { rows, kv_heads, head_dim, slot_pages, transposed };
        let len = append(0).cache_len(held as usize) as u32;
        let place = || [&positions, &slots, &pages].map(|x| Data::U32(x.clone()));
        for args in [append(1), append(0)] {
            let [at, slot, pages] = place();
            let data = |r: &mut Rng| vec![normal(r, rows * kv_dim, 1.0), at, slot, pages, normal(r, len, 1.0)];
            cases.push(exact(case(&ops::KV_APPEND, args, data)));
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        // On a GPU, few rows take another way.
        for rows in [rows, 13] {
            let args = attention_cached::AttentionCachedArgs { rows, heads, kv_heads, head_dim, slot_pages, scale };
            let [at, slot, pages] = place();
            let data = |r: &mut Rng| {
                let [q, k, v] = [rows * dim, len, len].map(|n| normal(r, n, 1.0));
                vec![q, k, v, at, slot, pages, out(rows * dim)]
            };
            cases.push(case(&ops::ATTENTION_CACHED, args, data));
        }
    }
    for (rows, outs, dim, x_row) in [(1, 1, 32, 0), (1, 130, 256, 0), (2, 65, 96, 1), (3, 64, 320, 0), (7, 20, 1184, 2)]
    {
        let have = x_row + rows + 1;
        let args = int8_matmul::Int8MatmulArgs { rows, outs, dim, x_row };
        let data = |r: &mut Rng| {
            let [xq, step] = [activations(r, have * dim), uniform(r, have, 0.01, 0.03)];
            let [codes, scales] = [activations(r, outs * dim), uniform(r, outs * dim / 32, 0.001, 0.1)];
            vec![xq, step, codes, scales, out(rows * outs)]
        };
        cases.push(case(&ops::INT8_MATMUL, args, data));
    }
    for dim in [32, 96] {
        let args = embedding_int8::EmbeddingInt8Args { rows: 5, dim, first: 0 };
        let data = |r: &mut Rng| {
            let [ids, codes] = [Data::U32(vec![3, 0, 6, 3, 1]), activations(r, 7 * dim)];
            vec![ids, codes, uniform(r, 7 * dim / 32, 0.001, 0.1), out(5 * dim)]
        };
        cases.push(exact(case(&ops::EMBEDDING_INT8, args, data)));
    }
    for dim in [4, 96] {
        let index = vec![3, NOWHERE, 0, 1 << 27, 6];
        let args = gather_rows::GatherRowsArgs { rows: 5, dim };
        let data = |r: &mut Rng| vec![normal(r, 7 * dim, 1.0), Data::U32(index), out(5 * dim)];
        cases.push(exact(case(&ops::GATHER_ROWS, args, data)));
    }
    for (rows, vocab) in [(1, 1), (3, 5), (7, 1000)] {
        // Every second row has an entropy of almost ln vocab, the others of nearly 0. The last has ended before.
        let args = exit_rows::ExitRowsArgs { rows, vocab, passes: 2, threshold: 0.5 * (vocab as f32).ln() };
        let data = |r: &mut Rng| {
            let spread = |i| if i / vocab % 2 == 0 { 0.1 } else { 40.0 };
            let logits = values(r, rows * vocab, 1.0).iter().zip(0..).map(|(x, i)| x * spread(i)).collect();
            let ends = (0..rows).map(|i| u32::from(i + 1 == rows && rows > 1)).collect();
            vec![Data::F32(logits), Data::U32(ends)]
        };
        cases.push(exact(case(&ops::EXIT_ROWS, args, data)));
    }
    for (streams, rows, dim) in [(1, 1, 4), (1, 6, 96), (4, 6, 8)] {
        let args = keep_rows::KeepRowsArgs { streams, rows, dim };
        let pick = [1, NOWHERE, 0, 3, 1 << 30, 2][..rows as usize].to_vec();
        let data = |r: &mut Rng| {
            let [old, next] = [1.0; 2].map(|size| normal(r, streams * rows * dim, size));
            vec![Data::U32(pick), Data::U32(vec![0, 2, 1]), old, next, out(streams * rows * dim)]
        };
        cases.push(exact(case(&ops::KEEP_ROWS, args, data)));
    }
    let vocab = 150;
    // A slot and an id beyond `seen`, and a slot whose place wraps at 2^32 to that of slot 0.
    let (ids, slots) = (vec![5, 149, 5, 7, 0, 9, 150, 11], vec![0, 1, 0, NOWHERE, 1, 2, 0, 1 << 31]);
    let data = |_: &mut Rng| vec![Data::U32(ids), Data::U32(slots), Data::U32(vec![0; 2 * vocab as usize])];
    cases.push(exact(case(&ops::MARK_SEEN, mark_seen::MarkSeenArgs { rows: 8, vocab }, data)));
    // Logits are far enough apart that rounding does not change the result; their order differs in each row.
    let kinds = [
        (0.0, 0, 1.0, 0.0, 1.0),
        (0.7, 0, 1.0, 0.0, 1.0),
        (1.0, 5, 1.0, 0.0, 1.5),
        (1.3, 0, 0.8, 0.0, 1.0),
        (2.0, 20, 0.9, 0.05, 1.1),
        (1.0, 0, 1.0, 0.3, 1.0),
    ];
    for seed in 0..5 {
        let rows = kinds.len() as u32 + 4;
        let mut params: Vec<u32> = (0u32..)
            .zip(kinds)
            .flat_map(|(slot, (t, top_k, top_p, min_p, penalty))| {
                let row = ops::SampleRow {
                    slot,
                    temperature: t,
                    top_k,
                    top_p,
                    min_p,
                    repetition_penalty: penalty,
                    seed,
                    counter: 3,
                };
                row.words()
            })
            .collect();
        params.extend(ops::SampleRow::NOTHING);
        // The slot of a row before, one beyond the last, and one whose place wraps at 2^32 to that of slot 9.
        for slot in [2, rows, (1 << 31) + 9] {
            params.extend([slot, 1f32.to_bits(), 0, 1f32.to_bits(), 0, 1f32.to_bits(), seed, 3]);
        }
        let data = |r: &mut Rng| {
            // These cases have the same `args`.
            let r = &mut Rng::stream(r.next_u64(), u64::from(seed));
            let mut logits = values(r, rows * vocab, 3.0);
            if seed == 4 {
                for (row, at, value) in [(0, 149, f32::NAN), (1, 0, f32::INFINITY), (4, 70, f32::NEG_INFINITY)] {
                    logits[row * vocab as usize + at] = value;
                }
            }
            vec![
                Data::F32(logits),
                normal(r, rows * vocab, 0.5),
                Data::U32(params),
                Data::U32(below(r, rows * vocab, 2)),
                out(rows),
            ]
        };
        cases.push(exact(case(&ops::SAMPLE, sample::SampleArgs { rows, vocab }, data)));
    }
    // Rounds halve the distance to 2, which shows how many there were.
    for (n, rounds) in [(1, 1), (77, 0), (1000, 1)] {
        let args = probe_fma::ProbeFmaArgs { n, rounds, a: 0.5, b: 1.0 };
        cases.push(case(&ops::PROBE_FMA, args, |_| vec![out(n)]));
    }
    for n in [1, 255, 257, 1000] {
        let args = probe_copy::ProbeCopyArgs { n };
        cases.push(exact(case(&ops::PROBE_COPY, args, |r| vec![normal(r, 4 * n, 1.0), out(4 * n)])));
    }
    cases
}
