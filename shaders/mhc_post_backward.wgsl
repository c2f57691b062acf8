// Gradient of `mhc_post` with respect to streams and f: dx_j = sum over i of H_res[i][j] dy_i, df = sum over i of
// h_post[i] dy_i. At most 4 streams; n is a multiple of 4.

//#import quads

struct Args { n: u32, streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(1) var<storage, read> coef: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>; // (streams, n)
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>; // (streams, n)
@group(0) @binding(4) var<storage, read_write> df: array<vec4<f32>>; // (n)

fn quad(i: u32) {
    let n = args.n / 4u;
    if i >= n {
        return;
    }
    let count = args.streams;
    var grads = array<vec4<f32>, 4>();
    var sum = vec4<f32>();
    for (var s = 0u; s < 4u; s++) {
        if s < count {
            grads[s] = dy[s * n + i];
            sum += coef[count + s] * grads[s];
        }
    }
    df[i] = sum;
    for (var j = 0u; j < count; j++) {
        var value = vec4<f32>();
        for (var s = 0u; s < 4u; s++) {
            if s < count {
                value += coef[2u * count + s * count + j] * grads[s];
            }
        }
        dx[j * n + i] = value;
    }
}
