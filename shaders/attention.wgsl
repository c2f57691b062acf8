// Causal grouped-query attention: y = softmax(scale * q k^T) v. Query head h reads key-value head h / (heads /
// kv_heads). Row t of a sequence sees its document, the rows from t - positions[t] (0 if that is before the sequence) to t.
// Keeps lse = log(sum(exp(scores))) for backward.
//
// Flash-style (Dao et al. 2022): a workgroup takes 16 queries of one head, four threads each, and walks the keys 16 at
// a time with a running maximum. A thread makes the scores of four keys, then adds up every fourth vec4 of the weighted
// values. head_dim is a multiple of 4, at most 128.

struct Args { batch: u32, seq: u32, heads: u32, kv_heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>; // (batch, seq, kv_heads, head_dim)
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>; // (batch, seq, kv_heads, head_dim)
@group(0) @binding(4) var<storage, read> positions: array<u32>; // (batch, seq)
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(6) var<storage, read_write> lse: array<f32>; // (batch, heads, seq)

var<workgroup> queries: array<vec4<f32>, 512>; // (16, head_dim / 4)
var<workgroup> scores: array<f32, 512>; // (2, 16 queries, 16 keys), used in turn

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let dim = args.head_dim / 4u;
    let first = wid.x * 16u;
    let query = lane / 4u;
    let part = lane % 4u;
    let t = first + query;
    let sequence = wid.z * args.seq;
    let start = t - min(t, positions[sequence + min(t, args.seq - 1u)]);
    let head = (wid.z * args.seq * args.heads + wid.y) * dim;
    let kv_head = (wid.z * args.seq * args.kv_heads + wid.y / (args.heads / args.kv_heads)) * dim;
    let kv_stride = args.kv_heads * dim;
    for (var i = lane; i < 16u * dim; i += 64u) {
        let row = min(first + i / dim, args.seq - 1u);
        queries[i] = args.scale * q[head + row * args.heads * dim + i % dim];
    }
    workgroupBarrier();
    var most = -1e30;
    var total = 0.0;
    var acc = array<vec4<f32>, 8>();
    var buffer = 0u;
    for (var base = first - min(first, positions[sequence + first]); base < min(first + 16u, args.seq); base += 16u) {
        for (var i = part; i < 16u; i += 4u) {
            var score = -1e30;
            if base + i >= start && base + i <= t && base + i < args.seq {
                let key = kv_head + (base + i) * kv_stride;
                var sum = vec4<f32>();
                for (var c = 0u; c < dim; c++) {
                    sum += queries[query * dim + c] * k[key + c];
                }
                score = sum.x + sum.y + sum.z + sum.w;
            }
            scores[buffer + query * 16u + i] = score;
        }
        workgroupBarrier();
        var top = most;
        for (var i = 0u; i < 16u; i++) {
            top = max(top, scores[buffer + query * 16u + i]);
        }
        let decay = exp(most - top);
        most = top;
        total *= decay;
        for (var c = 0u; c < 8u; c++) {
            acc[c] *= decay;
        }
        for (var i = max(start, base) - base; i < min(16u, args.seq - base); i++) {
            let weight = exp(scores[buffer + query * 16u + i] - top);
            total += weight;
            let value = kv_head + (base + i) * kv_stride + part;
            for (var c = 0u; c < 8u; c++) {
                if c * 4u + part < dim {
                    acc[c] += weight * v[value + c * 4u];
                }
            }
        }
        buffer = 256u - buffer;
    }
    if t >= args.seq {
        return;
    }
    let out = head + t * args.heads * dim + part;
    for (var c = 0u; c < 8u; c++) {
        if c * 4u + part < dim {
            y[out + c * 4u] = acc[c] / total;
        }
    }
    if part == 0u {
        lse[(wid.z * args.heads + wid.y) * args.seq + t] = most + log(total);
    }
}
