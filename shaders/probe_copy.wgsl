// y = x, in vectors of four. It measures the memory's bandwidth.

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>; // (n)

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (wid.x + wid.y * groups.x) * 256u + lane;
    for (var k = 0u; k < 4u; k++) {
        let i = first + 64u * k;
        if i < args.n {
            y[i] = x[i];
        }
    }
}
