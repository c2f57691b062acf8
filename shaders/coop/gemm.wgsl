// Matrix products, see `gemm`, by cooperative matrices of f16 with sums in f32: this stands for `gemm_passes`.
//
// A workgroup computes 64 x 64 results, in steps of DEPTH of k. In each step both factors are multiplied by powers of two, so
// that the largest value of a factor lies between 2^14 and 2^15. A value of at most 11 significant bits is then one term of f16;
// any other is two, of which the second is what the first leaves. The sums of the products (but of two second terms) are
// freed of the powers and added up in f32, step by step. So a value is used with an error of at most 2^-22 of itself, or 2^-28 of
// the largest one of the 64 x DEPTH. One that is not finite makes every result of the tile NaN.
//
// Matrices go through workgroup memory, because where a thread's part of one lies is the device's affair. A subgroup of WIDTH
// threads multiplies them.

// Whether matrices of f16 are multiplied.
const MATRICES = true;

const SIDE = 64u;
const DEPTH = 2u * TILE;
const THREADS = 256u;
const SUBGROUPS = THREADS / WIDTH;
// Blocks of 4 x 4 values of a factor.
const BLOCKS = SIDE * DEPTH / 16u;
// Elements from a row to the next; more than there are in it, to spread the memory banks.
const TERMS_ROW = DEPTH + 8u;
const SUMS_ROW = SIDE + 8u;
// Elements of all first or second terms of a factor.
const TERMS = SIDE * TERMS_ROW;
// Pairs of matrices side by side in the tile, and how many of them a subgroup computes.
const PAIRS = SIDE * SIDE / (2u * TILE * TILE);
const EACH = max(PAIRS / SUBGROUPS, 1u);
// vec4 of results of a thread.
const RESULTS = SIDE * SIDE / (4u * THREADS);

// First and second terms of the left factor, then of the right one: (64 rows or columns, DEPTH of k) each
var<workgroup> terms: array<f16, 4u * TERMS>;
var<workgroup> sums: array<f32, SIDE * SUMS_ROW>;
// The largest magnitude in each factor among the blocks of a subgroup, as bits.
var<workgroup> largest: array<vec2<u32>, SUBGROUPS>;

// The block of a thread in a step, as its number along the tile's side and along k.
fn block_of(lane: u32, along_k: bool) -> vec2<u32> {
    let i = lane % BLOCKS;
    return select(vec2<u32>(i % (SIDE / 4u), i / (SIDE / 4u)), vec2<u32>(i / (DEPTH / 4u), i % (DEPTH / 4u)), along_k);
}

// The first threads load the left factor, the next ones the right one.
fn take(lane: u32, row: u32, col: u32, k: u32, p: Problem) -> Block {
    var block: Block;
    if lane < BLOCKS {
        let at = vec2<u32>(row, k) + 4u * block_of(lane, p.a_along_k);
        if p.a_along_k { block = load_a(at.x, at.y); } else { block = load_a(at.y, at.x); }
    } else if lane < 2u * BLOCKS {
        let at = vec2<u32>(col, k) + 4u * block_of(lane, p.b_along_k);
        if p.b_along_k { block = load_b(at.x, at.y); } else { block = load_b(at.y, at.x); }
    }
    return block;
}

// The values of a block, each vec4 along k.
fn values(lane: u32, block: Block, p: Problem) -> Values {
    var found: Values;
    if lane < BLOCKS {
        found = values_a(block);
        if !p.a_along_k { found = transposed(found); }
    } else if lane < 2u * BLOCKS {
        found = values_b(block);
        if !p.b_along_k { found = transposed(found); }
    }
    return found;
}

fn magnitude(v: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// Splits four values along k into terms from element `at` on.
fn put_four(at: u32, v: vec4<f32>, one: bool) {
    let first = short(v);
    let high = vec4<f16>(first);
    terms[at] = high.x;
    terms[at + 1u] = high.y;
    terms[at + 2u] = high.z;
    terms[at + 3u] = high.w;
    if !one {
        let low = vec4<f16>(v - first);
        terms[TERMS + at] = low.x;
        terms[TERMS + at + 1u] = low.y;
        terms[TERMS + at + 2u] = low.z;
        terms[TERMS + at + 3u] = low.w;
    }
}

fn put(lane: u32, v: Values, powers: vec2<f32>, p: Problem) {
    if lane >= 2u * BLOCKS {
        return;
    }
    let right = lane >= BLOCKS;
    let block = block_of(lane, select(p.a_along_k, p.b_along_k, right));
    let at = select(0u, 2u * TERMS, right) + 4u * block.x * TERMS_ROW + 4u * block.y;
    let power = select(powers.x, powers.y, right);
    let one = p.fast | (right & p.b_short);
    put_four(at, v.x * power, one);
    put_four(at + TERMS_ROW, v.y * power, one);
    put_four(at + 2u * TERMS_ROW, v.z * power, one);
    put_four(at + 3u * TERMS_ROW, v.w * power, one);
}

// The sums of a step, for the pairs of matrices of this subgroup.
fn multiply(subgroup: u32) {
    let p = problem(vec3<u32>());
    for (var i = 0u; i < EACH; i++) {
        let pair = (subgroup * EACH + i) % PAIRS;
        let row = pair / (SIDE / (2u * TILE)) * TILE;
        let col = pair % (SIDE / (2u * TILE)) * 2u * TILE;
        var c0: coop_matT<f32, C>;
        var c1: coop_matT<f32, C>;
        for (var k = 0u; k < DEPTH; k += TILE) {
            let left = row * TERMS_ROW + k;
            let right = 2u * TERMS + col * TERMS_ROW + k;
            let next = right + TILE * TERMS_ROW;
            let a = coopLoadT<coop_matT<f16, A>>(&terms[left], TERMS_ROW);
            let b0 = coopLoad<coop_matT<f16, B>>(&terms[right], TERMS_ROW);
            let b1 = coopLoad<coop_matT<f16, B>>(&terms[next], TERMS_ROW);
            if !p.fast {
                let low = coopLoadT<coop_matT<f16, A>>(&terms[TERMS + left], TERMS_ROW);
                c0 = coopMultiplyAdd(low, b0, c0);
                c1 = coopMultiplyAdd(low, b1, c1);
            }
            if !(p.fast | p.b_short) {
                let low0 = coopLoad<coop_matT<f16, B>>(&terms[TERMS + right], TERMS_ROW);
                let low1 = coopLoad<coop_matT<f16, B>>(&terms[TERMS + next], TERMS_ROW);
                c0 = coopMultiplyAdd(a, low0, c0);
                c1 = coopMultiplyAdd(a, low1, c1);
            }
            c0 = coopMultiplyAdd(a, b0, c0);
            c1 = coopMultiplyAdd(a, b1, c1);
        }
        coopStoreT(c0, &sums[row * SUMS_ROW + col], SUMS_ROW);
        coopStoreT(c1, &sums[row * SUMS_ROW + col + TILE], SUMS_ROW);
    }
}

// The exponents of the largest magnitudes, as floats store them; those of the smallest numbers are raised, so that the powers are
// floats.
fn exponents() -> vec2<u32> {
    var most = vec2<u32>();
    for (var i = 0u; i < SUBGROUPS; i++) {
        most = max(most, largest[i]);
    }
    return max(most >> vec2<u32>(23u), vec2<u32>(15u));
}

// Two factors that undo the powers; NaN if a value was not finite.
fn undoing(exponents: vec2<u32>) -> vec2<f32> {
    let sum = i32(exponents.x) + i32(exponents.y) - 2 * 141;
    let half = sum / 2;
    let bits = vec2<u32>(vec2<i32>(127) + vec2<i32>(half, sum - half)) << vec2<u32>(23u);
    return bitcast<vec2<f32>>(select(bits, vec2<u32>(0x7fc00000u), max(exponents.x, exponents.y) == 255u));
}

// Sums up this workgroup's part of k, and stores the results if there is one part only.
@compute @workgroup_size(THREADS)
fn matrices(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    if !begin(wid, groups) {
        return;
    }
    let p = problem(wid);
    let at = place(wid, groups);
    let row = wid.y * SIDE;
    let col = wid.x * SIDE;
    let range = (p.k + DEPTH * at.parts - 1u) / (DEPTH * at.parts) * DEPTH;
    let end = min((at.part + 1u) * range, p.k);
    var total: array<vec4<f32>, RESULTS>;
    var block = take(lane, row, col, at.part * range, p);
    for (var k = at.part * range; k < end; k += DEPTH) {
        let v = values(lane, block, p);
        let most = max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
        let left = subgroupMax(select(0u, most, lane < BLOCKS));
        let right = subgroupMax(select(most, 0u, lane < BLOCKS));
        if member == 0u {
            largest[subgroup] = vec2<u32>(left, right);
        }
        workgroupBarrier();
        let found = exponents();
        put(lane, v, bitcast<vec2<f32>>((268u - found) << vec2<u32>(23u)), p);
        workgroupBarrier();
        block = take(lane, row, col, k + DEPTH, p);
        multiply(subgroup);
        workgroupBarrier();
        let undo = undoing(found);
        for (var i = 0u; i < RESULTS; i++) {
            let e = lane + i * THREADS;
            let s = e / (SIDE / 4u) * SUMS_ROW + e % (SIDE / 4u) * 4u;
            total[i] += undo.y * (undo.x * vec4<f32>(sums[s], sums[s + 1u], sums[s + 2u], sums[s + 3u]));
        }
    }
    for (var i = 0u; i < RESULTS; i++) {
        let e = lane + i * THREADS;
        if at.parts == 1u {
            store(row + e / (SIDE / 4u), col + e % (SIDE / 4u) * 4u, total[i]);
        } else {
            scratch[(at.slot + at.part * at.next) * RESULTS * THREADS + e] = total[i];
        }
    }
}

// Adds up the parts of a tile. Each workgroup that summed up a part does a share of the tile.
@compute @workgroup_size(THREADS)
fn finish_matrices(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if !begin(wid, groups) {
        return;
    }
    let at = place(wid, groups);
    for (var e = lane + at.part * THREADS; e < RESULTS * THREADS; e += at.parts * THREADS) {
        var sum = vec4<f32>();
        for (var part = 0u; part < at.parts; part++) {
            sum += scratch[(at.slot + part * at.next) * RESULTS * THREADS + e];
        }
        store(wid.y * SIDE + e / (SIDE / 4u), wid.x * SIDE + e % (SIDE / 4u) * 4u, sum);
    }
}
