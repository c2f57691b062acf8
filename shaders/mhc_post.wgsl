// Output of a sub-layer: Y_i = sum over j of H_res[i][j] X_j + h_post[i] f. At most 4 streams; n is a
// multiple of 4.

//#import quads

struct Args { n: u32, streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(1) var<storage, read> coef: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // (streams, n)
@group(0) @binding(3) var<storage, read> f: array<vec4<f32>>; // (n)
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // (streams, n)

fn quad(i: u32) {
    let n = args.n / 4u;
    if i >= n {
        return;
    }
    let count = args.streams;
    var streams = array<vec4<f32>, 4>();
    for (var s = 0u; s < 4u; s++) {
        if s < count {
            streams[s] = x[s * n + i];
        }
    }
    let value = f[i];
    for (var s = 0u; s < count; s++) {
        var sum = vec4<f32>();
        for (var j = 0u; j < 4u; j++) {
            if j < count {
                sum += coef[2u * count + s * count + j] * streams[j];
            }
        }
        y[s * n + i] = sum + coef[count + s] * value;
    }
}
