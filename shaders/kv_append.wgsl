// Stores keys or values in a cache: cache[slots[r]][positions[r]] = x[r]. A slot of 0xffffffff stores nothing.

struct Args { rows: u32, dim: u32, context: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read> slots: array<u32>; // (rows)
@group(0) @binding(4) var<storage, read_write> cache: array<f32>; // (slots, context, dim)

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (wid.x + wid.y * groups.x) * 64u + lane;
    if i >= args.rows * args.dim {
        return;
    }
    let r = i / args.dim;
    if slots[r] != 0xffffffffu && positions[r] < args.context {
        cache[(slots[r] * args.context + positions[r]) * args.dim + i % args.dim] = x[i];
    }
}
