// Normalisation, quantisation, a product and the sum with the residual stream, for up to 8 rows: `rms_norm`, if eps is not
// negative, `quantize_rows`, `ternary_matmul` and `add` in one. A workgroup computes 4 rows x 8 outputs.

//#import reduce
//#import few

struct Args { rows: u32, outs: u32, dim: u32, eps: f32, group: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (dim)
@group(0) @binding(3) var<storage, read> codes: array<u32>; // (outs, ceil(dim / 128), 8)
@group(0) @binding(4) var<storage, read> scales: array<f32>; // (outs, dim / group)
@group(0) @binding(5) var<storage, read> stream: array<f32>; // (rows, outs)
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // (rows, outs)

const ROOM = 3584u;

fn input(row: u32, c: u32) -> f32 {
    return x[row * args.dim + c];
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
    for (var r = 0u; r < count; r++) {
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
