// Gradient of `swiglu`: dup = dy * silu(gate), dgate = dy * up * silu'(gate), silu'(x) = s + x s (1 - s) with s =
// sigmoid(x). With `squared` silu(x) is relu(x)^2, and silu'(x) is 2 relu(x).

//#import quads

struct Args { n: u32, squared: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gate: array<vec4<f32>>; // (n)
@group(0) @binding(2) var<storage, read> up: array<vec4<f32>>; // (n)
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>; // (n)
@group(0) @binding(4) var<storage, read_write> dgate: array<vec4<f32>>; // (n)
@group(0) @binding(5) var<storage, read_write> dup: array<vec4<f32>>; // (n)

fn quad(i: u32) {
    if 4u * i >= args.n {
        return;
    }
    // Bounded, so that no intermediate value is infinite.
    let s = 1.0 / (1.0 + exp(min(-gate[i], vec4<f32>(80.0))));
    var to_up = dy[i] * gate[i] * s;
    var to_gate = dy[i] * up[i] * (s + gate[i] * s * (1.0 - s));
    if args.squared != 0u {
        let positive = select(gate[i], vec4<f32>(), gate[i] <= vec4<f32>());
        to_up = dy[i] * (positive * positive);
        to_gate = dy[i] * up[i] * (2.0 * positive);
    }
    if 4u * i + 4u <= args.n {
        dup[i] = to_up;
        dgate[i] = to_gate;
    } else {
        dup[i] = select(dup[i], to_up, inside(i, args.n));
        dgate[i] = select(dgate[i], to_gate, inside(i, args.n));
    }
}
