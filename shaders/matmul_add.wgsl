// f32 matrix product into a new matrix: d = alpha * a b + beta * c, for each matrix of a batch (workgroups in z); all
// dense, none transposed. When the result is `symmetric`, tiles below the diagonal are mirrored, not computed. a, b and
// c may be one buffer.

//#import gemm

struct Args { m: u32, n: u32, k: u32, batch: u32, symmetric: u32, alpha: f32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (batch, m, k)
@group(0) @binding(2) var<storage, read> b: array<f32>; // (batch, k, n)
@group(0) @binding(3) var<storage, read> c: array<f32>; // (batch, m, n)
@group(0) @binding(4) var<storage, read_write> d: array<f32>; // (batch, m, n)

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
    return a[a_start + row * args.k + k];
}

fn load_a(row: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(a_at(row, k), a_at(row + 1u, k), a_at(row + 2u, k), a_at(row + 3u, k));
}

fn load_b(k: u32, col: u32) -> vec4<f32> {
    if k >= args.k {
        return vec4<f32>();
    }
    var value = vec4<f32>();
    let i = b_start + k * args.n + col;
    if col < args.n { value.x = b[i]; }
    if col + 1u < args.n { value.y = b[i + 1u]; }
    if col + 2u < args.n { value.z = b[i + 2u]; }
    if col + 3u < args.n { value.w = b[i + 3u]; }
    return value;
}

fn store_at(i: u32, value: f32) {
    var result = args.alpha * value;
    if args.beta != 0.0 {
        result += args.beta * c[i];
    }
    d[i] = result;
}

fn store(row: u32, col: u32, value: f32) {
    store_at(d_start + row * args.n + col, value);
    if mirrored {
        store_at(d_start + col * args.n + row, value);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if args.symmetric != 0u && wid.y > wid.x {
        return;
    }
    mirrored = args.symmetric != 0u && wid.y < wid.x;
    a_start = wid.z * args.m * args.k;
    b_start = wid.z * args.k * args.n;
    d_start = wid.z * args.m * args.n;
    gemm(wid.xy, lane, args.m, args.n, args.k, true, false);
}
