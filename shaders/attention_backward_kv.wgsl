// Gradient of `attention` with respect to k and v, summed over the query heads that share them:
// p = exp(scale * q k - lse), dv = p^T dy, dk = scale * ds^T q with ds = p * (dy v - delta).
// stats are lse and delta. Rows of qkv and of dqkv are as in `attention`; of dqkv only dk and dv are written. A workgroup owns
// 64 keys of one key-value head and walks the queries that see them 64 at a time, head after head. Sums beyond the first 64
// elements of head_dim are kept in dqkv: registers for all would leave room for only one workgroup.

//#import tiles

struct Args { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>; // (batch, seq, 2 kv_heads + heads, head_dim)
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(3) var<storage, read> stats: array<f32>; // (2, batch, heads, seq)
@group(0) @binding(4) var<storage, read> positions: array<u32>; // (batch, seq)
@group(0) @binding(5) var<storage, read_write> dqkv: array<vec4<f32>>; // (batch, seq, 2 kv_heads + heads, head_dim)

fn four(owned: bool, second: bool, at: vec4<u32>) -> Tile {
    if !owned && second {
        return Tile(dy[at.x], dy[at.y], dy[at.z], dy[at.w]);
    }
    return Tile(qkv[at.x], qkv[at.y], qkv[at.z], qkv[at.w]);
}

fn one(second: bool, at: u32) -> vec4<f32> {
    if second {
        return dy[at];
    }
    return qkv[at];
}

fn put(second: bool, at: u32, value: vec4<f32>) {
    dqkv[at] = value;
}

// Adds to the elements beyond the first 64, which are those of this thread alone.
fn add_high(weights: Tile, lane: u32, second: bool, walked: Rows, owned: Rows, begun: bool) {
    var sum = Tile();
    if begun {
        let rows = min(vec4<u32>(0u, 1u, 2u, 3u) + owned.first + place(lane).x * 4u, vec4<u32>(args.seq - 1u));
        let element = min(16u + place(lane).y, args.head_dim / 4u - 1u);
        let source = owned.head + element + rows * owned.stride;
        sum = transposed(Tile(
            dqkv[source.x], dqkv[source.y], dqkv[source.z], dqkv[source.w],
        ));
    }
    store(weighted(sum, weights, lane, second, walked, 1u), lane, second, owned, 1u);
}

// p of one query; rows and keys are those of the sequence.
fn weight(score: vec4<f32>, row: u32, sequence: u32, stat: u32, keys: vec4<u32>) -> vec4<f32> {
    let t = min(row, args.seq - 1u);
    let seen = (keys >= vec4<u32>(start(sequence, row))) & (keys <= vec4<u32>(row)) & vec4<bool>(row < args.seq);
    return select(vec4<f32>(), exp2(LOG2_E * (args.scale * score - stats[stat + t])), seen);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let dim = args.head_dim / 4u;
    let sequence = wid.z * args.seq;
    let first = wid.x * 64u;
    let stride = (2u * args.kv_heads + args.heads) * dim;
    let owned = Rows(sequence * stride + (args.kv_heads + wid.y) * dim, stride, first);
    let owned_v = Rows(sequence * stride + wid.y * dim, stride, first);
    let at = place(lane);
    let t = first + at.x * 4u;
    let keys = vec4<u32>(t, t + 1u, t + 2u, t + 3u);
    let to_delta = args.batch * args.heads * args.seq;
    let sharing = args.heads / args.kv_heads;
    var dk_low = Tile();
    var dv_low = Tile();
    var begun = false;
    for (var head = wid.y * sharing; head < (wid.y + 1u) * sharing; head++) {
        let stat = (wid.z * args.heads + head) * args.seq;
        for (var base = first; base < args.seq; base += 64u) {
            // From here on, no document reaches back to these keys.
            if start(sequence, base) >= first + 64u {
                break;
            }
            let walked = Rows(sequence * stride + (2u * args.kv_heads + head) * dim, stride, base);
            let walked_dy = Rows((sequence * args.heads + head) * dim, args.heads * dim, base);
            let s = scores(lane, false, walked, owned);
            let row = base + at.y * 4u;
            let p = Tile(
                weight(s.r0, row, sequence, stat, keys), weight(s.r1, row + 1u, sequence, stat, keys),
                weight(s.r2, row + 2u, sequence, stat, keys), weight(s.r3, row + 3u, sequence, stat, keys),
            );
            dv_low = weighted(dv_low, p, lane, true, walked_dy, 0u);
            if dim > 16u {
                add_high(p, lane, true, walked_dy, owned_v, begun);
            }
            let dp = scores(lane, true, walked_dy, owned_v);
            let rows = to_delta + stat + min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(args.seq - 1u));
            let ds = Tile(
                args.scale * p.r0 * (dp.r0 - stats[rows.x]), args.scale * p.r1 * (dp.r1 - stats[rows.y]),
                args.scale * p.r2 * (dp.r2 - stats[rows.z]), args.scale * p.r3 * (dp.r3 - stats[rows.w]),
            );
            dk_low = weighted(dk_low, ds, lane, false, walked, 0u);
            if dim > 16u {
                add_high(ds, lane, false, walked, owned, begun);
            }
            begun = true;
        }
    }
    store(dk_low, lane, false, owned, 0u);
    store(dv_low, lane, true, owned_v, 0u);
}
