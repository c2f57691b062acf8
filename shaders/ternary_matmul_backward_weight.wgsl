// Straight-through gradient of `ternary_matmul`: dw += dy^T * x_hat over rows x_row.. of x_hat = xq * step.

//#import gemm

struct Args { rows: u32, outs: u32, dim: u32, x_row: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> dy: array<f32>; // (rows, outs)
@group(0) @binding(2) var<storage, read> xq: array<u32>; // (at least x_row + rows, dim / 4), four int8 in a word
@group(0) @binding(3) var<storage, read> step: array<f32>; // (at least x_row + rows)
@group(0) @binding(4) var<storage, read_write> dw: array<f32>; // (outs, dim)

fn load_a(out: u32, k: u32) -> vec4<f32> {
    if k >= args.rows {
        return vec4<f32>();
    }
    var value = vec4<f32>();
    let i = k * args.outs + out;
    if out < args.outs { value.x = dy[i]; }
    if out + 1u < args.outs { value.y = dy[i + 1u]; }
    if out + 2u < args.outs { value.z = dy[i + 2u]; }
    if out + 3u < args.outs { value.w = dy[i + 3u]; }
    return value;
}

fn load_b(k: u32, col: u32) -> vec4<f32> {
    if k >= args.rows || col >= args.dim {
        return vec4<f32>();
    }
    let row = args.x_row + k;
    return step[row] * vec4<f32>(unpack4xI8(xq[(row * args.dim + col) / 4u]));
}

fn store(out: u32, col: u32, value: f32) {
    dw[out * args.dim + col] += value;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    gemm(wid.xy, lane, args.outs, args.dim, args.rows, false, false);
}
