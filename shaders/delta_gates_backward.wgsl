// Gradients of `delta_gates`, whose results are y: with b = y[r][h], dx[r][h] = dy[r][h] * b * (1 - b); with g = y[r][heads + h]
// and dg its gradient, dx[r][heads + h] = -dg * exp(p[h]) * sigmoid(x[r][heads + h] + p[heads + h]). dp[h] += sum over r of
// dg * g, and dp[heads + h] += sum over r of dx[r][heads + h]. One workgroup for each head.

//#import groups
//#import reduce

struct Args { rows: u32, heads: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, 2, heads)
@group(0) @binding(2) var<storage, read> p: array<f32>; // (2, heads)
@group(0) @binding(3) var<storage, read> y: array<f32>; // (rows, 2, heads)
@group(0) @binding(4) var<storage, read> dy: array<f32>; // (rows, 2, heads)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (rows, 2, heads)
@group(0) @binding(6) var<storage, read_write> dp: array<f32>; // (2, heads)

fn group(h: u32, lane: u32) {
    if h >= args.heads {
        return;
    }
    let rate = exp(p[h]);
    var to_rate = 0.0;
    var to_bias = 0.0;
    for (var r = lane; r < args.rows; r += 64u) {
        let write = r * 2u * args.heads + h;
        let forget = write + args.heads;
        let b = y[write];
        let dg = dy[forget];
        // Bounded, so that no intermediate value is infinite.
        let through = -dg * rate / (1.0 + exp(min(-(x[forget] + p[args.heads + h]), 80.0)));
        dx[write] = dy[write] * b * (1.0 - b);
        dx[forget] = through;
        to_rate += dg * y[forget];
        to_bias += through;
    }
    let rate_sum = reduce_sum(lane, to_rate);
    let bias_sum = reduce_sum(lane, to_bias);
    if lane == 0u {
        dp[h] += rate_sum;
        dp[args.heads + h] += bias_sum;
    }
}
