// What a delta rule forgets and how much it writes, for each row and head (Gated Delta Networks, Yang, Kautz and Hatamizadeh
// 2024): y[r][h] = sigmoid(x[r][h]), the strength of writing, and y[r][heads + h] = -exp(p[h]) * softplus(x[r][heads + h] +
// p[heads + h]), the logarithm of what remains of the state.

//#import elements

struct Args { rows: u32, heads: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, 2, heads)
@group(0) @binding(2) var<storage, read> p: array<f32>; // (2, heads)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, 2, heads)

// ln(1 + e), where e is positive and small values of it count.
fn log_1p(e: f32) -> f32 {
    let sum = 1.0 + e;
    // What rounding took from e, relative to the sum.
    return log(sum) + (e - (sum - 1.0)) / sum;
}

fn element(i: u32) {
    if i >= args.rows * 2u * args.heads {
        return;
    }
    let c = i % (2u * args.heads);
    if c < args.heads {
        // Bounded, so that no intermediate value is infinite.
        y[i] = 1.0 / (1.0 + exp(min(-x[i], 80.0)));
    } else {
        let z = x[i] + p[c];
        y[i] = -exp(p[c - args.heads]) * (max(z, 0.0) + log_1p(exp(-min(abs(z), 80.0))));
    }
}
