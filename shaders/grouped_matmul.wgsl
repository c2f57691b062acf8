// f32 products of rows that are sorted by expert, with a matrix w[e] (outs, dim) for each: for the rows r of expert e, by `kind`
// 0: d[r] = a[r] * w[e]^T, with a (rows, dim), b = w and d (rows, outs);
// 1: d[r] = beta * d[r] + a[r] * w[e], with a (rows, outs), b = w and d (rows, dim);
// 2: d[e] += sum over r of a[r]^T * b[r], with a (rows, outs), b (rows, dim) and d (experts, outs, dim).
// With beta = 0, d is not read. `fast`: a and b are rounded to the 11 significant bits of f16. All tiles are large, for small ones
// have no registers left for three kinds.

//#import gemm
//#import gemm_tile SIDE=128
//#import words FACTOR=a
//#import words FACTOR=b
//#import block FACTOR=a
//#import block FACTOR=b
//#import experts

struct Args { rows: u32, experts: u32, outs: u32, dim: u32, kind: u32, beta: f32, fast: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> starts: array<u32>; // (experts + 1)
@group(0) @binding(4) var<storage, read_write> d: array<f32>;
@group(0) @binding(5) var<storage, read_write> scratch: array<vec4<f32>>;

// This workgroup's rows: row r of its product is row r + shift, modulo 2^32, of those that are sorted.
struct Own { expert: u32, shift: u32, end: u32 }
var<private> own: Own;

// Inputs and outputs of a product, for kinds 0 and 1.
fn sides() -> vec2<u32> {
    return select(vec2<u32>(args.outs, args.dim), vec2<u32>(args.dim, args.outs), args.kind == 0u);
}

fn problem(wid: vec3<u32>) -> Problem {
    if args.kind == 2u {
        // Not of `own`: browsers take what lies in a variable for different from thread to thread.
        let k = starts[wid.z + 1u] - starts[wid.z];
        return Problem(args.outs, args.dim, k, args.experts, false, false, args.fast != 0u, false);
    }
    let size = sides();
    return Problem(args.rows, size.y, size.x, 1u, true, args.kind == 0u, args.fast != 0u, false);
}

fn load_a(row: u32, col: u32) -> Block {
    let width = select(args.outs, args.dim, args.kind == 0u);
    return a_block(own.shift * width, row, col, vec2<u32>(own.end - own.shift, width));
}

fn load_b(row: u32, col: u32) -> Block {
    if args.kind == 2u {
        return b_block(own.shift * args.dim, row, col, vec2<u32>(own.end - own.shift, args.dim));
    }
    return b_block(own.expert * args.outs * args.dim, row, col, vec2<u32>(args.outs, args.dim));
}

fn values_a(block: Block) -> Values {
    return floats(block);
}

fn values_b(block: Block) -> Values {
    return floats(block);
}

fn store_one(at: u32, inside: bool, value: f32) {
    if !inside {
        return;
    }
    var result = value;
    let beta = select(args.beta, 1.0, args.kind == 2u);
    if beta != 0.0 {
        result += beta * d[at];
    }
    d[at] = result;
}

fn store(row: u32, col: u32, value: vec4<f32>) {
    let each = args.kind == 2u;
    let width = select(args.outs, args.dim, args.kind != 0u);
    let inside = select(row + own.shift < own.end, row < args.outs, each);
    let at = (row + select(own.shift, own.expert * args.outs, each)) * width + col;
    store_one(at, inside && col < width, value.x);
    store_one(at + 1u, inside && col + 1u < width, value.y);
    store_one(at + 2u, inside && col + 2u < width, value.z);
    store_one(at + 3u, inside && col + 3u < width, value.w);
}

fn begin(wid: vec3<u32>, groups: vec3<u32>) -> bool {
    if args.kind == 2u {
        own = Own(wid.z, starts[wid.z], starts[wid.z + 1u]);
        return starts[wid.z] < starts[wid.z + 1u];
    }
    let at = find_tile(wid.y, 128u, args.experts);
    own = Own(at.expert, at.first - wid.y * 128u, at.end);
    return at.exists;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if begin(wid, groups) {
        multiply_128(wid, groups, lane);
    }
}
