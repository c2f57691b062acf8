// Products of up to four rows with a ternary matrix, from normalisation to sum; values are those of `rms_norm`, `quantize_rows`
// and `ternary_matmul`, bit for bit where the compiler rounds alike. A shader that imports this, and `reduce`, defines
//   ROOM: words of workgroup memory for the codes of four rows
//   input(row, c): element c of a row, gain(c): the normalisation's weight
//   code_at(which, i), scale_at(which, i): words of the codes and elements of the scales of a matrix

var<workgroup> xq: array<u32, ROOM>; // (4 rows, dim / 4), four int8 in a word
var<workgroup> steps: array<f32, 4>;
var<workgroup> partials: array<vec4<f32>, 64>; // (8 outputs, 8 threads), four rows each

fn code(value: f32) -> u32 {
    return u32(i32(clamp(round(value), -127.0, 127.0))) & 0xffu;
}

// Normalises `row` unless eps is negative, and quantises it as row `slot` of `xq`.
fn quantize(row: u32, slot: u32, dim: u32, eps: f32, lane: u32) {
    let normed = eps >= 0.0;
    var scale = 1.0;
    if normed {
        var sum = 0.0;
        for (var c = lane; c < dim; c += 64u) {
            let v = input(row, c);
            sum += v * v;
        }
        let total = reduce_sum(lane, sum);
        let inverse = 1.0 / sqrt(total / f32(dim) + eps);
        // By its bits, since compilers may assume that floats are finite.
        scale = bitcast<f32>(select(bitcast<u32>(inverse), 0x7fc00000u, bitcast<u32>(total) >= 0x7f800000u));
    }
    var most = 0.0;
    for (var c = lane; c < dim; c += 64u) {
        let size = abs(scaled(row, c, scale, normed));
        most = max(most, select(size, 0x1.fffffep+127f, bitcast<u32>(size) >= 0x7f800000u));
    }
    most = max(reduce_max(lane, most), 1e-8);
    let size = most / 127.0;
    let finite = most != 0x1.fffffep+127f;
    for (var word = lane; word < dim / 4u; word += 64u) {
        var codes = 0u;
        for (var i = 0u; i < 4u; i++) {
            codes |= code(scaled(row, word * 4u + i, scale, normed) / size) << (8u * i);
        }
        xq[slot * (dim / 4u) + word] = select(0x81818181u, codes, finite);
    }
    if lane == 0u {
        steps[slot] = bitcast<f32>(select(0x7fc00000u, bitcast<u32>(size), finite));
    }
}

fn scaled(row: u32, c: u32, scale: f32, normed: bool) -> f32 {
    if normed {
        return input(row, c) * scale * gain(c);
    }
    return input(row, c);
}

fn signed4(packed: vec4<u32>) -> vec4<u32> {
    return (((packed & vec4<u32>(0x03030303u)) | vec4<u32>(0x80808080u)) - vec4<u32>(0x01010101u)) ^ vec4<u32>(0x80808080u);
}

fn dot_row(at: u32, w: vec4<u32>) -> i32 {
    return dot4I8Packed(xq[at], w.x) + dot4I8Packed(xq[at + 1u], w.y) + dot4I8Packed(xq[at + 2u], w.z)
        + dot4I8Packed(xq[at + 3u], w.w);
}

// Four codes from word i on of a matrix.
fn codes_at(which: u32, i: u32) -> vec4<u32> {
    return vec4<u32>(code_at(which, i), code_at(which, i + 1u), code_at(which, i + 2u), code_at(which, i + 3u));
}

// The sums of this thread for `count` rows: eight threads share the runs of 128 of an output.
fn sum_runs(which: u32, out: u32, outs: u32, count: u32, dim: u32, group: u32, lane: u32) {
    let words = dim / 4u;
    let runs = (dim + 127u) / 128u;
    var all = vec4<f32>();
    if out < outs {
        for (var run = lane % 8u; run < runs; run += 8u) {
            let at = (out * runs + run) * 8u;
            let low = codes_at(which, at);
            let high = codes_at(which, at + 4u);
            var acc = vec4<f32>();
            for (var c = run * 128u; c < min(run * 128u + 128u, dim); c += 32u) {
                let shift = vec4<u32>(c % 128u / 16u);
                let w0 = signed4(low >> shift);
                let w1 = signed4(high >> shift);
                let x = c / 4u;
                var sum = vec4<i32>();
                sum.x = dot_row(x, w0) + dot_row(x + 4u, w1);
                if count > 1u { sum.y = dot_row(x + words, w0) + dot_row(x + words + 4u, w1); }
                if count > 2u { sum.z = dot_row(x + 2u * words, w0) + dot_row(x + 2u * words + 4u, w1); }
                if count > 3u { sum.w = dot_row(x + 3u * words, w0) + dot_row(x + 3u * words + 4u, w1); }
                acc += scale_at(which, out * (dim / group) + c / group) * vec4<f32>(sum);
            }
            all += acc;
        }
    }
    workgroupBarrier();
    partials[lane] = all;
    workgroupBarrier();
}

// Output lane / 8 of the eight, for row lane % 8 of the four.
fn product(lane: u32) -> f32 {
    var total = 0.0;
    for (var i = 0u; i < 8u; i++) {
        total += partials[lane / 8u * 8u + i][lane % 4u];
    }
    return total * steps[lane % 4u];
}
