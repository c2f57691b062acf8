// Gradient of `mhc_pre` with respect to h_pre, first stage: partial[b][i] = sum of X_i * du over the 4096 elements of
// block b, one workgroup for each block. `sum_rows` adds the blocks. At most 4 streams.

//#import groups

struct Args { n: u32, streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (streams, n)
@group(0) @binding(2) var<storage, read> du: array<f32>; // (n)
@group(0) @binding(3) var<storage, read_write> partial: array<f32>; // (ceil(n / 4096), streams)

var<workgroup> sums: array<vec4<f32>, 64>; // (threads, streams)

fn group(block: u32, lane: u32) {
    if block * 4096u >= args.n {
        return;
    }
    var sum = vec4<f32>();
    for (var i = block * 4096u + lane; i < min(block * 4096u + 4096u, args.n); i += 64u) {
        var streams = vec4<f32>();
        for (var s = 0u; s < args.streams; s++) {
            streams[s] = x[s * args.n + i];
        }
        sum += streams * du[i];
    }
    sums[lane] = sum;
    workgroupBarrier();
    if lane < args.streams {
        var total = 0.0;
        for (var i = 0u; i < 64u; i++) {
            total += sums[i][lane];
        }
        partial[block * args.streams + lane] = total;
    }
}
