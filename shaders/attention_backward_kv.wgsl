// Gradient of `attention` with respect to k and v, summed over the query heads that share them:
// p = exp(scale * q k - lse), dv = p^T dy, dk = scale * ds^T q with ds = p * (dy v - delta).
// stats are lse and delta.
//
// A workgroup takes 8 keys of one key-value head, eight threads each, and walks the queries that see them 16 at a time,
// head after head: a thread makes p and ds of two queries, then adds up every eighth vec4 of dk and dv. head_dim is a
// multiple of 4, at most 128.

struct Args { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>; // (batch, seq, kv_heads, head_dim)
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>; // (batch, seq, kv_heads, head_dim)
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(5) var<storage, read> stats: array<f32>; // (2, batch, heads, seq)
@group(0) @binding(6) var<storage, read> positions: array<u32>; // (batch, seq)
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>; // (batch, seq, kv_heads, head_dim)
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>; // (batch, seq, kv_heads, head_dim)

var<workgroup> keys: array<vec4<f32>, 256>; // (8, head_dim / 4), times scale
var<workgroup> values: array<vec4<f32>, 256>; // (8, head_dim / 4)
var<workgroup> weights: array<vec2<f32>, 256>; // p and ds: (2, 8 keys, 16 queries), used in turn

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let dim = args.head_dim / 4u;
    let first = wid.x * 8u;
    let key = lane / 8u;
    let part = lane % 8u;
    let t = first + key;
    let kv_head = (wid.z * args.seq * args.kv_heads + wid.y) * dim;
    for (var i = lane; i < 8u * dim; i += 64u) {
        let at = kv_head + min(first + i / dim, args.seq - 1u) * args.kv_heads * dim + i % dim;
        keys[i] = args.scale * k[at];
        values[i] = v[at];
    }
    workgroupBarrier();
    var dk_acc = array<vec4<f32>, 4>();
    var dv_acc = array<vec4<f32>, 4>();
    var buffer = 0u;
    let sequence = wid.z * args.seq;
    let deltas = args.batch * args.heads * args.seq;
    let sharing = args.heads / args.kv_heads;
    for (var head = wid.y * sharing; head < (wid.y + 1u) * sharing; head++) {
        let q_head = (wid.z * args.seq * args.heads + head) * dim;
        let row = (wid.z * args.heads + head) * args.seq;
        for (var base = first; base < args.seq; base += 16u) {
            // From here on, no document reaches back to these keys.
            if base - min(base, positions[sequence + base]) >= first + 8u {
                break;
            }
            for (var i = part; i < 16u; i += 8u) {
                var weight = vec2<f32>();
                let query = min(base + i, args.seq - 1u);
                if base + i >= t && query - min(query, positions[sequence + query]) <= t && base + i < args.seq {
                    let at = q_head + (base + i) * args.heads * dim;
                    var score = vec4<f32>();
                    var dp = vec4<f32>();
                    for (var c = 0u; c < dim; c++) {
                        score += keys[key * dim + c] * q[at + c];
                        dp += values[key * dim + c] * dy[at + c];
                    }
                    let p = exp(score.x + score.y + score.z + score.w - stats[row + base + i]);
                    weight = vec2<f32>(p, p * (dp.x + dp.y + dp.z + dp.w - stats[deltas + row + base + i]));
                }
                weights[buffer + key * 16u + i] = weight;
            }
            workgroupBarrier();
            for (var i = 0u; i < min(16u, args.seq - base); i++) {
                let weight = weights[buffer + key * 16u + i];
                let at = q_head + (base + i) * args.heads * dim + part;
                for (var c = 0u; c < 4u; c++) {
                    if c * 8u + part < dim {
                        dv_acc[c] += weight.x * dy[at + c * 8u];
                        dk_acc[c] += weight.y * q[at + c * 8u];
                    }
                }
            }
            buffer = 128u - buffer;
        }
    }
    if t >= args.seq {
        return;
    }
    let out = kv_head + t * args.kv_heads * dim + part;
    for (var c = 0u; c < 4u; c++) {
        if c * 8u + part < dim {
            dk[out + c * 8u] = args.scale * dk_acc[c];
            dv[out + c * 8u] = dv_acc[c];
        }
    }
}
