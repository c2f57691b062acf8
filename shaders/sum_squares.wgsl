// partial[offset + r * step + b] = sum of scale x^2 over block b of 4096 elements of piece r: n elements of x from
// start + r * stride. One workgroup for each block. With scale 1, the first stage of a norm; with scale 0 it is 0, or NaN if an
// element is not finite.

//#import groups
//#import reduce

struct Args { n: u32, rows: u32, start: u32, stride: u32, offset: u32, step: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (at least start + (rows - 1) * stride + n)
@group(0) @binding(2) var<storage, read_write> partial: array<f32>; // (at least offset + (rows - 1) * step + ceil(n / 4096))

fn group(block: u32, lane: u32) {
    let blocks = (args.n + 4095u) / 4096u;
    if block >= args.rows * blocks {
        return;
    }
    let row = block / blocks;
    let piece = args.start + row * args.stride;
    let first = block % blocks * 4096u;
    var sum = 0.0;
    for (var i = first + lane; i < min(first + 4096u, args.n); i += 64u) {
        let v = x[piece + i];
        sum += args.scale * v * v;
    }
    let total = reduce_sum(lane, sum);
    if lane == 0u {
        partial[args.offset + row * args.step + block % blocks] = total;
    }
}
