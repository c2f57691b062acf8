// y = a + b.

//#import quads
//#import map

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>; // (n)
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>; // (n)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // (n)

fn value(i: u32) -> vec4<f32> {
    return a[i] + b[i];
}
