// Gradient of `rms_norm` with respect to x: with g = dy * w, dx = beta * dx + rstd * (g - x * rstd^2 * mean(g * x)).
// One workgroup for each row. With beta = 0, dx is not read.

//#import groups
//#import reduce

struct Args { rows: u32, dim: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (dim)
@group(0) @binding(3) var<storage, read> rstd: array<f32>; // (rows)
@group(0) @binding(4) var<storage, read> dy: array<f32>; // (rows, dim)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (rows, dim)

fn group(row: u32, lane: u32) {
    if row >= args.rows {
        return;
    }
    let start = row * args.dim;
    var sum = 0.0;
    for (var c = lane; c < args.dim; c += 64u) {
        sum += dy[start + c] * w[c] * x[start + c];
    }
    let scale = rstd[row];
    let mean = reduce_sum(lane, sum) / f32(args.dim);
    let along = scale * scale * mean;
    for (var c = lane; c < args.dim; c += 64u) {
        let i = start + c;
        var value = scale * (dy[i] * w[c] - x[i] * along);
        if args.beta != 0.0 {
            value += args.beta * dx[i];
        }
        dx[i] = value;
    }
}
