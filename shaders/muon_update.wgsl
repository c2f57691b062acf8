// Muon, last step: w = w (1 - lr wd) - lr * shape * x with lr = args.lr * step[0] and shape = sqrt(max(1, rows / cols)), for
// each of `batch` matrices (rows, cols): matrix i begins at element start + i * stride of w. The orthogonalised directions
// lie one behind the other from x[offset], stored transposed when `transposed`. Nothing moves when ctl[1] is set.
//
// One workgroup for each 32 x 32 tile, four rows of one column to a thread. A tile is transposed in workgroup memory, so that
// neighbouring threads read neighbours.

struct Args {
    rows: u32, cols: u32, batch: u32, start: u32, stride: u32, offset: u32, transposed: u32,
    lr: f32, shape: f32, weight_decay: f32
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (batch, rows, cols) or (batch, cols, rows) from offset
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (4): learning-rate factor, ...
@group(0) @binding(4) var<storage, read_write> w: array<f32>; // (batch) of (rows, cols) from start, stride apart

var<workgroup> tile: array<f32, 1056>; // (32 rows, 32 columns), a row padded by one: a column lies in different banks

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if ctl[1] != 0.0 {
        return;
    }
    let start = args.start + wid.z * args.stride;
    let offset = args.offset + wid.z * args.rows * args.cols;
    let across = lane % 32u;
    let down = lane / 32u;
    if args.transposed != 0u {
        let row = wid.y * 32u + across;
        for (var i = 0u; i < 4u; i++) {
            let col = wid.x * 32u + down + i * 8u;
            if row < args.rows && col < args.cols {
                tile[across * 33u + down + i * 8u] = x[offset + col * args.rows + row];
            }
        }
    }
    workgroupBarrier();
    let row = wid.y * 32u + down;
    let col = wid.x * 32u + across;
    // All loads come before the stores: they are under way together.
    var direction = vec4<f32>();
    var weight = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if row + i * 8u < args.rows && col < args.cols {
            let at = (row + i * 8u) * args.cols + col;
            weight[i] = w[start + at];
            if args.transposed != 0u {
                direction[i] = tile[(down + i * 8u) * 33u + across];
            } else {
                direction[i] = x[offset + at];
            }
        }
    }
    let lr = args.lr * step[0];
    weight = weight * (1.0 - lr * args.weight_decay) - lr * args.shape * direction;
    for (var i = 0u; i < 4u; i++) {
        if row + i * 8u < args.rows && col < args.cols {
            w[start + (row + i * 8u) * args.cols + col] = weight[i];
        }
    }
}
