// `rms_norm`, then `quantize_rows` of its result, which is not kept: y = x * rstd * w with rstd = 1 / sqrt(mean(x^2) + eps),
// step = max(max|y|, 1e-8) / 127, xq = clamp(round_half_even(y / step), -127, 127). One workgroup for each row; dim is a
// multiple of 4. Both files say what becomes of values that are not finite.

//#import groups
//#import reduce

struct Args { rows: u32, dim: u32, eps: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (rows, dim)
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>; // (dim)
@group(0) @binding(3) var<storage, read_write> xq: array<u32>; // (rows, dim / 4), four int8 in a word
@group(0) @binding(4) var<storage, read_write> step: array<f32>; // (rows)
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>; // (rows)

fn group(row: u32, lane: u32) {
    if row >= args.rows {
        return;
    }
    let quads = args.dim / 4u;
    let start = row * quads;
    var sum = 0.0;
    for (var c = lane; c < quads; c += 64u) {
        sum += dot(x[start + c], x[start + c]);
    }
    let total = reduce_sum(lane, sum);
    let inverse = 1.0 / sqrt(total / f32(args.dim) + args.eps);
    // By its bits, since compilers may assume that floats are finite.
    let scale = bitcast<f32>(select(bitcast<u32>(inverse), 0x7fc00000u, bitcast<u32>(total) >= 0x7f800000u));
    var most = 0.0;
    for (var c = lane; c < quads; c += 64u) {
        let size = abs(x[start + c] * scale * w[c]);
        // One that is not finite counts as the largest float.
        let known = select(size, vec4<f32>(0x1.fffffep+127f), bitcast<vec4<u32>>(size) >= vec4<u32>(0x7f800000u));
        most = max(most, max(max(known.x, known.y), max(known.z, known.w)));
    }
    most = max(reduce_max(lane, most), 1e-8);
    let size = most / 127.0;
    let finite = most != 0x1.fffffep+127f;
    for (var c = lane; c < quads; c += 64u) {
        let y = x[start + c] * scale * w[c];
        let codes = vec4<u32>(vec4<i32>(clamp(round(y / size), vec4<f32>(-127.0), vec4<f32>(127.0)))) & vec4<u32>(0xffu);
        xq[start + c] = select(0x81818181u, codes.x | (codes.y << 8u) | (codes.z << 16u) | (codes.w << 24u), finite);
    }
    if lane == 0u {
        step[row] = bitcast<f32>(select(0x7fc00000u, bitcast<u32>(size), finite));
        rstd[row] = scale;
    }
}
