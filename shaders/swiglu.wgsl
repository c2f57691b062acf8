// Gated unit (Shazeer 2020): y = silu(gate) * up, silu(x) = x / (1 + exp(-x)).

//#import quads
//#import map

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gate: array<vec4<f32>>; // (n)
@group(0) @binding(2) var<storage, read> up: array<vec4<f32>>; // (n)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // (n)

fn value(i: u32) -> vec4<f32> {
    // Bounded, so that no intermediate value is infinite.
    return gate[i] / (1.0 + exp(min(-gate[i], vec4<f32>(80.0)))) * up[i];
}
