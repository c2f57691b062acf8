// y = x rounded to f16, half to even, and widened again; clamped to +-65504, the largest f16. By integers: WGSL leaves
// the rounding of a conversion to f16 open.

//#import elements

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    let value = x[i];
    let bits = bitcast<u32>(value);
    let normal = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
    // Below 2^-14 an f16 is a multiple of 2^-24.
    let small = round(value * 0x1p24f) * 0x1p-24f;
    let rounded = select(normal, small, abs(value) < 0x1p-14f);
    y[i] = clamp(rounded, -65504.0, 65504.0);
}
