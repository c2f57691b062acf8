// Token embedding: y[r] = table[ids[r]]; an id beyond the table gives zeros.

//#import elements

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> table: array<f32>; // (vocab, dim)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (rows, dim)

fn element(i: u32) {
    if i >= args.rows * args.dim {
        return;
    }
    let id = ids[i / args.dim];
    var value = 0.0;
    if id < arrayLength(&table) / args.dim {
        value = table[id * args.dim + i % args.dim];
    }
    y[i] = value;
}
