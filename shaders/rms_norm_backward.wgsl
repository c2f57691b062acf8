// Gradients of `rms_norm`. With respect to x: with g = dy * w, dx = beta * dx + rstd * (g - x * rstd^2 * mean(g * x)). With
// respect to w: dw += sum over rows of dy * x * rstd. One workgroup for each 16 rows: dx row after row, then their sum of each
// column into `scratch`, while they are in the cache. The second pass adds up the sums of 16 columns, by 4 threads for each.
// With beta = 0, dx is not read.

//#import groups
//#import reduce

struct Args { rows: u32, dim: u32, beta: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (dim)
@group(0) @binding(3) var<storage, read> rstd: array<f32>; // (rows)
@group(0) @binding(4) var<storage, read> dy: array<f32>; // (rows, dim)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (rows, dim)
@group(0) @binding(6) var<storage, read_write> dw: array<f32>; // (dim)
@group(0) @binding(7) var<storage, read_write> scratch: array<f32>; // (ceil(rows / 16), dim)

fn group(block: u32, lane: u32) {
    let first = block * 16u;
    let end = min(first + 16u, args.rows);
    for (var row = first; row < end; row++) {
        let start = row * args.dim;
        var sum = 0.0;
        for (var c = lane; c < args.dim; c += 64u) {
            sum += dy[start + c] * w[c] * x[start + c];
        }
        let scale = rstd[row];
        let mean = reduce_sum(lane, sum) / f32(args.dim);
        let along = scale * scale * mean;
        for (var c = lane; c < args.dim; c += 64u) {
            let i = start + c;
            var value = scale * (dy[i] * w[c] - x[i] * along);
            if args.beta != 0.0 {
                value += args.beta * dx[i];
            }
            dx[i] = value;
        }
    }
    if first >= args.rows {
        return;
    }
    for (var c = lane; c < args.dim; c += 64u) {
        var sum = 0.0;
        for (var row = first; row < end; row++) {
            sum += dy[row * args.dim + c] * x[row * args.dim + c] * rstd[row];
        }
        scratch[block * args.dim + c] = sum;
    }
}

@compute @workgroup_size(64)
fn finish(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = wid.x * 16u + lane % 16u;
    let blocks = (args.rows + 15u) / 16u;
    var sum = 0.0;
    if c < args.dim {
        for (var block = lane / 16u; block < blocks; block += 4u) {
            sum += scratch[block * args.dim + c];
        }
    }
    lanes[lane] = sum;
    workgroupBarrier();
    if lane < 16u && c < args.dim {
        dw[c] += (lanes[lane] + lanes[lane + 16u]) + (lanes[lane + 32u] + lanes[lane + 48u]);
    }
}
