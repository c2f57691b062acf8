// Normalisation, quantisation, two products and the gated unit, for up to 8 rows: `rms_norm`, `quantize_rows`, two
// `ternary_matmul` and `swiglu` in one. A workgroup computes 4 rows x 8 outputs.

//#import reduce
//#import few

struct Args { rows: u32, outs: u32, dim: u32, eps: f32, group: u32, squared: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (dim)
@group(0) @binding(3) var<storage, read> codes_gate: array<u32>; // (outs, ceil(dim / 128), 8)
@group(0) @binding(4) var<storage, read> scales_gate: array<f32>; // (outs, dim / group)
@group(0) @binding(5) var<storage, read> codes_up: array<u32>;
@group(0) @binding(6) var<storage, read> scales_up: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // (rows, outs)

const ROOM = 3584u;

fn input(row: u32, c: u32) -> f32 {
    return x[row * args.dim + c];
}

fn gain(c: u32) -> f32 {
    return w[c];
}

fn code_at(which: u32, i: u32) -> u32 {
    if which == 0u { return codes_gate[i]; }
    return codes_up[i];
}

fn scale_at(which: u32, i: u32) -> f32 {
    if which == 0u { return scales_gate[i]; }
    return scales_up[i];
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
    let gate = product(lane);
    sum_runs(1u, out, args.outs, count, args.dim, args.group, lane);
    let up = product(lane);
    if lane % 8u < count && out < args.outs {
        let positive = select(gate, 0.0, gate <= 0.0);
        // Bounded, so that no intermediate value is infinite.
        let silu = gate / (1.0 + exp(min(-gate, 80.0)));
        y[(first + lane % 8u) * args.outs + out] = select(silu, positive * positive, args.squared != 0u) * up;
    }
}
