// Gradient of `swiglu`: dup = dy * silu(gate), dgate = dy * up * silu'(gate), silu'(x) = s + x s (1 - s) with s =
// sigmoid(x).

//#import elements

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gate: array<f32>; // (n)
@group(0) @binding(2) var<storage, read> up: array<f32>; // (n)
@group(0) @binding(3) var<storage, read> dy: array<f32>; // (n)
@group(0) @binding(4) var<storage, read_write> dgate: array<f32>; // (n)
@group(0) @binding(5) var<storage, read_write> dup: array<f32>; // (n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    // Bounded, so that no intermediate value is infinite.
    let s = 1.0 / (1.0 + exp(min(-gate[i], 80.0)));
    dup[i] = dy[i] * gate[i] * s;
    dgate[i] = dy[i] * up[i] * (s + gate[i] * s * (1.0 - s));
}
