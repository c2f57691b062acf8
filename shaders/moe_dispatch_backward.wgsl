// Gradient of `moe_dispatch`: dx[r] = beta * dx[r] + sum over j, in order, of dy[place[r * k + j]]. With beta = 0, dx is not read.

//#import elements

struct Args { rows: u32, dim: u32, k: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> dy: array<f32>; // (rows * k, dim)
@group(0) @binding(2) var<storage, read> place: array<u32>; // (rows, k)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (rows, dim)

fn element(i: u32) {
    let row = i / args.dim;
    if row >= args.rows {
        return;
    }
    var sum = 0.0;
    if args.beta != 0.0 {
        sum = args.beta * dx[i];
    }
    for (var j = row * args.k; j < (row + 1u) * args.k; j++) {
        sum += dy[place[j] * args.dim + i % args.dim];
    }
    dx[i] = sum;
}
