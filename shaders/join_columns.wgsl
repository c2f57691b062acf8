// Places the columns of x (rows, cols) in y (rows, stride) from column `first` on: y[r][first + c] = x[r][c].

//#import elements

struct Args { rows: u32, cols: u32, first: u32, stride: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, cols)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (rows, stride)

fn element(i: u32) {
    if i < args.rows * args.cols {
        y[i / args.cols * args.stride + args.first + i % args.cols] = x[i];
    }
}
