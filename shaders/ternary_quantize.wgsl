// Weights to ternary codes, one scale for each group of `group` consecutive inputs of a row (BitNet b1.58, arXiv
// 2402.17764): scale = f16(mean|w|), at least 2^-14; code = +1 if w > scale/2, -1 if w < -scale/2, else 0, packed as in
// GGUF's TQ2_0.
//
// Scales are bit-equal everywhere: the sum adds halves, every level through workgroup memory so that no compiler
// reorders it; `group` is a power of two from 32 to 1024, so the mean is exact; and f16 rounding, to nearest even, is
// integer arithmetic. One workgroup for each row takes chunks of 1024 weights: whole groups, and one word of codes for
// each thread.

struct Args { rows: u32, dim: u32, group: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> w: array<f32>; // (rows, dim)
// (rows, ceil(dim / 128), 8): byte m of a run holds the codes + 1 of weights m, m+32, m+64, m+96
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<f32>; // (rows, dim / group)

const CHUNK: u32 = 1024u;
var<workgroup> sums: array<f32, 1024>;
var<workgroup> chunk_scales: array<f32, 32>;

// Nearest f16 value, of a value that is at least 2^-14.
fn round_to_f16(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    let rounded = (bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u;
    return bitcast<f32>(select(rounded, 0x7f800000u, rounded >= 0x47800000u));
}

// The code + 1 of the weight in column c of a row that starts at `start`; 1 behind the row's end.
fn code(start: u32, c: u32) -> u32 {
    if c >= args.dim {
        return 1u;
    }
    let value = w[start + c];
    let half = 0.5 * chunk_scales[(c % CHUNK) / args.group];
    return select(select(1u, 0u, value < -half), 2u, value > half);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = wid.x + wid.y * groups.x;
    if row >= args.rows {
        return;
    }
    let start = row * args.dim;
    let words = (args.dim + 127u) / 128u * 8u;
    // 1 / group, exactly.
    let fraction = bitcast<f32>((127u - countTrailingZeros(args.group)) << 23u);
    for (var base = 0u; base < args.dim; base += CHUNK) {
        for (var i = lane; i < CHUNK; i += 64u) {
            var value = 0.0;
            if base + i < args.dim {
                value = abs(w[start + base + i]);
            }
            sums[i] = value;
        }
        workgroupBarrier();
        let chunk_groups = CHUNK / args.group;
        for (var half = args.group / 2u; half > 0u; half /= 2u) {
            for (var i = lane; i < chunk_groups * half; i += 64u) {
                let at = i / half * args.group + i % half;
                sums[at] += sums[at + half];
            }
            workgroupBarrier();
        }
        let group = base / args.group + lane;
        if lane < chunk_groups && group < args.dim / args.group {
            let scale = round_to_f16(max(sums[lane * args.group] * fraction, 0x1p-14f));
            chunk_scales[lane] = scale;
            scales[row * (args.dim / args.group) + group] = scale;
        }
        workgroupBarrier();
        let word = base / 16u + lane;
        if word < words {
            let first = base + lane / 8u * 128u + lane % 8u * 4u;
            var packed = 0u;
            for (var i = 0u; i < 16u; i++) {
                packed |= code(start, first + i / 4u + i % 4u * 32u) << (i / 4u * 8u + i % 4u * 2u);
            }
            codes[row * words + word] = packed;
        }
        workgroupBarrier();
    }
}
