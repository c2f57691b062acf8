// Token embedding from a part of an int8 table with a scale for every 32 values: y[r] = scale * table[ids[r] - first]. As in
// `embedding`, another id gives zeros where `first` is 0, and otherwise leaves the row.

//#import elements

struct Args { rows: u32, dim: u32, first: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> codes: array<u32>; // (rows of the part, dim / 4), four int8 in a word
@group(0) @binding(3) var<storage, read> scales: array<f32>; // (rows of the part, dim / 32)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (rows, dim)

fn element(i: u32) {
    if i >= args.rows * args.dim {
        return;
    }
    // An id before `first` wraps to one beyond the part.
    let id = ids[i / args.dim] - args.first;
    let at = id * args.dim + i % args.dim;
    if id < min(arrayLength(&codes) / (args.dim / 4u), arrayLength(&scales) / (args.dim / 32u)) {
        let code = extractBits(bitcast<i32>(codes[at / 4u]), at % 4u * 8u, 8u);
        y[i] = scales[at / 32u] * f32(code);
    } else if args.first == 0u {
        y[i] = 0.0;
    }
}
