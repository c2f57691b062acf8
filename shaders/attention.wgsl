// Causal grouped-query attention: y = softmax(scale * q k^T) v. Query head h reads key-value head h / (heads /
// kv_heads). A row of qkv is the values, the keys and the queries of a token. Row t of a sequence sees its document, the rows
// from t - positions[t] (0 if that is before the sequence) to t. Keeps lse = log(sum(exp(scores))) for backward.
//
// Flash-style (Dao et al. 2022): a workgroup owns 64 queries of one head and walks their keys 64 at a time with a running
// maximum. A head of more than 128 values has a workgroup for each 128 of them.

//#import tiles

struct Args { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>; // (batch, seq, 2 kv_heads + heads, head_dim)
@group(0) @binding(2) var<storage, read> positions: array<u32>; // (batch, seq)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(4) var<storage, read_write> lse: array<f32>; // (batch, heads, seq)

fn four(owned: bool, second: bool, at: vec4<u32>) -> Tile {
    return Tile(qkv[at.x], qkv[at.y], qkv[at.z], qkv[at.w]);
}

fn one(second: bool, at: u32) -> vec4<f32> {
    return qkv[at];
}

fn put(second: bool, at: u32, value: vec4<f32>) {
    y[at] = value;
}

// Scores of one key in units of log(2).
fn masked(score: vec4<f32>, row: u32, starts: vec4<u32>, queries: vec4<u32>) -> vec4<f32> {
    let seen = (vec4<u32>(row) >= starts) & (vec4<u32>(row) <= queries);
    return select(vec4<f32>(-1e30), score * (args.scale * LOG2_E), seen);
}

fn largest_of_four(row: u32, x: u32) -> vec4<f32> {
    return max(max(factors[row][x], factors[row + 1u][x]), max(factors[row + 2u][x], factors[row + 3u][x]));
}

// The largest of the values of all threads in a column.
fn largest(value: vec4<f32>, at: vec2<u32>) -> vec4<f32> {
    factors[at.y][at.x] = value;
    workgroupBarrier();
    if at.y < 4u {
        factors[16u + at.y][at.x] = largest_of_four(at.y * 4u, at.x);
    }
    workgroupBarrier();
    let most = largest_of_four(16u, at.x);
    workgroupBarrier();
    return most;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let dim = args.head_dim / 4u;
    let sequence = wid.z * args.seq;
    // Behind the workgroups of all heads are those of their upper halves.
    let head = wid.y % args.heads;
    let part = wid.y / args.heads * 2u;
    // The last queries see the most keys, so they come first.
    let first = (groups.x - 1u - wid.x) * 64u;
    let stride = (2u * args.kv_heads + args.heads) * dim;
    let owned = Rows(sequence * stride + (2u * args.kv_heads + head) * dim, stride, first);
    let values = sequence * stride + head / (args.heads / args.kv_heads) * dim;
    let at = place(lane);
    let t = first + at.x * 4u;
    let queries = vec4<u32>(t, t + 1u, t + 2u, t + 3u);
    let starts = vec4<u32>(
        start(sequence, t), start(sequence, t + 1u), start(sequence, t + 2u), start(sequence, t + 3u),
    );
    // Above the score of a row that is not seen, so that its weight is 0.
    var most = vec4<f32>(-1e29);
    var total = vec4<f32>();
    var low = Tile();
    var high = Tile();
    for (var base = start(sequence, first); base < min(first + 64u, args.seq); base += 64u) {
        var s = scores(lane, false, Rows(values + args.kv_heads * dim, stride, base), owned);
        let row = base + at.y * 4u;
        s = Tile(
            masked(s.r0, row, starts, queries), masked(s.r1, row + 1u, starts, queries),
            masked(s.r2, row + 2u, starts, queries), masked(s.r3, row + 3u, starts, queries),
        );
        let top = max(most, largest(max(max(s.r0, s.r1), max(s.r2, s.r3)), at));
        let decay = exp2(most - top);
        most = top;
        let weights = Tile(exp2(s.r0 - top), exp2(s.r1 - top), exp2(s.r2 - top), exp2(s.r3 - top));
        total = total * decay + (weights.r0 + weights.r1 + weights.r2 + weights.r3);
        let walked = Rows(values, stride, base);
        low = weighted(times(low, decay), weights, lane, false, walked, part);
        if dim > 16u * (part + 1u) {
            high = weighted(times(high, decay), weights, lane, false, walked, part + 1u);
        }
    }
    factors[at.y][at.x] = total;
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var i = 0u; i < 16u; i++) {
        sum += factors[i][at.x];
    }
    let result = Rows((sequence * args.heads + head) * dim, args.heads * dim, first);
    store(times(low, 1.0 / sum), lane, false, result, part);
    store(times(high, 1.0 / sum), lane, false, result, part + 1u);
    if at.y == 0u && part == 0u {
        let to = (wid.z * args.heads + head) * args.seq;
        let value = most / LOG2_E + log(sum);
        for (var i = 0u; i < 4u; i++) {
            if t + i < args.seq {
                lse[to + t + i] = value[i];
            }
        }
    }
}
