// y[i] = scale * x for each of `streams` residual streams of n elements.

//#import elements

struct Args { n: u32, streams: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (streams, n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    let value = args.scale * x[i];
    for (var s = 0u; s < args.streams; s++) {
        y[s * args.n + i] = value;
    }
}
