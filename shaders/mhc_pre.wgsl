// Input of a sub-layer: u = sum over i of h_pre[i] X_i. At most 4 streams; n is a multiple of 4.

//#import quads

struct Args { n: u32, streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(1) var<storage, read> coef: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // (streams, n)
@group(0) @binding(3) var<storage, read_write> u: array<vec4<f32>>; // (n)

fn quad(i: u32) {
    let n = args.n / 4u;
    if i >= n {
        return;
    }
    var sum = vec4<f32>();
    for (var s = 0u; s < 4u; s++) {
        if s < args.streams {
            sum += coef[s] * x[s * n + i];
        }
    }
    u[i] = sum;
}
