// Gradient of `swiglu`: dup = dy * silu(gate), dgate = dy * up * silu'(gate), silu'(x) = s + x s (1 - s) with s =
// sigmoid(x).

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gate: array<f32>; // (n)
@group(0) @binding(2) var<storage, read> up: array<f32>; // (n)
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (n)
@group(0) @binding(4) var<storage, read_write> dgate: array<f32>; // (n)
@group(0) @binding(5) var<storage, read_write> dup: array<f32>; // (n)

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
    let s = 1.0 / (1.0 + exp(min(-gate[i], 80.0)));
    dup[i] = dy[i] * gate[i] * s;
    dgate[i] = dy[i] * up[i] * (s + gate[i] * s * (1.0 - s));
}
