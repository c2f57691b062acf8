// partial[offset + b] = sum of scale x^2 over block b of 4096 elements, one workgroup for each block. With rows > 1, x
// is `rows` equal pieces of n elements, each with its own ceil(n / 4096) blocks. With scale 1, the first stage of a norm;
// with scale 0 it is 0, or NaN if an element is not finite.

//#import groups
//#import reduce

struct Args { n: u32, rows: u32, offset: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, n)
@group(0) @binding(2) var<storage, read_write> partial: array<f32>; // (at least offset + rows * ceil(n / 4096))

fn group(block: u32, lane: u32) {
    let blocks = (args.n + 4095u) / 4096u;
    if block >= args.rows * blocks {
        return;
    }
    let piece = block / blocks * args.n;
    let first = block % blocks * 4096u;
    var sum = 0.0;
    for (var i = first + lane; i < min(first + 4096u, args.n); i += 64u) {
        let v = x[piece + i];
        sum += args.scale * v * v;
    }
    let total = reduce_sum(lane, sum);
    if lane == 0u {
        partial[args.offset + block] = total;
    }
}
