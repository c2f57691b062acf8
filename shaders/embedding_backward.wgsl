// Gradient of `embedding`: dtable[ids[r]] += dy[r], without atomics. One workgroup for each place of `order`, the rows
// sorted by id: the one at the first row of an id adds up that id's whole run, in order, so the sum does not depend on
// scheduling.

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> order: array<u32>; // (rows), rows sorted by id
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (rows, dim)
@group(0) @binding(4) var<storage, read_write> dtable: array<f32>; // (vocab, dim)

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = wid.x + wid.y * groups.x;
    if first >= args.rows {
        return;
    }
    let id = ids[order[first]];
    if first > 0u {
        if ids[order[first - 1u]] == id {
            return;
        }
    }
    for (var c = lane; c < args.dim; c += 64u) {
        var sum = 0.0;
        for (var i = first; i < args.rows; i++) {
            let row = order[i];
            if ids[row] != id {
                break;
            }
            sum += dy[row * args.dim + c];
        }
        dtable[id * args.dim + c] += sum;
    }
}
