// y[r] = x[index[r]]; an index beyond x, such as 0xffffffff, gives 0.

//#import elements

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (any, dim)
@group(0) @binding(2) var<storage, read> index: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, dim)

fn element(i: u32) {
    if i >= args.rows * args.dim {
        return;
    }
    let chosen = index[i / args.dim];
    var value = 0.0;
    if chosen < arrayLength(&x) / args.dim {
        value = x[chosen * args.dim + i % args.dim];
    }
    y[i] = value;
}
