// Straight-through gradient of `ternary_matmul`: dx[x_row + r] = beta * dx[x_row + r] + dy[r] * w_hat, w_hat = code *
// scale. With beta = 0, dx is not read.

//#import gemm

struct Args { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> dy: array<f32>; // (rows, outs)
// (outs, ceil(dim / 128), 8), packed as by `ternary_quantize`
@group(0) @binding(2) var<storage, read> codes: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<f32>; // (outs, dim / group)
@group(0) @binding(4) var<storage, read_write> dx: array<f32>; // (at least x_row + rows, dim)

fn at(row: u32, k: u32) -> f32 {
    if row >= args.rows || k >= args.outs {
        return 0.0;
    }
    return dy[row * args.outs + k];
}

fn load_a(row: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(at(row, k), at(row + 1u, k), at(row + 2u, k), at(row + 3u, k));
}

// Four columns from a multiple of four lie in one word of the codes.
fn load_b(k: u32, col: u32) -> vec4<f32> {
    if k >= args.outs || col >= args.dim {
        return vec4<f32>();
    }
    let run = k * ((args.dim + 127u) / 128u) + col / 128u;
    let word = codes[run * 8u + col % 32u / 4u] >> (col % 128u / 32u * 2u);
    let scale = scales[k * (args.dim / args.group) + col / args.group];
    return scale * (vec4<f32>((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(3u)) - 1.0);
}

fn store(row: u32, col: u32, value: f32) {
    let i = (args.x_row + row) * args.dim + col;
    var result = value;
    if args.beta != 0.0 {
        result += args.beta * dx[i];
    }
    dx[i] = result;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    gemm(wid.xy, lane, args.rows, args.dim, args.outs, true, false);
}
