// y = value.

//#import quads
//#import map

struct Args { n: u32, value: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>; // (n)

fn value(i: u32) -> vec4<f32> {
    return vec4<f32>(args.value);
}
