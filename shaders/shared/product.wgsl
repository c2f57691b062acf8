// The matrix product of `matmul`, whatever the values of its right factor are. The op that imports this, `gemm`, `gemm_passes`,
// `results`, and `words` and `block` for FACTOR=a, defines
//   b: the right factor, (batch, k, n) or (batch, n, k) from b_offset, and b_block, as in `block`
//   values_b(Block) -> Values: the values of such a block
//   b_value(i): element i of the right factor
//
// Up to 8 rows of a times transposed b (the head, while decoding) are a pass of their own: a workgroup computes 4 rows x 8
// columns and reads each element of b once; eight threads share a column.

struct Args {
    m: u32, n: u32, k: u32, batch: u32, a_transposed: u32, b_transposed: u32, symmetric: u32,
    a_offset: u32, b_offset: u32, d_offset: u32, alpha: f32, beta: f32,
    fast: u32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // (batch, m, k) or (batch, k, m) from a_offset
@group(0) @binding(3) var<storage, read_write> d: array<f32>; // (batch, m, n) from d_offset
@group(0) @binding(4) var<storage, read_write> scratch: array<vec4<f32>>;

// First elements of this workgroup's matrices.
var<private> a_start: u32;
var<private> b_start: u32;

fn problem(wid: vec3<u32>) -> Problem {
    let turned = vec2<bool>(args.a_transposed != 0u, args.b_transposed != 0u);
    return Problem(args.m, args.n, args.k, args.batch, !turned.x, turned.y, args.fast != 0u, false);
}

fn load_a(row: u32, col: u32) -> Block {
    let turned = args.a_transposed != 0u;
    return a_block(a_start, row, col, select(vec2<u32>(args.m, args.k), vec2<u32>(args.k, args.m), turned));
}

fn load_b(row: u32, col: u32) -> Block {
    let turned = args.b_transposed != 0u;
    return b_block(b_start, row, col, select(vec2<u32>(args.k, args.n), vec2<u32>(args.n, args.k), turned));
}

fn values_a(block: Block) -> Values {
    return floats(block);
}

fn store_at(i: u32, value: f32) {
    var result = args.alpha * value;
    if args.beta != 0.0 {
        result += args.beta * d[i];
    }
    d[i] = result;
}

var<workgroup> partials: array<vec4<f32>, 64>; // (8 columns, 8 threads), four rows each

@compute @workgroup_size(64)
fn few(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    begin(wid, groups);
    let row = wid.y * 4u;
    let rows = min(args.m - row, 4u);
    let col = wid.x * 8u + lane / 8u;
    var sum = vec4<f32>();
    if col < args.n {
        for (var k = lane % 8u; k < args.k; k += 8u) {
            let i = a_start + row * args.k + k;
            var x: vec4<u32>;
            x.x = a_element(i);
            if rows > 1u { x.y = a_element(i + args.k); }
            if rows > 2u { x.z = a_element(i + 2u * args.k); }
            if rows > 3u { x.w = a_element(i + 3u * args.k); }
            sum += b_value(b_start + col * args.k + k) * bitcast<vec4<f32>>(x);
        }
    }
    partials[lane] = sum;
    workgroupBarrier();
    let r = lane % 8u;
    if r < rows && col < args.n {
        var total = 0.0;
        for (var i = 0u; i < 8u; i++) {
            total += partials[lane / 8u * 8u + i][r];
        }
        store_at(d_start + (row + r) * args.n + col, total);
    }
}

// Finds this workgroup's matrices. Returns whether its tile is computed, not mirrored.
fn begin(wid: vec3<u32>, groups: vec3<u32>) -> bool {
    let matrix = place(wid, groups).matrix;
    a_start = args.a_offset + matrix * args.m * args.k;
    b_start = args.b_offset + matrix * args.k * args.n;
    d_start = args.d_offset + matrix * args.m * args.n;
    return is_computed(wid);
}
