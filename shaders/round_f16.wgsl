// y = x rounded to f16, half to even, and widened again; clamped to +-65504, the largest f16. By integers: WGSL leaves
// the rounding of a conversion to f16 open.

//#import quads
//#import map

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>; // (n)

fn value(i: u32) -> vec4<f32> {
    let value = x[i];
    let bits = bitcast<vec4<u32>>(value);
    let odd = (bits >> vec4<u32>(13u)) & vec4<u32>(1u);
    let normal = bitcast<vec4<f32>>((bits + 0xfffu + odd) & vec4<u32>(0xffffe000u));
    // Below 2^-14 an f16 is a multiple of 2^-24.
    let small = round(value * 0x1p24f) * 0x1p-24f;
    let rounded = select(normal, small, abs(value) < vec4<f32>(0x1p-14f));
    return clamp(rounded, vec4<f32>(-65504.0), vec4<f32>(65504.0));
}
