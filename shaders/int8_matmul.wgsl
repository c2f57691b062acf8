// Quantised rows times an int8 matrix: y[r][o] = step[x_row + r] * sum over groups of 32 inputs of scale[o][g] * (integer
// sum of code * xq). Integer sums are exact.
//
// A workgroup computes 4 rows x 8 outputs and reads each code once; eight threads share the groups of an output, so groups are
// added up in another order than on the CPU.

struct Args { rows: u32, outs: u32, dim: u32, x_row: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> xq: array<u32>; // (at least x_row + rows, dim / 4), four int8 in a word
@group(0) @binding(2) var<storage, read> step: array<f32>; // (at least x_row + rows)
@group(0) @binding(3) var<storage, read> codes: array<u32>; // (outs, dim / 4), four int8 in a word
@group(0) @binding(4) var<storage, read> scales: array<f32>; // (outs, dim / 32)
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // (rows, outs)

var<workgroup> partials: array<vec4<f32>, 64>; // (8 outputs, 8 threads), four rows each

// One group of 32 inputs: words at `x` of xq times the words `w`.
fn dot_group(x: u32, w: array<u32, 8>) -> i32 {
    var sum = 0;
    for (var i = 0u; i < 8u; i++) {
        sum += dot4I8Packed(xq[x + i], w[i]);
    }
    return sum;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wid.y * 4u;
    let count = min(args.rows - row, 4u);
    let out = wid.x * 8u + lane / 8u;
    let groups = args.dim / 32u;
    let words = args.dim / 4u;
    var acc = vec4<f32>();
    if out < args.outs {
        for (var g = lane % 8u; g < groups; g += 8u) {
            var w: array<u32, 8>;
            for (var i = 0u; i < 8u; i++) {
                w[i] = codes[out * words + g * 8u + i];
            }
            let x = (args.x_row + row) * words + g * 8u;
            var sum = vec4<i32>();
            sum.x = dot_group(x, w);
            if count > 1u { sum.y = dot_group(x + words, w); }
            if count > 2u { sum.z = dot_group(x + 2u * words, w); }
            if count > 3u { sum.w = dot_group(x + 3u * words, w); }
            acc += scales[out * groups + g] * vec4<f32>(sum);
        }
    }
    partials[lane] = acc;
    workgroupBarrier();
    let r = lane % 8u;
    if r < count && out < args.outs {
        var total = 0.0;
        for (var i = 0u; i < 8u; i++) {
            total += partials[lane / 8u * 8u + i][r];
        }
        y[(row + r) * args.outs + out] = step[args.x_row + row + r] * total;
    }
}
