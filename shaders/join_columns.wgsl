// Places columns of x (rows, x_cols), those from `x_first` on, in y (rows, stride) from column `first` on:
// y[r][first + c] = x[r][x_first + c].

//#import elements

struct Args { rows: u32, cols: u32, x_first: u32, x_cols: u32, first: u32, stride: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, x_cols)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (rows, stride)

fn element(i: u32) {
    if i < args.rows * args.cols {
        let r = i / args.cols;
        let c = i % args.cols;
        y[r * args.stride + args.first + c] = x[r * args.x_cols + args.x_first + c];
    }
}
