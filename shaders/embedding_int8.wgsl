// Token embedding from an int8 table with a scale for every 32 values: y[r] = scale * table[ids[r]]; an id beyond the
// table gives zeros.

//#import elements

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> codes: array<u32>; // (vocab, dim / 4), four int8 in a word
@group(0) @binding(3) var<storage, read> scales: array<f32>; // (vocab, dim / 32)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (rows, dim)

fn element(i: u32) {
    if i >= args.rows * args.dim {
        return;
    }
    let id = ids[i / args.dim];
    let at = id * args.dim + i % args.dim;
    var value = 0.0;
    if id < min(arrayLength(&codes) / (args.dim / 4u), arrayLength(&scales) / (args.dim / 32u)) {
        let code = extractBits(bitcast<i32>(codes[at / 4u]), at % 4u * 8u, 8u);
        value = scales[at / 32u] * f32(code);
    }
    y[i] = value;
}
