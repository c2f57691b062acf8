// Output of a sub-layer: Y_i = sum over j of H_res[i][j] X_j + h_post[i] f. At most 4 streams.

//#import elements

struct Args { n: u32, streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(1) var<storage, read> coef: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>; // (streams, n)
@group(0) @binding(3) var<storage, read> f: array<f32>; // (n)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (streams, n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    let n = args.streams;
    var streams = vec4<f32>();
    for (var s = 0u; s < n; s++) {
        streams[s] = x[s * args.n + i];
    }
    let value = f[i];
    for (var s = 0u; s < n; s++) {
        var sum = 0.0;
        for (var j = 0u; j < n; j++) {
            sum += coef[2u * n + s * n + j] * streams[j];
        }
        y[s * args.n + i] = sum + coef[n + s] * value;
    }
}
