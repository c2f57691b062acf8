// Quantised linear layer: y[r][o] = step[x_row + r] * sum over groups g, in order, of scale[o][g] * (integer sum of
// code * xq). Integer sums are exact; each group's sum is scaled once.
//
// Many rows: a workgroup computes 32 rows x 32 outputs, a thread 4 x 4 of them. A step takes one run of 128 weights:
// its codes are unpacked to signed bytes in workgroup memory, four products an instruction.
// Up to 8 rows (decoding): a workgroup computes 4 rows x 8 outputs and reads each code once; eight threads share the
// runs of an output, so groups are added up in another order.

//#import ternary_tile

struct Args { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> xq: array<u32>; // (at least x_row + rows, dim / 4), four int8 in a word
@group(0) @binding(2) var<storage, read> step: array<f32>; // (at least x_row + rows)
// (outs, ceil(dim / 128), 8), packed as by `ternary_quantize`
@group(0) @binding(3) var<storage, read> codes: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>; // (outs, dim / group)
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // (rows, outs)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    own = Rows(args.rows, 0u, args.x_row, 0u);
    if args.rows <= 8u {
        few_rows(wid.y * 4u, wid.x * 8u, lane);
        return;
    }
    tile(wid.y * 32u, wid.x * 32u, lane);
}
