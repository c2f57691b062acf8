// Input of a sub-layer: u = sum over i of h_pre[i] X_i.

//#import elements

struct Args { n: u32, streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(1) var<storage, read> coef: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>; // (streams, n)
@group(0) @binding(3) var<storage, read_write> u: array<f32>; // (n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    var sum = 0.0;
    for (var s = 0u; s < args.streams; s++) {
        sum += coef[s] * x[s * args.n + i];
    }
    u[i] = sum;
}
