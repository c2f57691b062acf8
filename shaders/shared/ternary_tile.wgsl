// Products of int8 rows with a ternary matrix, in tiles of rows and outputs: see `ternary_matmul`. The op that imports this has
// xq, step, codes, scales, y, args.dim, args.group and args.outs, and sets `own`.

// The rows of a product: so many, from this one of `y` and this one of `xq` on, with the matrix that begins at this row of `codes`.
struct Rows { count: u32, y: u32, x: u32, w: u32 }

var<private> own: Rows;

// (32 rows or outputs, 32 words of four int8 as 8 vec4), a row padded by one vec4 to spread the memory banks
var<workgroup> x_tile: array<vec4<u32>, 288>;
var<workgroup> w_tile: array<vec4<u32>, 288>;

// Four codes + 1, one in the low bits of each byte, as signed bytes -1, 0, 1.
fn signed(packed: u32) -> u32 {
    return (((packed & 0x03030303u) | 0x80808080u) - 0x01010101u) ^ 0x80808080u;
}

// Words 4 i..4 i + 4 of the activations of tile row `r` in the run of 128 at `base`; zero outside.
fn load_x(row: u32, base: u32, i: u32) -> vec4<u32> {
    let c = base + i * 16u;
    if row >= own.count || c >= args.dim {
        return vec4<u32>();
    }
    let at = ((own.x + row) * args.dim + c) / 4u;
    return vec4<u32>(xq[at], xq[at + 1u], xq[at + 2u], xq[at + 3u]);
}

// Stores the run of 128 at `base` of output `out` unpacked: word j of the run holds weights 4j..4j + 4 of each quarter.
fn unpack(slot: u32, out: u32, base: u32, half: u32) {
    var word = vec4<u32>(0x55555555u);
    if out < args.outs {
        let at = ((own.w + out) * ((args.dim + 127u) / 128u) + base / 128u) * 8u + half * 4u;
        word = vec4<u32>(codes[at], codes[at + 1u], codes[at + 2u], codes[at + 3u]);
    }
    for (var quarter = 0u; quarter < 4u; quarter++) {
        let shifted = word >> vec4<u32>(quarter * 2u);
        let at = slot * 9u + quarter * 2u + half;
        w_tile[at] = vec4<u32>(signed(shifted.x), signed(shifted.y), signed(shifted.z), signed(shifted.w));
    }
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

// Scales of outputs out, out + 8, out + 16, out + 24 for one of `groups`.
fn load_scales(out: u32, groups: u32, group: u32) -> vec4<f32> {
    let o = own.w + min(vec4<u32>(out, out + 8u, out + 16u, out + 24u), vec4<u32>(args.outs - 1u));
    let at = o * groups + group;
    return vec4<f32>(scales[at.x], scales[at.y], scales[at.z], scales[at.w]);
}

fn store_row(row: u32, out: u32, value: vec4<f32>) {
    if row >= own.count {
        return;
    }
    let scaled = value * step[own.x + row];
    let at = (own.y + row) * args.outs;
    if out < args.outs { y[at + out] = scaled.x; }
    if out + 8u < args.outs { y[at + out + 8u] = scaled.y; }
    if out + 16u < args.outs { y[at + out + 16u] = scaled.z; }
    if out + 24u < args.outs { y[at + out + 24u] = scaled.w; }
}

var<workgroup> partials: array<vec4<f32>, 64>; // (8 outputs, 8 threads), four rows each

// Sixteen activations at word `at` of xq times sixteen codes.
fn dot_row(at: u32, weights: vec4<u32>) -> i32 {
    return dot16(vec4<u32>(xq[at], xq[at + 1u], xq[at + 2u], xq[at + 3u]), weights);
}

fn signed4(packed: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(signed(packed.x), signed(packed.y), signed(packed.z), signed(packed.w));
}

// The run of 128 of output `out` for `count` rows from `row`.
fn dot_run(row: u32, count: u32, out: u32, run: u32) -> vec4<f32> {
    let at = ((own.w + out) * ((args.dim + 127u) / 128u) + run) * 8u;
    let low = vec4<u32>(codes[at], codes[at + 1u], codes[at + 2u], codes[at + 3u]);
    let high = vec4<u32>(codes[at + 4u], codes[at + 5u], codes[at + 6u], codes[at + 7u]);
    let words = args.dim / 4u;
    var acc = vec4<f32>();
    for (var c = run * 128u; c < min(run * 128u + 128u, args.dim); c += 32u) {
        let shift = vec4<u32>(c % 128u / 16u);
        let w0 = signed4(low >> shift);
        let w1 = signed4(high >> shift);
        let x = (own.x + row) * words + c / 4u;
        var sum = vec4<i32>();
        sum.x = dot_row(x, w0) + dot_row(x + 4u, w1);
        if count > 1u { sum.y = dot_row(x + words, w0) + dot_row(x + words + 4u, w1); }
        if count > 2u { sum.z = dot_row(x + 2u * words, w0) + dot_row(x + 2u * words + 4u, w1); }
        if count > 3u { sum.w = dot_row(x + 3u * words, w0) + dot_row(x + 3u * words + 4u, w1); }
        acc += scales[(own.w + out) * (args.dim / args.group) + c / args.group] * vec4<f32>(sum);
    }
    return acc;
}

// Up to four rows from `row` on, and eight outputs from `out0` on.
fn few_rows(row: u32, out0: u32, lane: u32) {
    let count = min(own.count - row, 4u);
    let out = out0 + lane / 8u;
    var acc = vec4<f32>();
    if out < args.outs {
        for (var run = lane % 8u; run < (args.dim + 127u) / 128u; run += 8u) {
            acc += dot_run(row, count, out, run);
        }
    }
    partials[lane] = acc;
    workgroupBarrier();
    if lane % 8u < count && out < args.outs {
        var total = 0.0;
        for (var i = 0u; i < 8u; i++) {
            total += partials[lane / 8u * 8u + i][lane % 8u];
        }
        let r = row + lane % 8u;
        y[(own.y + r) * args.outs + out] = total * step[own.x + r];
    }
}

// 32 rows from `row0` on, and 32 outputs from `out0` on.
fn tile(row0: u32, out0: u32, lane: u32) {
    // This thread's rows are row0 + ty + (0, 8, 16, 24), its outputs out0 + tx + (0, 8, 16, 24).
    let tx = lane % 8u;
    let ty = lane / 8u;
    var acc0 = vec4<f32>();
    var acc1 = vec4<f32>();
    var acc2 = vec4<f32>();
    var acc3 = vec4<f32>();
    var sum0 = vec4<i32>();
    var sum1 = vec4<i32>();
    var sum2 = vec4<i32>();
    var sum3 = vec4<i32>();
    let groups = args.dim / args.group;
    var group = 0u;
    // Inputs of the group that are still to come.
    var rest = args.group;
    for (var base = 0u; base < args.dim; base += 128u) {
        for (var e = lane; e < 256u; e += 64u) {
            x_tile[e / 8u * 9u + e % 8u] = load_x(row0 + e / 8u, base, e % 8u);
        }
        unpack(lane / 2u, out0 + lane / 2u, base, lane % 2u);
        workgroupBarrier();
        for (var i = 0u; i < 8u; i++) {
            let x0 = x_tile[ty * 9u + i];
            let x1 = x_tile[(ty + 8u) * 9u + i];
            let x2 = x_tile[(ty + 16u) * 9u + i];
            let x3 = x_tile[(ty + 24u) * 9u + i];
            let w0 = w_tile[tx * 9u + i];
            let w1 = w_tile[(tx + 8u) * 9u + i];
            let w2 = w_tile[(tx + 16u) * 9u + i];
            let w3 = w_tile[(tx + 24u) * 9u + i];
            sum0 += vec4<i32>(dot16(x0, w0), dot16(x0, w1), dot16(x0, w2), dot16(x0, w3));
            sum1 += vec4<i32>(dot16(x1, w0), dot16(x1, w1), dot16(x1, w2), dot16(x1, w3));
            sum2 += vec4<i32>(dot16(x2, w0), dot16(x2, w1), dot16(x2, w2), dot16(x2, w3));
            sum3 += vec4<i32>(dot16(x3, w0), dot16(x3, w1), dot16(x3, w2), dot16(x3, w3));
            rest -= 16u;
            if rest == 0u && group < groups {
                let scale = load_scales(out0 + tx, groups, group);
                group += 1u;
                rest = args.group;
                acc0 += scale * vec4<f32>(sum0);
                acc1 += scale * vec4<f32>(sum1);
                acc2 += scale * vec4<f32>(sum2);
                acc3 += scale * vec4<f32>(sum3);
                sum0 = vec4<i32>();
                sum1 = vec4<i32>();
                sum2 = vec4<i32>();
                sum3 = vec4<i32>();
            }
        }
        workgroupBarrier();
    }
    store_row(row0 + ty, out0 + tx, acc0);
    store_row(row0 + ty + 8u, out0 + tx, acc1);
    store_row(row0 + ty + 16u, out0 + tx, acc2);
    store_row(row0 + ty + 24u, out0 + tx, acc3);
}
