// Muon: each of `batch` matrices of n elements is divided by its Frobenius norm + 1e-7; `partial` holds ceil(n / 4096)
// sums of squares for each matrix, from `sum_squares`. One workgroup for each block of 4096 elements.

//#import groups
//#import reduce

struct Args { n: u32, batch: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> partial: array<f32>; // (batch, ceil(n / 4096))
@group(0) @binding(2) var<storage, read_write> x: array<f32>; // (batch, n)

fn group(block: u32, lane: u32) {
    let blocks = (args.n + 4095u) / 4096u;
    if block >= args.batch * blocks {
        return;
    }
    let matrix = block / blocks;
    var sum = 0.0;
    for (var i = lane; i < blocks; i += 64u) {
        sum += partial[matrix * blocks + i];
    }
    let norm = sqrt(reduce_sum(lane, sum)) + 1e-7;
    let first = block % blocks * 4096u;
    for (var i = first + lane; i < min(first + 4096u, args.n); i += 64u) {
        x[matrix * args.n + i] /= norm;
    }
}
