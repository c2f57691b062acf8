// Gradient of `embedding`, for the same part of the table: dtable[ids[r] - first] += dy[r], without atomics. One workgroup for each position in `order`, the
// rows sorted by id. The workgroup at the first row of an id adds up all rows of that id in order, so the sum does not
// depend on scheduling. A row beyond the last one and an id that is not in the part add nothing.

//#import groups

struct Args { rows: u32, dim: u32, first: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> order: array<u32>; // (rows), rows sorted by id
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (rows, dim)
@group(0) @binding(4) var<storage, read_write> dtable: array<f32>; // (rows of the part, dim)

// The id at a place in the order; for a row that is none, the largest.
fn id_at(place: u32) -> u32 {
    let row = order[place];
    if row < args.rows {
        return ids[row];
    }
    return 0xffffffffu;
}

fn group(first: u32, lane: u32) {
    if first >= args.rows {
        return;
    }
    let id = id_at(first);
    // An id before `first` wraps to one beyond the part.
    let to = id - args.first;
    if to >= arrayLength(&dtable) / args.dim {
        return;
    }
    if first > 0u {
        if id_at(first - 1u) == id {
            return;
        }
    }
    for (var c = lane; c < args.dim; c += 64u) {
        var sum = 0.0;
        for (var i = first; i < args.rows; i++) {
            if id_at(i) != id {
                break;
            }
            sum += dy[order[i] * args.dim + c];
        }
        dtable[to * args.dim + c] += sum;
    }
}
