// Straight-through gradient of `grouped_ternary`: dw[e] += dy^T * x_hat over the rows of expert e, x_hat = xq * step. `fast`:
// dw[e] += (step * dy)^T * xq, with step * dy rounded to the 11 significant bits of f16, in which xq is exact.

//#import gemm
//#import gemm_passes
//#import words FACTOR=dy
//#import block FACTOR=dy
//#import int8_block

struct Args { rows: u32, experts: u32, outs: u32, dim: u32, fast: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>; // (rows, outs)
@group(0) @binding(2) var<storage, read> xq: array<u32>; // (rows, dim / 4), four int8 in a word
@group(0) @binding(3) var<storage, read> step: array<f32>; // (rows)
@group(0) @binding(4) var<storage, read> starts: array<u32>; // (experts + 1)
@group(0) @binding(5) var<storage, read_write> dw: array<vec4<f32>>; // (experts, outs, dim)
@group(0) @binding(6) var<storage, read_write> scratch: array<vec4<f32>>;

var<private> expert: u32;

fn rows() -> vec3<u32> {
    let first = starts[expert];
    return vec3<u32>(starts[expert + 1u] - first, first, first);
}

fn last() -> u32 {
    return args.rows - 1u;
}

fn problem(wid: vec3<u32>) -> Problem {
    let k = starts[wid.z + 1u] - starts[wid.z];
    return Problem(args.outs, args.dim, k, args.experts, false, false, args.fast != 0u, folded());
}

fn store(out: u32, col: u32, value: vec4<f32>) {
    if out < args.outs && col < args.dim {
        dw[((expert * args.outs + out) * args.dim + col) / 4u] += value;
    }
}

fn begin(wid: vec3<u32>, groups: vec3<u32>) -> bool {
    expert = wid.z;
    return starts[wid.z] < starts[wid.z + 1u];
}
