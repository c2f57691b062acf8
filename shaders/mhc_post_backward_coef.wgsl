// Gradient of `mhc_post` with respect to its coefficients, first stage, over the 4096 elements of block b, one
// workgroup for each block: partial[b] = (sum of f * dy_i for each i, then sum of X_j * dy_i for each i, j). `sum_rows`
// adds the blocks. At most 4 streams.

//#import groups

struct Args { n: u32, streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (streams, n)
@group(0) @binding(2) var<storage, read> f: array<f32>; // (n)
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (streams, n)
@group(0) @binding(4) var<storage, read_write> partial: array<f32>; // (ceil(n / 4096), streams + streams * streams)

var<workgroup> sums: array<vec4<f32>, 320>; // (f then each X_j, threads, streams i)

fn group(block: u32, lane: u32) {
    if block * 4096u >= args.n {
        return;
    }
    let n = args.streams;
    var with_f = vec4<f32>();
    var with_0 = vec4<f32>();
    var with_1 = vec4<f32>();
    var with_2 = vec4<f32>();
    var with_3 = vec4<f32>();
    for (var i = block * 4096u + lane; i < min(block * 4096u + 4096u, args.n); i += 64u) {
        var streams = vec4<f32>();
        var grads = vec4<f32>();
        for (var s = 0u; s < n; s++) {
            streams[s] = x[s * args.n + i];
            grads[s] = dy[s * args.n + i];
        }
        with_f += f[i] * grads;
        with_0 += streams.x * grads;
        with_1 += streams.y * grads;
        with_2 += streams.z * grads;
        with_3 += streams.w * grads;
    }
    sums[lane] = with_f;
    sums[64u + lane] = with_0;
    sums[128u + lane] = with_1;
    sums[192u + lane] = with_2;
    sums[256u + lane] = with_3;
    workgroupBarrier();
    if lane < n + n * n {
        // The first n threads add up f * dy_i, the others X_j * dy_i for i, j in order.
        let i = select(lane / n - 1u, lane, lane < n);
        let column = select(1u + lane % n, 0u, lane < n) * 64u;
        var total = 0.0;
        for (var t = 0u; t < 64u; t++) {
            total += sums[column + t][i];
        }
        partial[block * (n + n * n) + lane] = total;
    }
}
