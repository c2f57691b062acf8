// Gradient of `embedding`: dtable[ids[r]] += dy[r], without atomics. One workgroup for each position in `order`, the
// rows sorted by id. The workgroup at the first row of an id adds up all rows of that id in order, so the sum does not
// depend on scheduling.

//#import groups

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> order: array<u32>; // (rows), rows sorted by id
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (rows, dim)
@group(0) @binding(4) var<storage, read_write> dtable: array<f32>; // (vocab, dim)

fn group(first: u32, lane: u32) {
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
        let at = id * args.dim + c;
        if at < arrayLength(&dtable) {
            dtable[at] += sum;
        }
    }
}
