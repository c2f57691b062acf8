// What the experts of a row gave, weighted: y[r] = sum over j, in order, of weights[r][j] * x[place[r * k + j]].

//#import elements

struct Args { rows: u32, dim: u32, k: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows * k, dim)
@group(0) @binding(2) var<storage, read> place: array<u32>; // (rows, k)
@group(0) @binding(3) var<storage, read> weights: array<f32>; // (rows, k)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (rows, dim)

fn element(i: u32) {
    let row = i / args.dim;
    if row >= args.rows {
        return;
    }
    var sum = 0.0;
    for (var j = row * args.k; j < (row + 1u) * args.k; j++) {
        sum += weights[j] * x[place[j] * args.dim + i % args.dim];
    }
    y[i] = sum;
}
