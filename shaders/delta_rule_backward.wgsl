// Gradients of `delta_rule` over sequences of `seq` rows, with respect to x and to the gates, from dy and from the states before
// every 32nd row, which training kept; of `count` heads from number `first` on, all heads of a sequence before those of the next.
//
// Chunks of 32 rows are taken in the WY form (Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule over
// Sequence Length"). With k and q of their lengths, S the state before the chunk, D the gradient of the state behind it, and
// G_t the sum of the logarithms of decay up to row t in the chunk:
// - ratio_ti = e^(G_t - G_i) for i <= t in one document, otherwise 0; c_t = e^G_t if the document began before the chunk,
//   otherwise 0; r_i = ratio_(31)i;
// - M_ti = ratio_ti k_t.k_i for i < t, N_ti = ratio_ti q_t.k_i for i <= t;
// - z_t = v_t - c_t S^T k_t - sum over i < t of M_ti b_i z_i, what a row corrects, u_t = b_t z_t, and y_t = c_t S^T q_t + sum over
//   i of N_ti u_i;
// - x_t = sum over s of N_st dy_s + r_t D^T k_t - sum over s > t of b_s M_st x_s, the gradient of b_t z_t.
//
// Then db_t = x_t.z_t and dv_t = b_t x_t; the others follow from those of M, N, c and r. The gradient of the state before the
// chunk is c_31 D + sum over t of c_t (q_t dy_t^T - b_t k_t x_t^T).
//
// The first pass makes M and N of each chunk, the second z, the third walks the chunks from the last to the first for x and D, and
// the last makes the gradients. A thread of the second and third has a column.

struct Args { rows: u32, heads: u32, key_size: u32, value_size: u32, seq: u32, first: u32, count: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, heads * (value_size + 2 * key_size))
@group(0) @binding(2) var<storage, read> gates: array<f32>; // (rows, 2, heads)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(4) var<storage, read> states: array<f32>; // (sequences, ceil(seq / 32), heads, key_size, value_size)
@group(0) @binding(5) var<storage, read> dy: array<f32>; // (rows, heads, value_size)
@group(0) @binding(6) var<storage, read_write> dx: array<f32>; // like x
@group(0) @binding(7) var<storage, read_write> dgates: array<f32>; // (rows, 2, heads)
// For each chunk and head: M and N (32, 32), then for each row what `Row` has, z and x (32, value_size), D (key_size, value_size)
@group(0) @binding(8) var<storage, read_write> scratch: array<f32>;

// A row of a chunk.
struct Row {
    log: f32, // G_t, from the start of the document
    start: f32, // the first row of the document in the chunk
    carried: f32, // c_t
    left: f32, // r_t
    to_key: f32, // what makes keys and queries of their lengths
    to_query: f32,
}

// A chunk of a head.
struct Chunk {
    h: u32,
    row: u32, // the first row
    rows: u32,
    at: u32, // where its scratch begins
    state: u32, // where the state before it is
}

const M = 0u;
const N = 1024u;
const ROWS = 2048u;
const VALUES = 2240u; // 2048 + 6 * 32

fn chunks() -> u32 {
    return (args.seq + 31u) / 32u;
}

fn chunk_of(number: u32, head: u32) -> Chunk {
    let unit = head * chunks() + number;
    let size = args.key_size * args.value_size;
    let b = (args.first + head) / args.heads;
    let h = (args.first + head) % args.heads;
    let state = ((b * chunks() + number) * args.heads + h) * size;
    let first = number * 32u;
    return Chunk(h, b * args.seq + first, min(args.seq - first, 32u), unit * (VALUES + 64u * args.value_size + size), state);
}

fn z_at(chunk: Chunk) -> u32 {
    return chunk.at + VALUES;
}

fn x_at(chunk: Chunk) -> u32 {
    return chunk.at + VALUES + 32u * args.value_size;
}

fn d_at(chunk: Chunk) -> u32 {
    return chunk.at + VALUES + 64u * args.value_size;
}

fn row_of(chunk: Chunk, t: u32) -> Row {
    let at = chunk.at + ROWS + t;
    return Row(
        scratch[at], scratch[at + 32u], scratch[at + 64u], scratch[at + 96u], scratch[at + 128u], scratch[at + 160u],
    );
}

// Where the value, the key and the query of a row begin in x.
fn value_at(chunk: Chunk, t: u32) -> u32 {
    return (chunk.row + t) * args.heads * (args.value_size + 2u * args.key_size) + chunk.h * args.value_size;
}

fn key_at(chunk: Chunk, t: u32) -> u32 {
    let cols = args.heads * (args.value_size + 2u * args.key_size);
    return (chunk.row + t) * cols + args.heads * args.value_size + chunk.h * args.key_size;
}

fn query_at(chunk: Chunk, t: u32) -> u32 {
    return key_at(chunk, t) + args.heads * args.key_size;
}

fn dy_at(chunk: Chunk, t: u32) -> u32 {
    return ((chunk.row + t) * args.heads + chunk.h) * args.value_size;
}

fn beta(chunk: Chunk, t: u32) -> f32 {
    return gates[(chunk.row + t) * 2u * args.heads + chunk.h];
}

fn to_key(chunk: Chunk, t: u32) -> f32 {
    return scratch[chunk.at + ROWS + 128u + t];
}

fn to_query(chunk: Chunk, t: u32) -> f32 {
    return scratch[chunk.at + ROWS + 160u + t];
}

fn ratio(early: Row, late: Row) -> f32 {
    return exp(late.log - early.log);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let chunk = chunk_of(wid.x, wid.y);
    if lane < 32u {
        var log = 0.0;
        var start = 0u;
        var carried = 1.0;
        for (var t = 0u; t < min(lane + 1u, chunk.rows); t++) {
            log += gates[(chunk.row + t) * 2u * args.heads + args.heads + chunk.h];
            if positions[chunk.row + t] == 0u {
                log = 0.0;
                start = t;
                carried = 0.0;
            }
        }
        // The last row has these too.
        var end = log;
        var end_start = start;
        for (var t = lane + 1u; t < chunk.rows; t++) {
            end += gates[(chunk.row + t) * 2u * args.heads + args.heads + chunk.h];
            if positions[chunk.row + t] == 0u {
                end_start = t;
            }
        }
        var key = 0.0;
        var query = 0.0;
        if lane < chunk.rows {
            let at = key_at(chunk, lane);
            let at_query = query_at(chunk, lane);
            for (var i = 0u; i < args.key_size; i++) {
                key += x[at + i] * x[at + i];
                query += x[at_query + i] * x[at_query + i];
            }
        }
        let at = chunk.at + ROWS + lane;
        scratch[at] = log;
        scratch[at + 32u] = f32(start);
        scratch[at + 64u] = carried * exp(log);
        scratch[at + 96u] = select(0.0, exp(end - log), end_start <= lane);
        scratch[at + 128u] = 1.0 / sqrt(key + 1e-6);
        scratch[at + 160u] = 1.0 / sqrt((query + 1e-6) * f32(args.key_size));
    }
    storageBarrier();
    for (var e = lane; e < 1024u; e += 64u) {
        let t = e / 32u;
        let i = e % 32u;
        let to = row_of(chunk, t);
        let early = row_of(chunk, i);
        var keys = 0.0;
        var queries = 0.0;
        if i <= t && t < chunk.rows && f32(i) >= to.start {
            for (var c = 0u; c < args.key_size; c++) {
                let k = x[key_at(chunk, i) + c];
                keys += x[key_at(chunk, t) + c] * k;
                queries += x[query_at(chunk, t) + c] * k;
            }
            let factor = ratio(early, to) * early.to_key;
            keys *= select(factor * to.to_key, 0.0, i == t);
            queries *= factor * to.to_query;
        }
        scratch[chunk.at + M + e] = keys;
        scratch[chunk.at + N + e] = queries;
    }
}

@compute @workgroup_size(64)
fn correct(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let blocks = (args.value_size + 63u) / 64u;
    let chunk = chunk_of(wid.x / blocks, wid.y);
    let j = wid.x % blocks * 64u + lane;
    if j >= args.value_size {
        return;
    }
    for (var t = 0u; t < 32u; t++) {
        var z = 0.0;
        if t < chunk.rows {
            for (var c = 0u; c < args.key_size; c++) {
                z += x[key_at(chunk, t) + c] * states[chunk.state + c * args.value_size + j];
            }
            let row = row_of(chunk, t);
            z = x[value_at(chunk, t) + j] - row.carried * row.to_key * z;
            for (var i = u32(row.start); i < t; i++) {
                z -= scratch[chunk.at + M + t * 32u + i] * beta(chunk, i) * scratch[z_at(chunk) + i * args.value_size + j];
            }
        }
        scratch[z_at(chunk) + t * args.value_size + j] = z;
    }
}

@compute @workgroup_size(64)
fn carry(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let j = wid.x * 64u + lane;
    let size = args.value_size;
    if j >= size {
        return;
    }
    for (var number = chunks(); number > 0u; number--) {
        let chunk = chunk_of(number - 1u, wid.y);
        let d = d_at(chunk) + j;
        if number == chunks() {
            for (var c = 0u; c < args.key_size; c++) {
                scratch[d + c * size] = 0.0;
            }
        }
        for (var left = 32u; left > 0u; left--) {
            let t = left - 1u;
            var value = 0.0;
            if t < chunk.rows {
                for (var c = 0u; c < args.key_size; c++) {
                    value += x[key_at(chunk, t) + c] * scratch[d + c * size];
                }
                let row = row_of(chunk, t);
                value *= row.left * row.to_key;
                for (var s = t; s < chunk.rows; s++) {
                    value += scratch[chunk.at + N + s * 32u + t] * dy[dy_at(chunk, s) + j];
                }
                for (var s = t + 1u; s < chunk.rows; s++) {
                    value -= scratch[chunk.at + M + s * 32u + t] * beta(chunk, s) * scratch[x_at(chunk) + s * size + j];
                }
            }
            scratch[x_at(chunk) + t * size + j] = value;
        }
        if number > 1u {
            let before = d_at(chunk_of(number - 2u, wid.y)) + j;
            let carried = row_of(chunk, 31u).carried;
            for (var c = 0u; c < args.key_size; c++) {
                var sum = carried * scratch[d + c * size];
                for (var t = 0u; t < chunk.rows; t++) {
                    let row = row_of(chunk, t);
                    let by_query = row.to_query * x[query_at(chunk, t) + c] * dy[dy_at(chunk, t) + j];
                    let by_key = row.to_key * x[key_at(chunk, t) + c] * scratch[x_at(chunk) + t * size + j];
                    sum += row.carried * (by_query - beta(chunk, t) * by_key);
                }
                scratch[before + c * size] = sum;
            }
        }
    }
}

var<workgroup> dm: array<f32, 1024>; // gradients of M and N, times their ratios
var<workgroup> dn: array<f32, 1024>;
var<workgroup> changes: array<f32, 1024>; // what they give to those of G
var<workgroup> sums: array<vec4<f32>, 64>;
var<workgroup> more: array<vec2<f32>, 64>;
var<workgroup> dlog: array<f32, 32>; // the gradient of G

@compute @workgroup_size(64)
fn gradients(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let chunk = chunk_of(wid.x, wid.y);
    let size = args.value_size;
    for (var e = lane; e < 1024u; e += 64u) {
        let t = e / 32u;
        let i = e % 32u;
        let to = row_of(chunk, t);
        var to_m = 0.0;
        var to_n = 0.0;
        var change = 0.0;
        if i <= t && t < chunk.rows && f32(i) >= to.start {
            for (var j = 0u; j < size; j++) {
                let z = scratch[z_at(chunk) + i * size + j];
                to_n += dy[dy_at(chunk, t) + j] * z;
                to_m += scratch[x_at(chunk) + t * size + j] * z;
            }
            to_n *= beta(chunk, i);
            to_m *= select(-beta(chunk, t) * beta(chunk, i), 0.0, i == t);
            if i < t {
                change = to_n * scratch[chunk.at + N + e] + to_m * scratch[chunk.at + M + e];
            }
            let factor = ratio(row_of(chunk, i), to);
            to_n *= factor;
            to_m *= factor;
        }
        dm[e] = to_m;
        dn[e] = to_n;
        changes[e] = change;
    }
    workgroupBarrier();
    // Two threads share a row.
    let t = lane % 32u;
    let half = lane / 32u;
    let row = row_of(chunk, t);
    var b = 0.0;
    if t < chunk.rows {
        b = beta(chunk, t);
    }
    // Of the gradients along query and key; what the states before and behind the chunk give to that of G_t.
    var sum = vec4<f32>();
    // Of S and D, over all threads, and x.z.
    var both = vec2<f32>();
    let end = select(args.key_size / 2u, args.key_size, half == 1u);
    for (var c = half * (args.key_size / 2u); c < end; c++) {
        if t < chunk.rows {
            var by_dy = 0.0;
            var by_x = 0.0;
            var by_u = 0.0;
            for (var j = 0u; j < size; j++) {
                let s = states[chunk.state + c * size + j];
                by_dy += s * dy[dy_at(chunk, t) + j];
                by_x += s * scratch[x_at(chunk) + t * size + j];
                by_u += scratch[d_at(chunk) + c * size + j] * scratch[z_at(chunk) + t * size + j];
            }
            by_dy *= row.carried;
            by_x *= -row.carried * b;
            by_u *= row.left * b;
            var to_query_c = by_dy;
            var to_key_c = by_x + by_u;
            for (var i = 0u; i < chunk.rows; i++) {
                let k = to_key(chunk, i) * x[key_at(chunk, i) + c];
                let q = to_query(chunk, i) * x[query_at(chunk, i) + c];
                to_query_c += dn[t * 32u + i] * k;
                to_key_c += dn[i * 32u + t] * q + (dm[t * 32u + i] + dm[i * 32u + t]) * k;
            }
            let k = row.to_key * x[key_at(chunk, t) + c];
            let q = row.to_query * x[query_at(chunk, t) + c];
            sum += vec4<f32>(q * to_query_c, k * to_key_c, q * by_dy + k * by_x, k * by_u);
            dx[key_at(chunk, t) + c] = to_key_c;
            dx[query_at(chunk, t) + c] = to_query_c;
        }
    }
    for (var i = lane; i < args.key_size * size; i += 64u) {
        both.x += states[chunk.state + i] * scratch[d_at(chunk) + i];
    }
    if t < chunk.rows {
        for (var j = half; j < size; j += 2u) {
            let value = scratch[x_at(chunk) + t * size + j];
            both.y += value * scratch[z_at(chunk) + t * size + j];
            dx[value_at(chunk, t) + j] = b * value;
        }
    }
    sums[lane] = sum;
    more[lane] = both;
    workgroupBarrier();
    let all = sums[t] + sums[t + 32u];
    if t < chunk.rows {
        let along_query = all.x * f32(args.key_size);
        for (var c = half * (args.key_size / 2u); c < end; c++) {
            let key = key_at(chunk, t) + c;
            let query = query_at(chunk, t) + c;
            dx[key] = row.to_key * (dx[key] - row.to_key * x[key] * all.y);
            dx[query] = row.to_query * (dx[query] - row.to_query * x[query] * along_query);
        }
    }
    if half == 0u {
        var change = all.z - all.w;
        for (var i = 0u; i < 32u; i++) {
            change += changes[t * 32u + i] - changes[i * 32u + t];
            if t == 31u {
                change += sums[i].w + sums[i + 32u].w + row.carried * (more[i].x + more[i + 32u].x);
            }
        }
        dlog[t] = change;
    }
    workgroupBarrier();
    if half == 0u && t < chunk.rows {
        let at = (chunk.row + t) * 2u * args.heads + chunk.h;
        dgates[at] = more[t].y + more[t + 32u].y;
        var to_gate = 0.0;
        if positions[chunk.row + t] != 0u {
            for (var s = t; s < 32u; s++) {
                if s > t && s < chunk.rows {
                    if positions[chunk.row + s] == 0u {
                        break;
                    }
                }
                to_gate += dlog[s];
            }
        }
        dgates[at + args.heads] = to_gate;
    }
}
