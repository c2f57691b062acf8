// Token embedding from a part of the table, whose first row is that of id `first`: y[r] = table[ids[r] - first]. Another id
// gives zeros where `first` is 0; otherwise it leaves the row to the ops of other parts.

//#import elements

struct Args { rows: u32, dim: u32, first: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> table: array<f32>; // (rows of the part, dim)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, dim)

fn element(i: u32) {
    if i >= args.rows * args.dim {
        return;
    }
    // An id before `first` wraps to one beyond the part.
    let id = ids[i / args.dim] - args.first;
    if id < arrayLength(&table) / args.dim {
        y[i] = table[id * args.dim + i % args.dim];
    } else if args.first == 0u {
        y[i] = 0.0;
    }
}
