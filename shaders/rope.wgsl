// Rotary position embedding (Su et al. 2021), half-split: rotates the pairs (i, i + head_dim / 2) of every head by
// position * theta^(-2i / head_dim). The angles' cosines and sines come from a table: a GPU's sine is not accurate at
// large angles. sign -1 rotates back (the gradient). A position beyond the table is taken as its last one.

//#import elements

struct Args { rows: u32, heads: u32, head_dim: u32, sign: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, heads, head_dim)
@group(0) @binding(2) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read> table: array<f32>; // (positions, head_dim / 2, 2): cosine, sine
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (rows, heads, head_dim)

fn element(pair: u32) {
    let half = args.head_dim / 2u;
    if pair >= args.rows * args.heads * half {
        return;
    }
    let i = pair % half;
    let row = pair / half / args.heads;
    let position = min(positions[row], max(arrayLength(&table) / args.head_dim, 1u) - 1u);
    let angle = (position * half + i) * 2u;
    let c = table[angle];
    let s = args.sign * table[angle + 1u];
    let first = pair / half * args.head_dim + i;
    let x0 = x[first];
    let x1 = x[first + half];
    y[first] = x0 * c - x1 * s;
    y[first + half] = x1 * c + x0 * s;
}
