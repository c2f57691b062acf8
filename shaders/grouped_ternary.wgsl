// Products of rows that are sorted by expert with the ternary matrix of each expert: `ternary_matmul` for the rows of each.
//
// Many rows: a workgroup computes 32 rows of one expert x 32 outputs. There are workgroups for as many tiles as there can be.
// Up to 8 rows (decoding): a workgroup computes 1 row x 8 outputs, and reads its expert's codes alone.

//#import ternary_tile
//#import experts

struct Args { rows: u32, experts: u32, outs: u32, dim: u32, group: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> xq: array<u32>; // (rows, dim / 4), four int8 in a word
@group(0) @binding(2) var<storage, read> step: array<f32>; // (rows)
@group(0) @binding(3) var<storage, read> starts: array<u32>; // (experts + 1)
// (experts, outs, ceil(dim / 128), 8), packed as by `ternary_quantize`
@group(0) @binding(4) var<storage, read> codes: array<u32>;
@group(0) @binding(5) var<storage, read> scales: array<f32>; // (experts, outs, dim / group)
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // (rows, outs)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let few = args.rows <= 8u;
    let at = find_tile(wid.y, select(32u, 1u, few), args.experts);
    if !at.exists {
        return;
    }
    own = Rows(at.end - at.first, at.first, at.first, at.expert * args.outs);
    if few {
        own.count = 1u;
        few_rows(0u, wid.x * 8u, lane);
        return;
    }
    tile(0u, wid.x * 32u, lane);
}
