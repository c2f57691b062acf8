// Straight-through gradient of `ternary_matmul`: dw += dy^T * x_hat over rows x_row.. of x_hat = xq * step. `fast`: dw +=
// (step * dy)^T * xq, with step * dy rounded to the 11 significant bits of f16, in which xq is exact.

//#import gemm
//#import gemm_passes
//#import words FACTOR=dy
//#import block FACTOR=dy
//#import int8_block

struct Args { rows: u32, outs: u32, dim: u32, x_row: u32, fast: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>; // (rows, outs)
@group(0) @binding(2) var<storage, read> xq: array<u32>; // (at least x_row + rows, dim / 4), four int8 in a word
@group(0) @binding(3) var<storage, read> step: array<f32>; // (at least x_row + rows)
@group(0) @binding(4) var<storage, read_write> dw: array<vec4<f32>>; // (outs, dim)
@group(0) @binding(5) var<storage, read_write> scratch: array<vec4<f32>>;

fn problem(wid: vec3<u32>) -> Problem {
    return Problem(args.outs, args.dim, args.rows, 1u, false, false, args.fast != 0u, folded());
}

fn rows() -> vec3<u32> {
    return vec3<u32>(args.rows, 0u, args.x_row);
}

fn last() -> u32 {
    return args.x_row + args.rows - 1u;
}

fn store(out: u32, col: u32, value: vec4<f32>) {
    if out < args.outs && col < args.dim {
        dw[(out * args.dim + col) / 4u] += value;
    }
}

fn begin(wid: vec3<u32>, groups: vec3<u32>) -> bool {
    return true;
}
