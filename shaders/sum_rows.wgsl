// Column sums: y[offset + c] = beta * y[offset + c] + sum over r of x[r][c], rows in order, one thread for each column.
// With beta = 0, y is not read.

//#import elements

struct Args { rows: u32, cols: u32, offset: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, cols)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (at least offset + cols)

fn element(c: u32) {
    if c >= args.cols {
        return;
    }
    var sum = 0.0;
    for (var row = 0u; row < args.rows; row++) {
        sum += x[row * args.cols + c];
    }
    if args.beta != 0.0 {
        sum += args.beta * y[args.offset + c];
    }
    y[args.offset + c] = sum;
}
