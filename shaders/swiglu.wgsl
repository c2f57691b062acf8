// Gated unit (Shazeer 2020): y = silu(gate) * up, silu(x) = x / (1 + exp(-x)).

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gate: array<f32>; // (n)
@group(0) @binding(2) var<storage, read> up: array<f32>; // (n)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (n)

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
    // Bounded, so that nothing is infinite on the way.
    y[i] = gate[i] / (1.0 + exp(min(-gate[i], 80.0))) * up[i];
}
