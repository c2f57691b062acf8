// Draws a token for each row of logits, and marks it as seen. A row with a logit that is not finite gives 0xffffffff.
//
// params[r] are eight words: slot (one beyond `bias`, such as 0xffffffff, or of a row before: draw nothing), 1 / temperature,
// top_k, top_p, min_p, repetition penalty, seed, counter; floats by their bits. l = logits + bias[slot]; for seen tokens
// l / penalty where positive, else l * penalty. 1 / temperature = 0 takes the largest, the first of equals; otherwise
// p = exp((l - max) / temperature), cut to those of at least min_p, then to the top_k largest, then to the fewest largest that
// hold top_p of what is left. The token is the first whose running sum of kept p exceeds u times their sum, u a hash of seed
// and counter. Sums are those of the integers floor(p * 2^28), so their order does not matter: a row draws what the CPU draws.
//
// A workgroup takes a block of 1,024 tokens of a row. `main` finds the block's largest logit; `weigh` makes p and counts it by
// its bits, which order it, in 1,024 bins; `narrow` finds the bins in which the thresholds lie, and collects their p; `pick`, a
// workgroup for each row, finds the thresholds among these, then the block of the token, then the token.

//#import hash

struct Args { rows: u32, vocab: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, vocab)
@group(0) @binding(2) var<storage, read> bias: array<f32>; // (slots, vocab)
@group(0) @binding(3) var<storage, read> params: array<u32>; // (rows, 8)
@group(0) @binding(4) var<storage, read_write> seen: array<u32>; // (slots, vocab)
@group(0) @binding(5) var<storage, read_write> tokens: array<u32>; // (rows)
// For each row: the number of tokens in each bin, and three words of 16 bits of the sum of their integers (4, 1024); for each
// block its largest logit, that token, the sum of its integers that are certainly kept in two words of 16 bits, and how many
// of its p are undecided (5, blocks); of each block the logits, then p, then those that are undecided (blocks, 1024).
@group(0) @binding(6) var<storage, read_write> scratch: array<atomic<u32>>;

const BINS = 1024u; // also the tokens of a block
const NONE = 0xffffffffu;
const LEAST = 0x31800000u; // 2^-28

// Of bins, or of the tokens of a block: how many, and two words of 16 bits of sums.
var<workgroup> counts: array<atomic<u32>, 1024>;
var<workgroup> low: array<atomic<u32>, 1024>;
var<workgroup> high: array<atomic<u32>, 1024>;
// Values of threads: two words of 32 bits of a sum, or a float and its place.
var<workgroup> pairs: array<vec2<u32>, 256>;
var<workgroup> found: vec3<u32>;
var<workgroup> undecided: atomic<u32>;

// Zero, which the compiler does not know.
var<private> zero: u32;
// The row of this workgroup, and its slot.
var<private> row: u32;
var<private> slot: u32;

// A row's parameters.
fn param(r: u32, i: u32) -> u32 {
    return params[r * 8u + i];
}

fn number(r: u32, i: u32) -> f32 {
    return bitcast<f32>(param(r, i));
}

fn blocks() -> u32 {
    return (args.vocab + BINS - 1u) / BINS;
}

// Where the row's words start in `scratch`: those of bins, of blocks, of tokens.
fn bins_at() -> u32 {
    return row * (4u * BINS + blocks() * (5u + BINS));
}

fn block_at(part: u32, block: u32) -> u32 {
    return bins_at() + 4u * BINS + part * blocks() + block;
}

fn tokens_at(block: u32) -> u32 {
    return bins_at() + 4u * BINS + 5u * blocks() + block * BINS;
}

// Whether the row draws a token.
fn draws(r: u32) -> bool {
    zero = args.rows >> 31u;
    row = r;
    let own = params[r * 8u];
    slot = own;
    var all = own < min(arrayLength(&bias), arrayLength(&seen)) / args.vocab;
    for (var before = 0u; before < r; before++) {
        all = all && params[before * 8u] != own;
    }
    return all;
}

fn cuts_to_count(r: u32) -> bool {
    return param(r, 2u) != 0u && param(r, 2u) < args.vocab;
}

fn cuts_to_mass(r: u32) -> bool {
    return number(r, 3u) < 1.0;
}

// The logit of token i, with bias and penalty.
fn adjusted(i: u32) -> f32 {
    var l = logits[row * args.vocab + i] + bias[slot * args.vocab + i];
    if seen[slot * args.vocab + i] != 0u {
        let penalty = number(row, 5u);
        l = select(l * penalty, l / penalty, l > 0.0);
    }
    return clamp(l, -3.0e38, 3.0e38);
}

// x by way of its bits: a compiler can neither fuse nor reorder what is around it. So the bits are those of the CPU.
fn exact(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ zero);
}

fn term(p: f32, r: f32, c: f32) -> f32 {
    return exact(exact(p * r) + c);
}

// e^x for x <= 0, as on the CPU; 0 below -86.5.
fn exp_exact(full: f32) -> f32 {
    let x = max(full, -86.5);
    let shifted = exact(exact(x * 1.44269504) + 12582912.0);
    let k = exact(shifted - 12582912.0);
    let r = exact(exact(x - exact(k * 0.693359375)) - exact(k * -2.12194440e-4));
    var p = term(1.9875692e-4, r, 1.3982e-3);
    p = term(p, r, 8.333452e-3);
    p = term(p, r, 4.1665796e-2);
    p = term(p, r, 1.6666665e-1);
    p = term(p, r, 0.5);
    p = exact(exact(exact(p * exact(r * r)) + r) + 1.0);
    let half = bitcast<f32>((bitcast<u32>(shifted) + 126u) << 23u);
    return select(p * half * 2.0, 0.0, full < -86.5);
}

// p of a logit; 0 where that is too small to count.
fn weight(l: f32, top: f32) -> f32 {
    let p = exp_exact(exact(l - top) * number(row, 1u));
    return select(0.0, p, p >= max(number(row, 4u), bitcast<f32>(LEAST)));
}

// The order of a p that counts, in 28 bits: the upper 10 are its bin.
fn key(p: f32) -> u32 {
    return bitcast<u32>(p) - LEAST;
}

fn integer(p: f32) -> u32 {
    return u32(p * 0x1p28f);
}

// Sums of 64 bits, as two words.
fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let sum = a + b;
    return vec2<u32>(sum.x, sum.y + u32(sum.x < a.x));
}

fn minus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let rest = a - b;
    return vec2<u32>(rest.x, rest.y - u32(a.x < b.x));
}

fn reaches(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y > b.y || (a.y == b.y && a.x >= b.x);
}

// The sum of the two words of 16 bits, which may have more bits.
fn wide(lower: u32, upper: u32) -> vec2<u32> {
    return plus(vec2<u32>(lower, 0u), vec2<u32>(upper << 16u, upper >> 16u));
}

// floor(sum * part / 2^24), for a part below 2^24.
fn portion(sum: vec2<u32>, part: u32) -> vec2<u32> {
    var all = vec2<u32>();
    for (var bit = 0u; bit < 24u; bit++) {
        all = plus(all, select(vec2<u32>(), sum, ((part >> bit) & 1u) != 0u));
        all = vec2<u32>((all.x >> 1u) | (all.y << 31u), all.y >> 1u);
    }
    return all;
}

// The larger of two floats with their places, the first of equals. NONE as a place beats all.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let x = bitcast<f32>(a.x);
    let y = bitcast<f32>(b.x);
    let second = a.y != NONE && (b.y == NONE || y > x || (y == x && b.y < a.y));
    return select(a, b, second);
}

fn best_of_all(lane: u32, mine: vec2<u32>) -> vec2<u32> {
    pairs[lane] = mine;
    workgroupBarrier();
    for (var n = 128u; n > 0u; n /= 2u) {
        if lane < n { pairs[lane] = better(pairs[lane], pairs[lane + n]); }
        workgroupBarrier();
    }
    let best = pairs[0];
    workgroupBarrier();
    return best;
}

// The row's largest logit and its token.
fn best_of_row(lane: u32) -> vec2<u32> {
    var best = vec2<u32>(bitcast<u32>(-3.4e38), NONE - 1u);
    for (var b = lane; b < blocks(); b += 256u) {
        best = better(best, vec2<u32>(atomicLoad(&scratch[block_at(0u, b)]), atomicLoad(&scratch[block_at(1u, b)])));
    }
    return best_of_all(lane, best);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if !draws(wid.y) {
        return;
    }
    for (var i = wid.x * 256u + lane; i < 4u * BINS; i += blocks() * 256u) {
        atomicStore(&scratch[bins_at() + i], 0u);
    }
    var best = vec2<u32>(bitcast<u32>(-3.4e38), NONE - 1u);
    for (var j = lane; j < BINS; j += 256u) {
        let i = wid.x * BINS + j;
        if i < args.vocab {
            // By its bits, since compilers may assume that floats are finite.
            let finite = (bitcast<u32>(logits[row * args.vocab + i]) & 0x7f800000u) != 0x7f800000u;
            let l = bitcast<u32>(adjusted(i));
            atomicStore(&scratch[tokens_at(wid.x) + j], l);
            best = better(best, vec2<u32>(l, select(NONE, i, finite)));
        }
    }
    best = best_of_all(lane, best);
    if lane == 0u {
        atomicStore(&scratch[block_at(0u, wid.x)], best.x);
        atomicStore(&scratch[block_at(1u, wid.x)], best.y);
    }
}

fn clear(lane: u32) {
    for (var i = lane; i < BINS; i += 256u) {
        atomicStore(&counts[i], 0u);
        atomicStore(&low[i], 0u);
        atomicStore(&high[i], 0u);
    }
    workgroupBarrier();
}

// Adds p to a bin: as 1, or as its integer.
fn add(bin: u32, p: f32, by_count: bool) {
    let n = select(integer(p), 1u, by_count);
    atomicAdd(&low[bin], n & 0xffffu);
    atomicAdd(&high[bin], n >> 16u);
}

@compute @workgroup_size(256)
fn weigh(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if !draws(wid.y) || number(wid.y, 1u) == 0.0 {
        return;
    }
    let top = bitcast<f32>(best_of_row(lane).x);
    clear(lane);
    for (var j = lane; j < BINS; j += 256u) {
        if wid.x * BINS + j < args.vocab {
            let at = tokens_at(wid.x) + j;
            let p = weight(bitcast<f32>(atomicLoad(&scratch[at])), top);
            atomicStore(&scratch[at], bitcast<u32>(p));
            if p > 0.0 {
                atomicAdd(&counts[key(p) >> 18u], 1u);
                add(key(p) >> 18u, p, false);
            }
        }
    }
    if !cuts_to_count(wid.y) && !cuts_to_mass(wid.y) {
        return;
    }
    workgroupBarrier();
    for (var bin = lane; bin < BINS; bin += 256u) {
        let count = atomicLoad(&counts[bin]);
        if count > 0u {
            let sum = wide(atomicLoad(&low[bin]), atomicLoad(&high[bin]));
            let at = bins_at() + bin;
            atomicAdd(&scratch[at], count);
            atomicAdd(&scratch[at + BINS], sum.x & 0xffffu);
            atomicAdd(&scratch[at + 2u * BINS], sum.x >> 16u);
            atomicAdd(&scratch[at + 3u * BINS], sum.y);
        }
    }
}

// Takes the numbers or the sums of the row's bins from `first` on; the others are left empty.
fn load_bins(lane: u32, first: u32, by_count: bool) {
    clear(lane);
    for (var bin = lane; bin < BINS; bin += 256u) {
        let at = bins_at() + bin;
        if bin >= first && by_count {
            atomicStore(&low[bin], atomicLoad(&scratch[at]));
        } else if bin >= first {
            // The third word fits: a sum is below 2^48.
            let sum = wide(atomicLoad(&scratch[at + BINS]), atomicLoad(&scratch[at + 2u * BINS]));
            let all = plus(sum, vec2<u32>(0u, atomicLoad(&scratch[at + 3u * BINS])));
            atomicStore(&low[bin], all.x & 0xffffu);
            atomicStore(&high[bin], (all.x >> 16u) | (all.y << 16u));
        }
    }
    workgroupBarrier();
}

// The sum of the four bins of each thread and of those of all threads behind it, in `pairs`; returns the sum of all.
fn sum_up(lane: u32) -> vec2<u32> {
    var sum = vec2<u32>();
    for (var bin = lane * 4u; bin < lane * 4u + 4u; bin++) {
        sum = plus(sum, wide(atomicLoad(&low[bin]), atomicLoad(&high[bin])));
    }
    pairs[lane] = sum;
    workgroupBarrier();
    for (var n = 1u; n < 256u; n *= 2u) {
        var more = vec2<u32>();
        if lane + n < 256u { more = pairs[lane + n]; }
        workgroupBarrier();
        pairs[lane] = plus(pairs[lane], more);
        workgroupBarrier();
    }
    return pairs[0];
}

// After `sum_up`: the last bin for which it and those behind it reach the goal, which is not 0, and the sum of those behind it.
// NONE if all do not reach it.
fn crossing(lane: u32, goal: vec2<u32>) -> vec3<u32> {
    if lane == 0u { found = vec3<u32>(NONE, 0u, 0u); }
    workgroupBarrier();
    var behind = vec2<u32>();
    if lane < 255u { behind = pairs[lane + 1u]; }
    if reaches(pairs[lane], goal) && !reaches(behind, goal) {
        for (var i = 4u; i > 0u; i--) {
            let bin = lane * 4u + i - 1u;
            let sum = plus(behind, wide(atomicLoad(&low[bin]), atomicLoad(&high[bin])));
            if reaches(sum, goal) {
                found = vec3<u32>(bin, behind.x, behind.y);
                break;
            }
            behind = sum;
        }
    }
    workgroupBarrier();
    let result = found;
    workgroupBarrier();
    return result;
}

// What the largest p must hold together, of this sum.
fn mass_goal(sum: vec2<u32>) -> vec2<u32> {
    let goal = portion(sum, u32(max(number(row, 3u), 0.0) * 0x1p24f));
    return select(goal, vec2<u32>(1u, 0u), goal.x == 0u && goal.y == 0u);
}

@compute @workgroup_size(256)
fn narrow(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if !draws(wid.y) || number(wid.y, 1u) == 0.0 {
        return;
    }
    // Bins from `kept` on are kept, those from `first` to it are undecided.
    var first = 0u;
    var kept = 0u;
    if cuts_to_count(wid.y) {
        load_bins(lane, 0u, true);
        sum_up(lane);
        let bin = crossing(lane, vec2<u32>(param(wid.y, 2u), 0u)).x;
        first = select(bin, 0u, bin == NONE);
        kept = select(bin + 1u, 0u, bin == NONE);
    }
    if cuts_to_mass(wid.y) {
        // After a cut to the largest, at least the bins that are kept are left.
        load_bins(lane, kept, false);
        let bin = crossing(lane, mass_goal(sum_up(lane))).x;
        first = select(first, bin, kept == 0u && bin != NONE);
        // Nothing is kept for certain if the sum is 0: the largest are then in the first bin.
        kept = select(bin + 1u, BINS, bin == NONE);
    }
    clear(lane);
    if lane == 0u { atomicStore(&undecided, 0u); }
    var mine: array<f32, 4>;
    for (var j = 0u; j < 4u; j++) {
        let at = lane + j * 256u;
        mine[j] = 0.0;
        if wid.x * BINS + at < args.vocab {
            mine[j] = bitcast<f32>(atomicLoad(&scratch[tokens_at(wid.x) + at]));
        }
    }
    workgroupBarrier();
    var sum = vec2<u32>();
    for (var j = 0u; j < 4u; j++) {
        let bin = key(mine[j]) >> 18u;
        if mine[j] > 0.0 && bin >= kept {
            sum += vec2<u32>(integer(mine[j]) & 0xffffu, integer(mine[j]) >> 16u);
        } else if mine[j] > 0.0 && bin >= first {
            atomicStore(&scratch[tokens_at(wid.x) + atomicAdd(&undecided, 1u)], bitcast<u32>(mine[j]));
        }
    }
    atomicAdd(&low[0], sum.x);
    atomicAdd(&high[0], sum.y);
    workgroupBarrier();
    if lane == 0u {
        atomicStore(&scratch[block_at(2u, wid.x)], atomicLoad(&low[0]));
        atomicStore(&scratch[block_at(3u, wid.x)], atomicLoad(&high[0]));
        atomicStore(&scratch[block_at(4u, wid.x)], atomicLoad(&undecided));
    }
}

// Adds the undecided p whose key is at least `least` and starts with `prefix`, to bins by further bits of the key. With a
// `shift` of 32, all of them by their block, the last one first.
fn gather(lane: u32, least: u32, shift: u32, prefix: u32, further: u32, by_count: bool) {
    for (var b = lane / 4u; b < blocks(); b += 64u) {
        let n = atomicLoad(&scratch[block_at(4u, b)]);
        for (var j = lane % 4u; j < n; j += 4u) {
            let p = bitcast<f32>(atomicLoad(&scratch[tokens_at(b) + j]));
            let k = key(p);
            if k < least {
                continue;
            }
            if shift == 32u {
                add(BINS - 1u - b, p, by_count);
            } else if k >> shift == prefix {
                add((k >> further) & (BINS - 1u), p, by_count);
            }
        }
    }
    workgroupBarrier();
}

// The largest threshold at which p of at least `least` reach the goal, given the bin in which it lies with the sum behind it.
fn threshold(lane: u32, in_bin: vec3<u32>, goal: vec2<u32>, least: u32, by_count: bool) -> u32 {
    var rest = minus(goal, in_bin.yz);
    clear(lane);
    gather(lane, least, 18u, in_bin.x, 8u, by_count);
    sum_up(lane);
    let middle = crossing(lane, rest);
    rest = minus(rest, middle.yz);
    clear(lane);
    // The upper 2 of these 10 bits are those of `middle`, and the same for all.
    gather(lane, least, 8u, (in_bin.x << 10u) | middle.x, 0u, by_count);
    sum_up(lane);
    let end = crossing(lane, rest);
    return select((in_bin.x << 18u) | (middle.x << 8u) | (end.x & 0xffu), least, in_bin.x == NONE);
}

@compute @workgroup_size(256)
fn pick(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if !draws(wid.y) {
        if lane == 0u { tokens[wid.y] = NONE; }
        return;
    }
    let best = best_of_row(lane);
    var token = best.y;
    if number(wid.y, 1u) != 0.0 {
        var least = 0u;
        if cuts_to_count(wid.y) {
            load_bins(lane, 0u, true);
            sum_up(lane);
            let goal = vec2<u32>(param(wid.y, 2u), 0u);
            least = threshold(lane, crossing(lane, goal), goal, least, true);
        }
        if cuts_to_mass(wid.y) {
            // The bin of the threshold so far is left in part.
            load_bins(lane, (least >> 18u) + u32(least != 0u), false);
            gather(lane, least, 18u, select(NONE, least >> 18u, least != 0u), 18u, false);
            let goal = mass_goal(sum_up(lane));
            least = threshold(lane, crossing(lane, goal), goal, least, false);
        }
        // The running sum is in reversed order here: the first block and the first token come last.
        clear(lane);
        for (var b = lane; b < blocks(); b += 256u) {
            atomicStore(&low[BINS - 1u - b], atomicLoad(&scratch[block_at(2u, b)]));
            atomicStore(&high[BINS - 1u - b], atomicLoad(&scratch[block_at(3u, b)]));
        }
        workgroupBarrier();
        gather(lane, least, 32u, 0u, 0u, false);
        let u = hash(param(wid.y, 6u) ^ hash(param(wid.y, 7u))) >> 8u;
        let goal = plus(portion(sum_up(lane), u), vec2<u32>(1u, 0u));
        let block = crossing(lane, goal);
        clear(lane);
        let start = (BINS - 1u - block.x) * BINS;
        for (var j = lane; j < BINS; j += 256u) {
            if block.x != NONE && start + j < args.vocab {
                let p = weight(adjusted(start + j), bitcast<f32>(best.x));
                if p > 0.0 && key(p) >= least { add(BINS - 1u - j, p, false); }
            }
        }
        workgroupBarrier();
        sum_up(lane);
        let place = crossing(lane, minus(goal, block.yz));
        token = select(start + BINS - 1u - place.x, token, block.x == NONE || place.x == NONE);
    }
    if lane == 0u {
        let finite = best.y != NONE;
        tokens[row] = select(NONE, token, finite);
        if finite { seen[slot * args.vocab + token] = 1u; }
    }
}
