// Straight-through gradient of `ternary_matmul`: dw += dy^T * x_hat over rows x_row.. of x_hat = xq * step. `fast`: dw +=
// (step * dy)^T * xq, with step * dy rounded to the 11 significant bits of f16, in which xq is exact.

//#import gemm
//#import gemm_passes
//#import words FACTOR=dy
//#import block FACTOR=dy

struct Args { rows: u32, outs: u32, dim: u32, x_row: u32, fast: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>; // (rows, outs)
@group(0) @binding(2) var<storage, read> xq: array<u32>; // (at least x_row + rows, dim / 4), four int8 in a word
@group(0) @binding(3) var<storage, read> step: array<f32>; // (at least x_row + rows)
@group(0) @binding(4) var<storage, read_write> dw: array<vec4<f32>>; // (outs, dim)
@group(0) @binding(5) var<storage, read_write> scratch: array<vec4<f32>>;

fn problem() -> Problem {
    return Problem(args.outs, args.dim, args.rows, 1u, false, false, args.fast != 0u, folded());
}

// Whether the steps are multiplied into `dy`, so that the other factor is the codes alone.
fn folded() -> bool {
    return MATRICES | (args.fast != 0u);
}

// Four rows of `xq` and `step`. Beyond the last row it is that one, for which `dy` is zero.
fn rows_from(row: u32) -> vec4<u32> {
    return args.x_row + min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(args.rows - 1u));
}

fn times(a: vec4<u32>, step: f32) -> vec4<u32> {
    return bitcast<vec4<u32>>(bitcast<vec4<f32>>(a) * step);
}

fn load_a(row: u32, col: u32) -> Block {
    let block = dy_block(0u, row, col, vec2<u32>(args.rows, args.outs));
    if !folded() {
        return block;
    }
    let r = rows_from(row);
    return Block(
        times(block.x, step[r.x]), times(block.y, step[r.y]), times(block.z, step[r.z]), times(block.w, step[r.w]),
    );
}

fn values_a(block: Block) -> Values {
    return floats(block);
}

// Four words of inputs and four steps.
fn load_b(row: u32, col: u32) -> Block {
    let r = rows_from(row);
    let word = (r * args.dim + min(col, args.dim - 1u)) / 4u;
    var block: Block;
    block.x = vec4<u32>(xq[word.x], xq[word.y], xq[word.z], xq[word.w]);
    block.y = bitcast<vec4<u32>>(vec4<f32>(1.0));
    if !folded() {
        block.y = bitcast<vec4<u32>>(vec4<f32>(step[r.x], step[r.y], step[r.z], step[r.w]));
    }
    return block;
}

fn values_b(block: Block) -> Values {
    let step = bitcast<vec4<f32>>(block.y);
    return Values(
        step.x * vec4<f32>(unpack4xI8(block.x.x)), step.y * vec4<f32>(unpack4xI8(block.x.y)),
        step.z * vec4<f32>(unpack4xI8(block.x.z)), step.w * vec4<f32>(unpack4xI8(block.x.w)),
    );
}

fn store(out: u32, col: u32, value: vec4<f32>) {
    if out < args.outs && col < args.dim {
        dw[(out * args.dim + col) / 4u] += value;
    }
}

fn begin(wid: vec3<u32>, groups: vec3<u32>) -> bool {
    return true;
}
