// Rotary position embedding (Su et al. 2021), half-split, in place: rotates the pairs (i, i + head_dim / 2) of `heads` heads by
// position * theta^(-2i / head_dim). These are heads `first` and on of the `all` in a row. The angles' cosines and sines come
// from a table: a GPU's sine is not accurate at large angles. sign -1 rotates back (the gradient). A position beyond the table
// is taken as its last one. head_dim is a multiple of 4.

//#import quads

struct Args { rows: u32, heads: u32, head_dim: u32, first: u32, all: u32, sign: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> x: array<vec2<f32>>; // (rows, all, head_dim)
@group(0) @binding(2) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read> table: array<vec4<f32>>; // (positions, head_dim / 2, 2): cosine, sine

// Two pairs of elements.
fn quad(i: u32) {
    let quarter = args.head_dim / 4u;
    if i >= args.rows * args.heads * quarter {
        return;
    }
    let row = i / quarter / args.heads;
    let head = row * args.all + args.first + i / quarter % args.heads;
    let position = min(positions[row], max(arrayLength(&table) / quarter, 1u) - 1u);
    let angles = table[position * quarter + i % quarter];
    let c = angles.xz;
    let s = args.sign * angles.yw;
    let at = head * args.head_dim / 2u + i % quarter;
    let x0 = x[at];
    let x1 = x[at + quarter];
    x[at] = x0 * c - x1 * s;
    x[at + quarter] = x1 * c + x0 * s;
}
