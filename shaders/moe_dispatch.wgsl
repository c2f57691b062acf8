// Rows to the places of their assignments: y[place[a]] = x[a / k] for each assignment a of `n`. `place` has each place once.

//#import elements

struct Args { n: u32, dim: u32, k: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n / k, dim)
@group(0) @binding(2) var<storage, read> place: array<u32>; // (n)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (n, dim)

fn element(i: u32) {
    let a = i / args.dim;
    if a < args.n {
        y[place[a] * args.dim + i % args.dim] = x[a / args.k * args.dim + i % args.dim];
    }
}
