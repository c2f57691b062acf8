// y = scale * (sum of the `streams` residual streams of n elements, in order).

//#import elements

struct Args { n: u32, streams: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (streams, n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    var sum = 0.0;
    for (var s = 0u; s < args.streams; s++) {
        sum += x[s * args.n + i];
    }
    y[i] = args.scale * sum;
}
