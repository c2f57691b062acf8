// f32 matrix product into a new matrix: d = alpha * a b + beta * c, for each matrix of a batch; all dense, none transposed.
// When the result is `symmetric`, tiles below the diagonal are mirrored, not computed. a, b and c may be one buffer.

//#import gemm
//#import gemm_passes
//#import results
//#import words FACTOR=a
//#import words FACTOR=b
//#import block FACTOR=a
//#import block FACTOR=b

struct Args { m: u32, n: u32, k: u32, batch: u32, symmetric: u32, alpha: f32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // (batch, m, k)
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>; // (batch, k, n)
@group(0) @binding(3) var<storage, read> c: array<f32>; // (batch, m, n)
@group(0) @binding(4) var<storage, read_write> d: array<f32>; // (batch, m, n)
@group(0) @binding(5) var<storage, read_write> scratch: array<vec4<f32>>;

// First elements of this workgroup's matrices.
var<private> a_start: u32;
var<private> b_start: u32;

fn problem(wid: vec3<u32>) -> Problem {
    return Problem(args.m, args.n, args.k, args.batch, true, false, false, false);
}

fn load_a(row: u32, col: u32) -> Block {
    return a_block(a_start, row, col, vec2<u32>(args.m, args.k));
}

fn load_b(row: u32, col: u32) -> Block {
    return b_block(b_start, row, col, vec2<u32>(args.k, args.n));
}

fn values_a(block: Block) -> Values {
    return floats(block);
}

fn values_b(block: Block) -> Values {
    return floats(block);
}

fn store_at(i: u32, value: f32) {
    var result = args.alpha * value;
    if args.beta != 0.0 {
        result += args.beta * c[i];
    }
    d[i] = result;
}

// Finds this workgroup's matrices. Returns whether its tile is computed, not mirrored.
fn begin(wid: vec3<u32>, groups: vec3<u32>) -> bool {
    let matrix = place(wid, groups).matrix;
    a_start = matrix * args.m * args.k;
    b_start = matrix * args.k * args.n;
    d_start = matrix * args.m * args.n;
    return is_computed(wid);
}
