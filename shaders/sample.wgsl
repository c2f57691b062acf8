// Draws a token for each row of logits, and marks it as seen. A row with a logit that is not finite gives 0xffffffff.
//
// params[r] are eight words: slot (one beyond `bias`, such as 0xffffffff, or of a row before: draw nothing), temperature,
// top_k, top_p, min_p, repetition penalty, seed, counter; floats by their bits. l = logits + bias[slot]; for seen tokens
// l / penalty where positive, else l * penalty.
// Temperature 0 takes the largest, the first of equals; otherwise p = exp((l - max) / temperature), cut to those of at
// least min_p, then to the top_k largest, then to the fewest largest that hold top_p of what is left. The token is the
// first whose running sum of kept p exceeds u times their sum, u a hash of seed and counter.
//
// A workgroup takes one row. p has no buffer: it is computed again wherever it is read. Thresholds are found by bisection over
// the bits of p, which orders it.

//#import groups
//#import reduce

struct Args { rows: u32, vocab: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, vocab)
@group(0) @binding(2) var<storage, read> bias: array<f32>; // (slots, vocab)
@group(0) @binding(3) var<storage, read> params: array<u32>; // (rows, 8)
@group(0) @binding(4) var<storage, read_write> seen: array<u32>; // (slots, vocab)
@group(0) @binding(5) var<storage, read_write> tokens: array<u32>; // (rows)

var<workgroup> values: array<f32, 64>;
var<workgroup> places: array<u32, 64>;

// The logit of token i, with bias and penalty.
fn adjusted(row: u32, slot: u32, penalty: f32, i: u32) -> f32 {
    let l = logits[row * args.vocab + i] + bias[slot * args.vocab + i];
    if seen[slot * args.vocab + i] == 0u {
        return l;
    }
    return select(l * penalty, l / penalty, l > 0.0);
}

fn hash(x: u32) -> u32 {
    let state = x * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

fn group(row: u32, lane: u32) {
    if row >= args.rows {
        return;
    }
    let at = row * 8u;
    let slot = params[at];
    var draws = slot < min(arrayLength(&bias), arrayLength(&seen)) / args.vocab;
    for (var r = 0u; r < row; r++) {
        draws = draws && params[r * 8u] != slot;
    }
    if !draws {
        if lane == 0u { tokens[row] = 0xffffffffu; }
        return;
    }
    let temperature = bitcast<f32>(params[at + 1u]);
    let top_k = params[at + 2u];
    let top_p = bitcast<f32>(params[at + 3u]);
    let min_p = bitcast<f32>(params[at + 4u]);
    let penalty = bitcast<f32>(params[at + 5u]);

    // The largest logit, the first of equals: each thread has a range of tokens, in order.
    let stretch = (args.vocab + 63u) / 64u;
    let first = min(lane * stretch, args.vocab);
    let last = min(first + stretch, args.vocab);
    values[lane] = -3.0e38;
    places[lane] = first;
    var finite = true;
    for (var i = first; i < last; i++) {
        // By its bits, since compilers may assume that floats are finite.
        finite &= (bitcast<u32>(logits[row * args.vocab + i]) & 0x7f800000u) != 0x7f800000u;
        let l = adjusted(row, slot, penalty, i);
        if l > values[lane] {
            values[lane] = l;
            places[lane] = i;
        }
    }
    if !finite { places[lane] = 0xffffffffu; }
    workgroupBarrier();
    var best = 0u;
    var all_finite = places[0] != 0xffffffffu;
    for (var i = 1u; i < 64u; i++) {
        if values[i] > values[best] { best = i; }
        all_finite &= places[i] != 0xffffffffu;
    }
    let top = values[best];
    var token = places[best];
    workgroupBarrier();

    if temperature != 0.0 {
        // Weights below this do not count.
        var least = max(min_p, 1e-38);
        for (var pass_ = 0u; pass_ < 2u; pass_++) {
            let by_count = pass_ == 0u;
            if (by_count && (top_k == 0u || top_k >= args.vocab)) || (!by_count && top_p >= 1.0) {
                continue;
            }
            var mass = 0.0;
            for (var i = first; i < last; i++) {
                let p = exp((adjusted(row, slot, penalty, i) - top) / temperature);
                if p >= least { mass += p; }
            }
            let goal = select(top_p * reduce_sum(lane, mass), f32(top_k), by_count);
            var low = bitcast<u32>(least);
            var high = 0x3f800000u;
            for (var step = 0u; step < 31u; step++) {
                let middle = low + (high - low + 1u) / 2u;
                let bound = bitcast<f32>(middle);
                var part = 0.0;
                for (var i = first; i < last; i++) {
                    let p = exp((adjusted(row, slot, penalty, i) - top) / temperature);
                    if p >= bound { part += select(p, 1.0, by_count); }
                }
                let enough = reduce_sum(lane, part) >= goal;
                low = select(low, middle, enough && low < high);
                high = select(middle - 1u, high, enough || low >= high);
            }
            least = bitcast<f32>(low);
        }
        var mass = 0.0;
        for (var i = first; i < last; i++) {
            let p = exp((adjusted(row, slot, penalty, i) - top) / temperature);
            if p >= least { mass += p; }
        }
        let total = reduce_sum(lane, mass);
        let goal = f32(hash(params[at + 6u] ^ hash(params[at + 7u])) >> 8u) * 0x1p-24f * total;
        // The token is in the range in which the running sum passes the goal.
        values[lane] = mass;
        places[lane] = 0xffffffffu;
        workgroupBarrier();
        var before = 0.0;
        for (var i = 0u; i < lane; i++) {
            before += values[i];
        }
        if before <= goal && before + mass > goal {
            var sum = before;
            for (var i = first; i < last; i++) {
                let p = exp((adjusted(row, slot, penalty, i) - top) / temperature);
                if p >= least {
                    sum += p;
                    places[lane] = i;
                    if sum > goal { break; }
                }
            }
        }
        workgroupBarrier();
        for (var i = 64u; i > 0u; i--) {
            if places[i - 1u] != 0xffffffffu { token = places[i - 1u]; }
        }
    }
    if lane == 0u {
        tokens[row] = select(0xffffffffu, token, all_finite);
        if all_finite { seen[slot * args.vocab + token] = 1u; }
    }
}
