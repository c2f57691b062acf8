// Attention's blocks of keys put together, normalisation, quantisation, a product and the sum with the residual stream, for up to
// 8 rows: the pass `combine` of `attention_cached`, `rms_norm`, if eps is not negative, `quantize_rows`, `ternary_matmul` and
// `add` in one. A workgroup computes 4 rows x 8 outputs.

//#import parts
//#import reduce
//#import few

struct Args { rows: u32, outs: u32, dim: u32, eps: f32, group: u32, head_dim: u32, blocks: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> w: array<f32>; // (dim)
@group(0) @binding(2) var<storage, read> codes: array<u32>; // (outs, ceil(dim / 128), 8)
@group(0) @binding(3) var<storage, read> scales: array<f32>; // (outs, dim / group)
@group(0) @binding(4) var<storage, read> stream: array<f32>; // (rows, outs)
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // (rows, outs)
@group(0) @binding(6) var<storage, read_write> scratch: array<f32>; // as `parts` describes

const ROOM = 1024u;
var<workgroup> values: array<f32, 2560>; // a row of attention's result
var<workgroup> wholes: array<vec2<f32>, 64>; // of each head

fn input(row: u32, c: u32) -> f32 {
    return values[c];
}

fn gain(c: u32) -> f32 {
    return w[c];
}

fn code_at(which: u32, i: u32) -> u32 {
    return codes[i];
}

fn scale_at(which: u32, i: u32) -> f32 {
    return scales[i];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = wid.y * 4u;
    let count = min(args.rows - first, 4u);
    let heads = args.dim / args.head_dim;
    for (var r = 0u; r < count; r++) {
        let parts = u32(scratch[first + r]);
        workgroupBarrier();
        if lane < heads {
            let start = part_at(args.rows, args.head_dim, args.blocks, (first + r) * heads + lane, 0u);
            wholes[lane] = whole_of(start, parts, args.head_dim);
        }
        workgroupBarrier();
        for (var c = lane; c < args.dim; c += 64u) {
            let head = c / args.head_dim;
            let start = part_at(args.rows, args.head_dim, args.blocks, (first + r) * heads + head, 0u);
            values[c] = element_of(start, parts, args.head_dim, wholes[head], c % args.head_dim);
        }
        workgroupBarrier();
        quantize(first + r, r, args.dim, args.eps, lane);
    }
    workgroupBarrier();
    let out = wid.x * 8u + lane / 8u;
    sum_runs(0u, out, args.outs, count, args.dim, args.group, lane);
    let value = product(lane);
    if lane % 8u < count && out < args.outs {
        let at = (first + lane % 8u) * args.outs + out;
        y[at] = stream[at] + value;
    }
}
