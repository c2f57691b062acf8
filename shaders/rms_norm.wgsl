// RMSNorm (Zhang & Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * w, one workgroup for each row.
// Keeps rstd = 1 / sqrt(mean(x^2) + eps) for backward.

//#import groups
//#import reduce

struct Args { rows: u32, dim: u32, eps: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (dim)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, dim)
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>; // (rows)

fn group(row: u32, lane: u32) {
    if row >= args.rows {
        return;
    }
    let start = row * args.dim;
    var sum = 0.0;
    for (var c = lane; c < args.dim; c += 64u) {
        let v = x[start + c];
        sum += v * v;
    }
    let scale = 1.0 / sqrt(reduce_sum(lane, sum) / f32(args.dim) + args.eps);
    for (var c = lane; c < args.dim; c += 64u) {
        y[start + c] = x[start + c] * scale * w[c];
    }
    if lane == 0u {
        rstd[row] = scale;
    }
}
