// Gradient of `embedding`, for the same part of the table: dtable[ids[r] - first] += dy[r], without atomics, in an order that
// does not depend on scheduling. `order` holds the rows sorted by id. One workgroup for each 32 places in it and 64 columns
// adds up each run of an id in order: the sum of a run goes to the table, that of one which began before goes to `scratch`.
// The second pass adds those of each id to the table, in order. A row beyond the last one and an id that is not in the part
// add nothing.

//#import groups

struct Args { rows: u32, dim: u32, first: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> order: array<u32>; // (rows), rows sorted by id
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (rows, dim)
@group(0) @binding(4) var<storage, read_write> dtable: array<f32>; // (rows of the part, dim)
@group(0) @binding(5) var<storage, read_write> scratch: array<f32>; // (blocks of 32 places, dim)

// The id at a place in the order; for a row that is none, the largest.
fn id_at(place: u32) -> u32 {
    let row = order[place];
    if row < args.rows {
        return ids[row];
    }
    return 0xffffffffu;
}

// The row of the part for an id. An id before `first` wraps to one beyond the part.
fn row_of(id: u32) -> u32 {
    return id - args.first;
}

fn rows_of_part() -> u32 {
    return arrayLength(&dtable) / args.dim;
}

fn add(id: u32, c: u32, sum: f32) {
    if row_of(id) < rows_of_part() {
        dtable[row_of(id) * args.dim + c] += sum;
    }
}

fn group(i: u32, lane: u32) {
    let columns = (args.dim + 63u) / 64u;
    let block = i / columns;
    let c = i % columns * 64u + lane;
    let start = block * 32u;
    if start >= args.rows || c >= args.dim {
        return;
    }
    var id = id_at(start);
    var began_before = false;
    if start > 0u {
        began_before = id_at(start - 1u) == id;
    }
    var sum = 0.0;
    for (var place = start; place < min(start + 32u, args.rows); place++) {
        let next = id_at(place);
        if next != id {
            if began_before {
                scratch[block * args.dim + c] = sum;
            } else {
                add(id, c, sum);
            }
            id = next;
            began_before = false;
            sum = 0.0;
        }
        if row_of(id) < rows_of_part() {
            sum += dy[order[place] * args.dim + c];
        }
    }
    if began_before {
        scratch[block * args.dim + c] = sum;
    } else {
        add(id, c, sum);
    }
}

@compute @workgroup_size(64)
fn longer_runs(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = wid.x + wid.y * groups.x;
    let columns = (args.dim + 63u) / 64u;
    let block = i / columns;
    let c = i % columns * 64u + lane;
    let start = block * 32u;
    if block == 0u || start >= args.rows || c >= args.dim {
        return;
    }
    // The run began in the block before.
    let id = id_at(start);
    if id_at(start - 1u) != id {
        return;
    }
    if block > 1u {
        if id_at(start - 33u) == id {
            return;
        }
    }
    var sum = 0.0;
    for (var b = block; b * 32u < args.rows; b++) {
        if id_at(b * 32u) != id {
            break;
        }
        sum += scratch[b * args.dim + c];
    }
    add(id, c, sum);
}
