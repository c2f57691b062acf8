// Straight-through gradient of `ternary_matmul`: dx[x_row + r] = beta * dx[x_row + r] + dy[r] * w_hat, w_hat = code *
// scale. With beta = 0, dx is not read. `fast`: dy is rounded to the 11 significant bits of f16, in which w_hat is exact.

//#import gemm
//#import gemm_passes
//#import words FACTOR=dy
//#import block FACTOR=dy
//#import ternary_block

struct Args {
    rows: u32, outs: u32, dim: u32, group: u32, x_row: u32, beta: f32, first: u32, second: u32, fast: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>; // (rows, outs)
// (outs, ceil(dim / 128), 8), packed as by `ternary_quantize`
@group(0) @binding(2) var<storage, read> codes: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>; // (outs, dim / group)
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<f32>>; // (at least x_row + rows, dim)
@group(0) @binding(5) var<storage, read_write> scratch: array<vec4<f32>>;

fn problem(wid: vec3<u32>) -> Problem {
    return Problem(args.rows, args.dim, args.outs, 1u, true, false, args.fast != 0u, true);
}

fn load_a(row: u32, col: u32) -> Block {
    return dy_block(0u, row, col, vec2<u32>(args.rows, args.outs));
}

fn values_a(block: Block) -> Values {
    return floats(block);
}

fn load_b(row: u32, col: u32) -> Block {
    return ternary_block(0u, row, col);
}

fn values_b(block: Block) -> Values {
    return ternary_values(block);
}

fn store(row: u32, col: u32, value: vec4<f32>) {
    if row >= args.rows || col >= args.dim {
        return;
    }
    let i = ((args.x_row + row) * args.dim + col) / 4u;
    var result = value;
    if args.beta != 0.0 {
        result += args.beta * dx[i];
    }
    dx[i] = result;
}

fn begin(wid: vec3<u32>, groups: vec3<u32>) -> bool {
    return true;
}
