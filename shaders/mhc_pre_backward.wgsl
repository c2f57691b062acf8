// Gradient of `mhc_pre` with respect to the streams: dx_i = beta * dx_i + h_pre[i] * du. With beta = 0, dx is not read.
// At most 4 streams; n is a multiple of 4.

//#import quads

struct Args { n: u32, streams: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(1) var<storage, read> coef: array<f32>;
@group(0) @binding(2) var<storage, read> du: array<vec4<f32>>; // (n)
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>; // (streams, n)

fn quad(i: u32) {
    let n = args.n / 4u;
    if i >= n {
        return;
    }
    let gradient = du[i];
    for (var s = 0u; s < 4u; s++) {
        if s < args.streams {
            var value = coef[s] * gradient;
            if args.beta != 0.0 {
                value += args.beta * dx[s * n + i];
            }
            dx[s * n + i] = value;
        }
    }
}
