// partial[offset + b] = 0, or NaN if one of block b of 4096 bf16 values of x is not finite. One workgroup for each block.

//#import groups
//#import reduce

struct Args { n: u32, offset: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<u32>; // (n), two bf16 in a word
@group(0) @binding(2) var<storage, read_write> partial: array<f32>; // (at least offset + ceil(n / 4096))

fn wrong(bits: u32) -> f32 {
    return select(0.0, 1.0, (bits & 0x7f80u) == 0x7f80u);
}

fn group(block: u32, lane: u32) {
    if block * 4096u >= args.n {
        return;
    }
    var count = 0.0;
    let end = min(block * 4096u + 4096u, args.n);
    for (var i = block * 4096u + 2u * lane; i < end; i += 128u) {
        let word = x[i / 2u];
        count += wrong(word);
        if i + 1u < end {
            count += wrong(word >> 16u);
        }
    }
    let all = reduce_sum(lane, count);
    if lane == 0u {
        partial[args.offset + block] = bitcast<f32>(select(0u, 0x7fc00000u, all > 0.0));
    }
}
