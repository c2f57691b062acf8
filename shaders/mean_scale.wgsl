// The one scale of a ternary matrix (BitNet b1.58, arXiv 2402.17764), from the sums of |w| of its groups: the mean, at least 1e-5,
// in each of the `n` places of `scales`. `inverse` is 1 / the number of weights.
//
// The scale is bit-equal everywhere: runs of 1,024 sums, padded with zeros, add halves, and the runs add one by one, all through
// workgroup memory so that no compiler reorders it. A mean that is not finite gives NaN; by its bits, since compilers may assume
// that floats are finite. One workgroup.

//#import groups

struct Args { n: u32, inverse: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> sums: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> scales: array<f32>; // (n)

var<workgroup> run: array<f32, 1024>;
var<workgroup> total: f32;

fn group(number: u32, lane: u32) {
    if number > 0u {
        return;
    }
    if lane == 0u {
        total = 0.0;
    }
    for (var first = 0u; first < args.n; first += 1024u) {
        for (var i = lane; i < 1024u; i += 64u) {
            var sum = 0.0;
            if first + i < args.n {
                sum = sums[first + i];
            }
            run[i] = sum;
        }
        workgroupBarrier();
        for (var half = 512u; half > 0u; half /= 2u) {
            for (var i = lane; i < half; i += 64u) {
                run[i] += run[i + half];
            }
            workgroupBarrier();
        }
        if lane == 0u {
            total += run[0];
        }
        workgroupBarrier();
    }
    let mean = total * args.inverse;
    let finite = (bitcast<u32>(mean) & 0x7f800000u) != 0x7f800000u;
    let scale = bitcast<f32>(select(0x7fc00000u, bitcast<u32>(max(mean, 1e-5)), finite));
    for (var i = lane; i < args.n; i += 64u) {
        scales[i] = scale;
    }
}
