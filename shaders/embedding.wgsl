// Token embedding: y[r] = table[ids[r]]. Ids below vocab are the host's promise.

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> table: array<f32>; // (vocab, dim)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, dim)

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
    y[i] = table[ids[i / args.dim] * args.dim + i % args.dim];
}
