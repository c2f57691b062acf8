// y[0] = beta * y[0] + scale * sum(x), by one workgroup. With beta = 0, y is not read.

//#import reduce

struct Args { n: u32, scale: f32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (1)

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < args.n; i += 64u) {
        sum += x[i];
    }
    let total = reduce_sum(lane, sum);
    if lane == 0u {
        var value = args.scale * total;
        if args.beta != 0.0 {
            value += args.beta * y[0];
        }
        y[0] = value;
    }
}
