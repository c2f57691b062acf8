// Gradient of `attention` with respect to q: p = exp(scale * q k - lse), ds = p * (dy v - delta), dq = scale * ds k.
// stats are lse and delta.
//
// A workgroup takes 8 queries of one head, eight threads each, and walks the keys 16 at a time: a thread makes ds of
// two keys, then adds up every eighth vec4 of dq. head_dim is a multiple of 4, at most 128.

struct Args { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>; // (batch, seq, kv_heads, head_dim)
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>; // (batch, seq, kv_heads, head_dim)
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(5) var<storage, read> stats: array<f32>; // (2, batch, heads, seq)
@group(0) @binding(6) var<storage, read> positions: array<u32>; // (batch, seq)
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>; // (batch, seq, heads, head_dim)

var<workgroup> queries: array<vec4<f32>, 256>; // (8, head_dim / 4), times scale
var<workgroup> dys: array<vec4<f32>, 256>; // (8, head_dim / 4)
var<workgroup> dscores: array<f32, 256>; // (2, 8 queries, 16 keys), used in turn

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let dim = args.head_dim / 4u;
    let first = wid.x * 8u;
    let query = lane / 8u;
    let part = lane % 8u;
    let t = first + query;
    let sequence = wid.z * args.seq;
    let start = t - min(t, positions[sequence + min(t, args.seq - 1u)]);
    let head = (wid.z * args.seq * args.heads + wid.y) * dim;
    let kv_head = (wid.z * args.seq * args.kv_heads + wid.y / (args.heads / args.kv_heads)) * dim;
    let kv_stride = args.kv_heads * dim;
    for (var i = lane; i < 8u * dim; i += 64u) {
        let at = head + min(first + i / dim, args.seq - 1u) * args.heads * dim + i % dim;
        queries[i] = args.scale * q[at];
        dys[i] = dy[at];
    }
    let row = (wid.z * args.heads + wid.y) * args.seq + min(t, args.seq - 1u);
    let row_lse = stats[row];
    let row_delta = stats[args.heads * args.seq * args.batch + row];
    workgroupBarrier();
    var acc = array<vec4<f32>, 4>();
    var buffer = 0u;
    for (var base = first - min(first, positions[sequence + first]); base < min(first + 8u, args.seq); base += 16u) {
        for (var i = part; i < 16u; i += 8u) {
            var ds = 0.0;
            if base + i >= start && base + i <= t && base + i < args.seq {
                let key = kv_head + (base + i) * kv_stride;
                var score = vec4<f32>();
                var dp = vec4<f32>();
                for (var c = 0u; c < dim; c++) {
                    score += queries[query * dim + c] * k[key + c];
                    dp += dys[query * dim + c] * v[key + c];
                }
                ds = exp(score.x + score.y + score.z + score.w - row_lse) * (dp.x + dp.y + dp.z + dp.w - row_delta);
            }
            dscores[buffer + query * 16u + i] = ds;
        }
        workgroupBarrier();
        for (var i = 0u; i < min(16u, args.seq - base); i++) {
            let ds = dscores[buffer + query * 16u + i];
            let key = kv_head + (base + i) * kv_stride + part;
            for (var c = 0u; c < 4u; c++) {
                if c * 8u + part < dim {
                    acc[c] += ds * k[key + c * 8u];
                }
            }
        }
        buffer = 128u - buffer;
    }
    if t >= args.seq {
        return;
    }
    let out = head + t * args.heads * dim + part;
    for (var c = 0u; c < 4u; c++) {
        if c * 8u + part < dim {
            dq[out + c * 8u] = args.scale * acc[c];
        }
    }
}
