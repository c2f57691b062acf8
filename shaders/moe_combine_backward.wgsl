// Gradient of `moe_combine`, one workgroup for each assignment a of row r = a / k: dx[place[a]] = weights[a] * dy[r] and
// dweights[a] = x[place[a]] . dy[r]. `place` has each place once.

//#import groups
//#import reduce

struct Args { n: u32, dim: u32, k: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n, dim)
@group(0) @binding(2) var<storage, read> place: array<u32>; // (n)
@group(0) @binding(3) var<storage, read> weights: array<f32>; // (n)
@group(0) @binding(4) var<storage, read> dy: array<f32>; // (n / k, dim)
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // (n, dim)
@group(0) @binding(6) var<storage, read_write> dweights: array<f32>; // (n)

fn group(a: u32, lane: u32) {
    if a >= args.n {
        return;
    }
    let from_row = a / args.k * args.dim;
    let to_row = place[a] * args.dim;
    var sum = 0.0;
    for (var c = lane; c < args.dim; c += 64u) {
        let d = dy[from_row + c];
        sum += x[to_row + c] * d;
        dx[to_row + c] = weights[a] * d;
    }
    let total = reduce_sum(lane, sum);
    if lane == 0u {
        dweights[a] = total;
    }
}
