// Token embedding from a part of a table of f16 values: y[r] = table[ids[r] - first]. As in `embedding`, another id gives zeros
// where `first` is 0, and otherwise leaves the row.

//#import elements
//#import halves

struct Args { rows: u32, dim: u32, first: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> table: array<u32>; // (rows of the part, dim), two f16 in a word
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, dim)

fn element(i: u32) {
    if i >= args.rows * args.dim {
        return;
    }
    // An id before `first` wraps to one beyond the part.
    let id = ids[i / args.dim] - args.first;
    if id < arrayLength(&table) * 2u / args.dim {
        let at = id * args.dim + i % args.dim;
        y[i] = halves(table[at / 2u] >> (at % 2u * 16u)).x;
    } else if args.first == 0u {
        y[i] = 0.0;
    }
}
