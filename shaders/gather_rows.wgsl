// y[r] = x[index[r]]; an index beyond x, such as 0xffffffff, gives 0. dim is a multiple of 4.

//#import quads

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (any, dim)
@group(0) @binding(2) var<storage, read> index: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // (rows, dim)

fn quad(i: u32) {
    let dim = args.dim / 4u;
    if i >= args.rows * dim {
        return;
    }
    let chosen = index[i / dim];
    var value = vec4<f32>();
    if chosen < arrayLength(&x) / dim {
        value = x[chosen * dim + i % dim];
    }
    y[i] = value;
}
