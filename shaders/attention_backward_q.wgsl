// Gradient of `attention` with respect to q: p = exp(scale * q k - lse), ds = p * (dy v - delta), dq = scale * ds k.
// stats are lse and delta. Rows of qkv and of dqkv are as in `attention`; of dqkv only dq is written. A workgroup owns 64 queries
// of one head and walks their keys 64 at a time.

//#import tiles

struct Args { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>; // (batch, seq, 2 kv_heads + heads, head_dim)
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(3) var<storage, read> stats: array<f32>; // (2, batch, heads, seq)
@group(0) @binding(4) var<storage, read> positions: array<u32>; // (batch, seq)
@group(0) @binding(5) var<storage, read_write> dqkv: array<vec4<f32>>; // (batch, seq, 2 kv_heads + heads, head_dim)

fn four(owned: bool, second: bool, at: vec4<u32>) -> Tile {
    if owned && second {
        return Tile(dy[at.x], dy[at.y], dy[at.z], dy[at.w]);
    }
    return Tile(qkv[at.x], qkv[at.y], qkv[at.z], qkv[at.w]);
}

fn one(second: bool, at: u32) -> vec4<f32> {
    return qkv[at];
}

fn put(second: bool, at: u32, value: vec4<f32>) {
    dqkv[at] = value;
}

// ds of one key; lse is in units of log(2).
fn gradient(score: vec4<f32>, lse: vec4<f32>, dp: vec4<f32>, delta: vec4<f32>, seen: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(), exp2(score * (args.scale * LOG2_E) - lse) * (dp - delta), seen);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let dim = args.head_dim / 4u;
    let sequence = wid.z * args.seq;
    // The last queries see the most keys, so they come first.
    let first = (groups.x - 1u - wid.x) * 64u;
    let stride = (2u * args.kv_heads + args.heads) * dim;
    let owned = Rows(sequence * stride + (2u * args.kv_heads + wid.y) * dim, stride, first);
    let owned_dy = Rows((sequence * args.heads + wid.y) * dim, args.heads * dim, first);
    let values = sequence * stride + wid.y / (args.heads / args.kv_heads) * dim;
    let at = place(lane);
    let t = first + at.x * 4u;
    let queries = vec4<u32>(t, t + 1u, t + 2u, t + 3u);
    let starts = vec4<u32>(
        start(sequence, t), start(sequence, t + 1u), start(sequence, t + 2u), start(sequence, t + 3u),
    );
    let stat = (wid.z * args.heads + wid.y) * args.seq + min(queries, vec4<u32>(args.seq - 1u));
    let to_delta = stat + args.batch * args.heads * args.seq;
    let lse = LOG2_E * vec4<f32>(stats[stat.x], stats[stat.y], stats[stat.z], stats[stat.w]);
    let delta = vec4<f32>(stats[to_delta.x], stats[to_delta.y], stats[to_delta.z], stats[to_delta.w]);
    var low = Tile();
    var high = Tile();
    for (var base = start(sequence, first); base < min(first + 64u, args.seq); base += 64u) {
        let walked = Rows(values + args.kv_heads * dim, stride, base);
        let s = scores(lane, false, walked, owned);
        let dp = scores(lane, true, Rows(values, stride, base), owned_dy);
        let row = vec4<u32>(base + at.y * 4u);
        let ds = Tile(
            gradient(s.r0, lse, dp.r0, delta, (row >= starts) & (row <= queries)),
            gradient(s.r1, lse, dp.r1, delta, (row + 1u >= starts) & (row + 1u <= queries)),
            gradient(s.r2, lse, dp.r2, delta, (row + 2u >= starts) & (row + 2u <= queries)),
            gradient(s.r3, lse, dp.r3, delta, (row + 3u >= starts) & (row + 3u <= queries)),
        );
        low = weighted(low, ds, lane, false, walked, 0u);
        if dim > 16u {
            high = weighted(high, ds, lane, false, walked, 1u);
        }
    }
    store(times(low, vec4<f32>(args.scale)), lane, false, owned, 0u);
    store(times(high, vec4<f32>(args.scale)), lane, false, owned, 1u);
}
