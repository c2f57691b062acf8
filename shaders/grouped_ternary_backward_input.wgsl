// Straight-through gradient of `grouped_ternary`: for the rows r of expert e, dx[r] = beta * dx[r] + dy[r] * w_hat[e], w_hat =
// code * scale. With beta = 0, dx is not read. `fast`: dy is rounded to the 11 significant bits of f16, in which w_hat is exact.

//#import gemm
//#import gemm_passes
//#import words FACTOR=dy
//#import block FACTOR=dy
//#import ternary_block
//#import experts

struct Args { rows: u32, experts: u32, outs: u32, dim: u32, group: u32, beta: f32, fast: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>; // (rows, outs)
@group(0) @binding(2) var<storage, read> starts: array<u32>; // (experts + 1)
// (experts, outs, ceil(dim / 128), 8), packed as by `ternary_quantize`
@group(0) @binding(3) var<storage, read> codes: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>; // (experts, outs, dim / group)
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>; // (rows, dim)
@group(0) @binding(6) var<storage, read_write> scratch: array<vec4<f32>>;

// This workgroup's rows, and the row of its product at which they begin.
var<private> own: Tile;
var<private> base: u32;

fn problem(wid: vec3<u32>) -> Problem {
    return Problem(args.rows, args.dim, args.outs, 1u, true, false, args.fast != 0u, true);
}

fn load_a(row: u32, col: u32) -> Block {
    return dy_block(own.first * args.outs, row - base, col, vec2<u32>(own.end - own.first, args.outs));
}

fn values_a(block: Block) -> Values {
    return floats(block);
}

fn load_b(row: u32, col: u32) -> Block {
    return ternary_block(own.expert * args.outs, row, col);
}

fn values_b(block: Block) -> Values {
    return ternary_values(block);
}

fn store(row: u32, col: u32, value: vec4<f32>) {
    let r = own.first + row - base;
    if r >= own.end || col >= args.dim {
        return;
    }
    let i = (r * args.dim + col) / 4u;
    var result = value;
    if args.beta != 0.0 {
        result += args.beta * dx[i];
    }
    dx[i] = result;
}

fn begin(wid: vec3<u32>, groups: vec3<u32>) -> bool {
    let side = select(64u, 128u, args.fast != 0u);
    let at = find_tile(wid.y, side, args.experts);
    own = at;
    base = wid.y * side;
    return at.exists;
}
