// Activations to int8, one step for each row: step = max(max|x|, 1e-8) / 127, xq = clamp(round_half_even(x / step),
// -127, 127). One workgroup for each row; dim is a multiple of 4, so that no word is shared by two rows. A GPU's
// division may be off by 2.5 ulp: a code may then differ by one where x / step is that near to a half. A row with a value
// that is not finite has the step NaN and codes of -127.

//#import groups
//#import reduce

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read_write> xq: array<u32>; // (rows, dim / 4), four int8 in a word
@group(0) @binding(3) var<storage, read_write> step: array<f32>; // (rows)

fn code(value: f32) -> u32 {
    return u32(i32(clamp(round(value), -127.0, 127.0))) & 0xffu;
}

fn group(row: u32, lane: u32) {
    if row >= args.rows {
        return;
    }
    let start = row * args.dim;
    var most = 0.0;
    for (var c = lane; c < args.dim; c += 64u) {
        let size = abs(x[start + c]);
        // By its bits, since compilers may assume that floats are finite. It then counts as the largest float.
        most = max(most, select(size, 0x1.fffffep+127f, bitcast<u32>(size) >= 0x7f800000u));
    }
    most = max(reduce_max(lane, most), 1e-8);
    let size = most / 127.0;
    let finite = most != 0x1.fffffep+127f;
    for (var word = start / 4u + lane; word < (start + args.dim) / 4u; word += 64u) {
        let i = word * 4u;
        let codes = code(x[i] / size) | (code(x[i + 1u] / size) << 8u)
            | (code(x[i + 2u] / size) << 16u) | (code(x[i + 3u] / size) << 24u);
        xq[word] = select(0x81818181u, codes, finite);
    }
    if lane == 0u {
        step[row] = bitcast<f32>(select(0x7fc00000u, bitcast<u32>(size), finite));
    }
}
