// Gradient of `mhc_post` with respect to streams and f: dx_j = sum over i of H_res[i][j] dy_i, df = sum over i of
// h_post[i] dy_i. At most 4 streams.

//#import elements

struct Args { n: u32, streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(1) var<storage, read> coef: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>; // (streams, n)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // (streams, n)
@group(0) @binding(4) var<storage, read_write> df: array<f32>; // (n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    let n = args.streams;
    var grads = vec4<f32>();
    var sum = 0.0;
    for (var s = 0u; s < n; s++) {
        grads[s] = dy[s * args.n + i];
        sum += coef[n + s] * grads[s];
    }
    df[i] = sum;
    for (var j = 0u; j < n; j++) {
        var value = 0.0;
        for (var s = 0u; s < n; s++) {
            value += coef[2u * n + s * n + j] * grads[s];
        }
        dx[j * args.n + i] = value;
    }
}
