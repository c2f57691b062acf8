// Gradient of the weights of `moe_route` with respect to its logits, one thread for each row: with s = sum over i of
// weights[r][i] * dweights[r][i], dlogits[r][e] = beta * dlogits[r][e] + weights[r][j] * (dweights[r][j] - s) for the experts
// e = chosen[r][j], and beta * dlogits[r][e] for the others. With beta = 0, dlogits is not read.

//#import elements

struct Args { rows: u32, experts: u32, k: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> chosen: array<u32>; // (rows, k)
@group(0) @binding(2) var<storage, read> weights: array<f32>; // (rows, k)
@group(0) @binding(3) var<storage, read> dweights: array<f32>; // (rows, k)
@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>; // (rows, experts)

fn element(row: u32) {
    if row >= args.rows {
        return;
    }
    var s = 0.0;
    for (var i = row * args.k; i < (row + 1u) * args.k; i++) {
        s += weights[i] * dweights[i];
    }
    for (var e = row * args.experts; e < (row + 1u) * args.experts; e++) {
        var old = 0.0;
        if args.beta != 0.0 {
            old = args.beta * dlogits[e];
        }
        dlogits[e] = old;
    }
    for (var i = row * args.k; i < (row + 1u) * args.k; i++) {
        dlogits[row * args.experts + chosen[i]] += weights[i] * (dweights[i] - s);
    }
}
