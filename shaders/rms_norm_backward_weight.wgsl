// Gradient of `rms_norm` with respect to w, first stage: partial[b] = sum of dy * x * rstd over the 64 rows of block b,
// one thread for each column. `sum_rows` adds the blocks.

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> rstd: array<f32>; // (rows)
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (rows, dim)
@group(0) @binding(4) var<storage, read_write> partial: array<f32>; // (ceil(rows / 64), dim)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = wid.x * 64u + lane;
    if c >= args.dim {
        return;
    }
    let end = min((wid.y + 1u) * 64u, args.rows);
    var sum = 0.0;
    for (var row = wid.y * 64u; row < end; row++) {
        sum += dy[row * args.dim + c] * x[row * args.dim + c] * rstd[row];
    }
    partial[wid.y * args.dim + c] = sum;
}
