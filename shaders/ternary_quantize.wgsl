// Weights to ternary codes, one scale for each group of `group` consecutive inputs of a row (BitNet b1.58, arXiv
// 2402.17764): scale = f16(mean|w|), at least 2^-14; code = +1 if w > scale/2, -1 if w < -scale/2, else 0, packed as in
// GGUF's TQ2_0. With `stage` 1 the sums of |w| take the place of scales and no codes are made; with 2 the scales are given.
//
// Scales are bit-equal everywhere: the sum of a group, padded with zeros to a power of two, adds halves, every level
// through workgroup memory so that no compiler reorders it; 1 / group and the rounding to f16, to nearest even, are
// integer arithmetic. `group` is a multiple of 32, at most 1024. One workgroup for each row: first all scales, then all
// codes. A group whose mean is not finite has the scale NaN and codes of 0; by the bits of the mean, since compilers may
// assume that floats are finite.

//#import groups

struct Args { rows: u32, dim: u32, group: u32, stage: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> w: array<f32>; // (rows, dim)
// (rows, ceil(dim / 128), 8): byte m of a run of 128 weights holds the codes + 1 of weights m, m+32, m+64, m+96
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<f32>; // (rows, dim / group)

var<workgroup> sums: array<f32, 1024>; // (groups at once, group padded to a power of two)

// 1 / group, correctly rounded: the exponent first, then 24 bits of 1 / (group / 32).
fn reciprocal(group: u32) -> f32 {
    let units = group / 32u;
    let shift = 32u - countLeadingZeros(units - 1u);
    let mantissa = ((1u << (24u + shift)) / units + 1u) / 2u;
    return bitcast<f32>(((122u - shift) << 23u) + (mantissa - (1u << 23u)));
}

// Nearest f16 value, of a value that is at least 2^-14.
fn round_to_f16(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    let rounded = (bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u;
    return bitcast<f32>(select(rounded, 0x7f800000u, rounded >= 0x47800000u));
}

// The scales of the groups from `first` of a row, as many at once as fit `sums`.
fn make_scales(row: u32, first: u32, at_once: u32, padded: u32, lane: u32) {
    let groups = args.dim / args.group;
    for (var i = lane; i < at_once * padded; i += 64u) {
        let group = first + i / padded;
        var value = 0.0;
        if group < groups && i % padded < args.group {
            value = abs(w[row * args.dim + group * args.group + i % padded]);
        }
        sums[i] = value;
    }
    workgroupBarrier();
    for (var half = padded / 2u; half > 0u; half /= 2u) {
        for (var i = lane; i < at_once * half; i += 64u) {
            let at = i / half * padded + i % half;
            sums[at] += sums[at + half];
        }
        workgroupBarrier();
    }
    if lane < at_once && first + lane < groups {
        let sum = sums[lane * padded];
        let mean = sum * reciprocal(args.group);
        let rounded = bitcast<u32>(round_to_f16(max(mean, 0x1p-14f)));
        let finite = (bitcast<u32>(mean) & 0x7f800000u) != 0x7f800000u;
        let scale = bitcast<f32>(select(0x7fc00000u, rounded, finite));
        scales[row * groups + first + lane] = select(scale, sum, args.stage == 1u);
    }
    workgroupBarrier();
}

// Word `word` of a row's codes: for each quarter of its run four weights, which have one scale.
fn make_codes(row: u32, word: u32) -> u32 {
    var packed = 0u;
    for (var quarter = 0u; quarter < 4u; quarter++) {
        let first = word / 8u * 128u + quarter * 32u + word % 8u * 4u;
        // Beyond the end of the row every weight is zero, which is code 1.
        var four = 0x01010101u;
        if first < args.dim {
            let scale = scales[row * (args.dim / args.group) + first / args.group];
            let half = 0.5 * scale;
            let finite = bitcast<u32>(scale) != 0x7fc00000u;
            four = 0u;
            for (var i = 0u; i < 4u; i++) {
                let value = w[row * args.dim + first + i];
                let code = select(select(1u, 0u, value < -half), 2u, value > half);
                four |= select(1u, code, finite) << (8u * i);
            }
        }
        packed |= four << (2u * quarter);
    }
    return packed;
}

fn group(row: u32, lane: u32) {
    if row >= args.rows {
        return;
    }
    if args.stage != 2u {
        let padded = 1u << (32u - countLeadingZeros(args.group - 1u));
        let at_once = 1024u / padded;
        for (var first = 0u; first < args.dim / args.group; first += at_once) {
            make_scales(row, first, at_once, padded, lane);
        }
        storageBarrier();
    }
    if args.stage == 1u {
        return;
    }
    let words = (args.dim + 127u) / 128u * 8u;
    for (var word = lane; word < words; word += 64u) {
        codes[row * words + word] = make_codes(row, word);
    }
}
