// Column sums: y[offset + c] = beta * y[offset + c] + sum over r of x[r][c], rows in order, one thread for each column.
// With beta = 0, y is not read.

struct Args { rows: u32, cols: u32, offset: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, cols)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (at least offset + cols)

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let c = (wid.x + wid.y * groups.x) * 64u + lane;
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
