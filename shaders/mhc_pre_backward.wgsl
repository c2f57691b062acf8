// Gradient of `mhc_pre` with respect to the streams: dx_i = beta * dx_i + h_pre[i] * du. With beta = 0, dx is not read.

//#import elements

struct Args { n: u32, streams: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(1) var<storage, read> coef: array<f32>;
@group(0) @binding(2) var<storage, read> du: array<f32>; // (n)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (streams, n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    for (var s = 0u; s < args.streams; s++) {
        var value = coef[s] * du[i];
        if args.beta != 0.0 {
            value += args.beta * dx[s * args.n + i];
        }
        dx[s * args.n + i] = value;
    }
}
