// Token embedding from an int8 table with a scale for every 32 values: y[r] = scale * table[ids[r]]; an id that the table has
// not gives zeros.

struct Args { rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> ids: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> codes: array<u32>; // (vocab, dim / 4), four int8 in a word
@group(0) @binding(3) var<storage, read> scales: array<f32>; // (vocab, dim / 32)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (rows, dim)

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (wid.x + wid.y * groups.x) * 64u + lane;
    if i >= args.rows * args.dim {
        return;
    }
    let at = ids[i / args.dim] * args.dim + i % args.dim;
    var value = 0.0;
    if at / 32u < arrayLength(&scales) {
        let code = extractBits(bitcast<i32>(codes[at / 4u]), at % 4u * 8u, 8u);
        value = scales[at / 32u] * f32(code);
    }
    y[i] = value;
}
