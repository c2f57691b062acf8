// Muon (Jordan et al. 2024), first step: m = beta m + (1-beta) g and the Nesterov direction (1-beta) g + beta m into
// x[offset..], with g = gradient * ctl[0], for each of `batch` matrices (rows, cols): matrix i begins at element
// start + i * stride of g and m. In x they lie one behind the other, stored transposed when `transposed`. m stays when ctl[1]
// is set.
//
// One workgroup for each 32 x 32 tile, four rows of one column to a thread. A tile is transposed in workgroup memory, so that
// neighbouring threads write neighbours.

struct Args {
    rows: u32, cols: u32, batch: u32, start: u32, stride: u32, offset: u32, transposed: u32, beta: f32
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<f32>; // (batch) of (rows, cols) from start, stride apart
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read_write> m: array<f32>; // (batch) of (rows, cols) from start, stride apart
@group(0) @binding(4) var<storage, read_write> x: array<f32>; // (batch, rows, cols) or (batch, cols, rows) from offset

var<workgroup> tile: array<f32, 1056>; // (32 rows, 32 columns), a row padded by one: a column lies in different banks

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = args.start + wid.z * args.stride;
    let offset = args.offset + wid.z * args.rows * args.cols;
    let across = lane % 32u;
    let down = lane / 32u;
    let row = wid.y * 32u + down;
    let col = wid.x * 32u + across;
    // All loads come before the stores: they are under way together.
    var grad = vec4<f32>();
    var old = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if row + i * 8u < args.rows && col < args.cols {
            let at = start + (row + i * 8u) * args.cols + col;
            grad[i] = g[at] * ctl[0];
            old[i] = m[at];
        }
    }
    let moved = args.beta * old + (1.0 - args.beta) * grad;
    let direction = (1.0 - args.beta) * grad + args.beta * moved;
    for (var i = 0u; i < 4u; i++) {
        if row + i * 8u < args.rows && col < args.cols {
            let at = (row + i * 8u) * args.cols + col;
            if ctl[1] == 0.0 {
                m[start + at] = moved[i];
            }
            if args.transposed == 0u {
                x[offset + at] = direction[i];
            }
        }
        tile[(down + i * 8u) * 33u + across] = direction[i];
    }
    if args.transposed == 0u {
        return;
    }
    workgroupBarrier();
    let to_row = wid.y * 32u + across;
    for (var i = 0u; i < 4u; i++) {
        let to_col = wid.x * 32u + down + i * 8u;
        if to_row < args.rows && to_col < args.cols {
            x[offset + to_col * args.rows + to_row] = tile[across * 33u + down + i * 8u];
        }
    }
}
