// Gradients of `short_conv` over sequences of `seq` rows, with all columns: with z the sums before SiLU and dz = dy * silu'(z),
// dx[r][c] = sum over j of w[j][c] * dz[r + j][c] and dw[j][c] += sum over r of dz[r][c] * x[r - j][c]. The first pass makes dz,
// the second dx, the third the sums of 64 rows for dw, and the last adds these up.

struct Args { rows: u32, cols: u32, width: u32, seq: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, cols)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (width, cols)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(4) var<storage, read> dy: array<f32>; // (rows, cols)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (rows, cols)
@group(0) @binding(6) var<storage, read_write> dw: array<f32>; // (width, cols)
@group(0) @binding(7) var<storage, read_write> scratch: array<f32>; // (rows, cols) dz, then (ceil(rows / 64), width, cols)

// Whether row r reads the one j rows earlier.
fn reads(r: u32, j: u32) -> bool {
    return j <= r % args.seq && j <= positions[r];
}

fn number(wid: vec3<u32>, groups: vec3<u32>, lane: u32) -> u32 {
    return (wid.x + wid.y * groups.x) * 64u + lane;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number(wid, groups, lane);
    let r = i / args.cols;
    let c = i % args.cols;
    if r >= args.rows {
        return;
    }
    var z = 0.0;
    for (var j = 0u; j < args.width; j++) {
        if reads(r, j) {
            z += w[j * args.cols + c] * x[i - j * args.cols];
        }
    }
    // Bounded, so that no intermediate value is infinite.
    let s = 1.0 / (1.0 + exp(min(-z, 80.0)));
    scratch[i] = dy[i] * (s + z * s * (1.0 - s));
}

@compute @workgroup_size(64)
fn input(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number(wid, groups, lane);
    let r = i / args.cols;
    let c = i % args.cols;
    if r >= args.rows {
        return;
    }
    var sum = 0.0;
    for (var j = 0u; j < args.width && r % args.seq + j < args.seq; j++) {
        if reads(r + j, j) {
            sum += w[j * args.cols + c] * scratch[i + j * args.cols];
        }
    }
    dx[i] = sum;
}

@compute @workgroup_size(64)
fn weight(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number(wid, groups, lane);
    let block = i / (args.width * args.cols);
    let j = i / args.cols % args.width;
    let c = i % args.cols;
    if block * 64u >= args.rows {
        return;
    }
    var sum = 0.0;
    for (var r = block * 64u; r < min(block * 64u + 64u, args.rows); r++) {
        if reads(r, j) {
            sum += scratch[r * args.cols + c] * x[(r - j) * args.cols + c];
        }
    }
    scratch[args.rows * args.cols + i] = sum;
}

@compute @workgroup_size(64)
fn finish(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = number(wid, groups, lane);
    let all = args.width * args.cols;
    if i >= all {
        return;
    }
    var sum = 0.0;
    for (var block = 0u; block * 64u < args.rows; block++) {
        sum += scratch[args.rows * args.cols + block * all + i];
    }
    dw[i] += sum;
}
