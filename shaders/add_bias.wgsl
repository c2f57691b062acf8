// A bias added to each row in place: x[r][c] += bias[c].

//#import elements

struct Args { rows: u32, cols: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // (rows, cols)
@group(0) @binding(2) var<storage, read> bias: array<f32>; // (cols)

fn element(i: u32) {
    if i < args.rows * args.cols {
        x[i] += bias[i % args.cols];
    }
}
