// f32 matrix product: d = alpha * a b + beta * d, for each matrix of a batch (workgroups in z). a is (m, k), or (k, m)
// when transposed; b is (k, n), or (n, k) when transposed; offsets count elements. With beta = 0, d is not read. When
// the result is `symmetric`, tiles below the diagonal are mirrored, not computed.
//
// Up to 8 rows of a times transposed b (the head, while decoding): a workgroup computes 4 rows x 8 columns and reads
// each element of b once; eight threads share a column.

//#import gemm

struct Args {
    m: u32, n: u32, k: u32, batch: u32, a_transposed: u32, b_transposed: u32, symmetric: u32,
    a_offset: u32, b_offset: u32, d_offset: u32, alpha: f32, beta: f32,
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (batch, m, k) or (batch, k, m) from a_offset
@group(0) @binding(2) var<storage, read> b: array<f32>; // (batch, k, n) or (batch, n, k) from b_offset
@group(0) @binding(3) var<storage, read_write> d: array<f32>; // (batch, m, n) from d_offset

// First elements of this workgroup's matrices.
var<private> a_start: u32;
var<private> b_start: u32;
var<private> d_start: u32;
// Whether this tile is also written as its mirror image.
var<private> mirrored: bool;

fn a_at(row: u32, k: u32) -> f32 {
    if row >= args.m || k >= args.k {
        return 0.0;
    }
    return a[a_start + select(row * args.k + k, k * args.m + row, args.a_transposed != 0u)];
}

fn load_a(row: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(a_at(row, k), a_at(row + 1u, k), a_at(row + 2u, k), a_at(row + 3u, k));
}

fn b_at(k: u32, col: u32) -> f32 {
    if k >= args.k || col >= args.n {
        return 0.0;
    }
    return b[b_start + select(k * args.n + col, col * args.k + k, args.b_transposed != 0u)];
}

fn load_b(k: u32, col: u32) -> vec4<f32> {
    return vec4<f32>(b_at(k, col), b_at(k, col + 1u), b_at(k, col + 2u), b_at(k, col + 3u));
}

fn store_at(i: u32, value: f32) {
    var result = args.alpha * value;
    if args.beta != 0.0 {
        result += args.beta * d[i];
    }
    d[i] = result;
}

fn store(row: u32, col: u32, value: f32) {
    store_at(d_start + row * args.n + col, value);
    if mirrored {
        store_at(d_start + col * args.n + row, value);
    }
}

var<workgroup> partials: array<vec4<f32>, 64>; // (8 columns, 8 threads), four rows each

fn few_rows(wid: vec3<u32>, lane: u32) {
    let row = wid.y * 4u;
    let col = wid.x * 8u + lane / 8u;
    var acc = vec4<f32>();
    for (var k = lane % 8u; k < args.k; k += 8u) {
        acc += b_at(k, col) * load_a(row, k);
    }
    partials[lane] = acc;
    workgroupBarrier();
    let r = lane % 8u;
    if r < min(args.m - row, 4u) && col < args.n {
        var total = 0.0;
        for (var i = 0u; i < 8u; i++) {
            total += partials[lane / 8u * 8u + i][r];
        }
        store_at(d_start + (row + r) * args.n + col, total);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    a_start = args.a_offset + wid.z * args.m * args.k;
    b_start = args.b_offset + wid.z * args.k * args.n;
    d_start = args.d_offset + wid.z * args.m * args.n;
    if args.m <= 8u && args.a_transposed == 0u && args.b_transposed != 0u {
        few_rows(wid, lane);
        return;
    }
    if args.symmetric != 0u && wid.y > wid.x {
        return;
    }
    mirrored = args.symmetric != 0u && wid.y < wid.x;
    gemm(wid.xy, lane, args.m, args.n, args.k, args.a_transposed == 0u, args.b_transposed != 0u);
}
