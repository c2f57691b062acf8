// y[i] = scale * x for each of `streams` residual streams of n elements.

struct Args { n: u32, streams: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (streams, n)

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (wid.x + wid.y * groups.x) * 64u + lane;
    if i >= args.n {
        return;
    }
    let value = args.scale * x[i];
    for (var s = 0u; s < args.streams; s++) {
        y[s * args.n + i] = value;
    }
}
