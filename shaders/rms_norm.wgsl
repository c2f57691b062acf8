// RMSNorm (Zhang & Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * w, one workgroup for each row.
// Keeps rstd = 1 / sqrt(mean(x^2) + eps) for backward. A row whose sum of squares overflows is NaN.

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
    let total = reduce_sum(lane, sum);
    let inverse = 1.0 / sqrt(total / f32(args.dim) + args.eps);
    // By its bits, since compilers may assume that floats are finite.
    let scale = bitcast<f32>(select(bitcast<u32>(inverse), 0x7fc00000u, bitcast<u32>(total) >= 0x7f800000u));
    for (var c = lane; c < args.dim; c += 64u) {
        y[start + c] = x[start + c] * scale * w[c];
    }
    if lane == 0u {
        rstd[row] = scale;
    }
}
