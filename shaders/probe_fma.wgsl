// y[i]: the sum of eight chains that start at (i + c) % 64, each after 16 * rounds times x = a * x + b. It measures how fast the
// device multiplies and adds.

//#import elements

struct Args { n: u32, rounds: u32, a: f32, b: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    let a = vec4(args.a);
    let b = vec4(args.b);
    var x = vec4<f32>((vec4(i) + vec4(0u, 1u, 2u, 3u)) % vec4(64u));
    var z = vec4<f32>((vec4(i) + vec4(4u, 5u, 6u, 7u)) % vec4(64u));
    for (var round = 0u; round < args.rounds; round++) {
        x = fma(x, a, b); z = fma(z, a, b); x = fma(x, a, b); z = fma(z, a, b);
        x = fma(x, a, b); z = fma(z, a, b); x = fma(x, a, b); z = fma(z, a, b);
        x = fma(x, a, b); z = fma(z, a, b); x = fma(x, a, b); z = fma(z, a, b);
        x = fma(x, a, b); z = fma(z, a, b); x = fma(x, a, b); z = fma(z, a, b);
        x = fma(x, a, b); z = fma(z, a, b); x = fma(x, a, b); z = fma(z, a, b);
        x = fma(x, a, b); z = fma(z, a, b); x = fma(x, a, b); z = fma(z, a, b);
        x = fma(x, a, b); z = fma(z, a, b); x = fma(x, a, b); z = fma(z, a, b);
        x = fma(x, a, b); z = fma(z, a, b); x = fma(x, a, b); z = fma(z, a, b);
    }
    let s = x + z;
    y[i] = s.x + s.y + s.z + s.w;
}
