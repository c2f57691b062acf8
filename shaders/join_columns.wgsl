// Places columns of x (rows, width), those from `from` on, in y (rows, stride) from column `first` on:
// y[r][first + c] = x[r][from + c].

//#import elements

struct Args { rows: u32, cols: u32, from: u32, width: u32, first: u32, stride: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, width)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (rows, stride)

fn element(i: u32) {
    if i < args.rows * args.cols {
        let r = i / args.cols;
        let c = i % args.cols;
        y[r * args.stride + args.first + c] = x[r * args.width + args.from + c];
    }
}
