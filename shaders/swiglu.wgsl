// Gated unit (Shazeer 2020): y = silu(gate) * up, silu(x) = x / (1 + exp(-x)), or with `squared` y = relu(gate)^2 * up
// (So et al. 2021). Element (r, c) of gate is at
// r * stride + gate + c of its buffer, that of up at r * stride + up + c: both may be columns of one matrix.

//#import quads

struct Args { rows: u32, cols: u32, stride: u32, gate: u32, up: u32, squared: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gate: array<vec4<f32>>; // (rows, stride) or a part of it
@group(0) @binding(2) var<storage, read> up: array<vec4<f32>>; // (rows, stride) or a part of it
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // (rows, cols)

fn gated(x: vec4<f32>, by: vec4<f32>) -> vec4<f32> {
    if args.squared != 0u {
        // Not `max`, which may drop what is no number.
        let positive = select(x, vec4<f32>(), x <= vec4<f32>());
        return positive * positive * by;
    }
    // Bounded, so that no intermediate value is infinite.
    return x / (1.0 + exp(min(-x, vec4<f32>(80.0)))) * by;
}

// Where element i of y has its inputs, but for the first column of each.
fn place(i: u32) -> u32 {
    return i / args.cols * args.stride + i % args.cols;
}

fn quad(i: u32) {
    let n = args.rows * args.cols;
    if 4u * i >= n {
        return;
    }
    if (args.cols | args.stride | args.gate | args.up) % 4u == 0u {
        let at = place(4u * i);
        y[i] = gated(gate[(at + args.gate) / 4u], up[(at + args.up) / 4u]);
        return;
    }
    var x: vec4<f32>;
    var by: vec4<f32>;
    for (var k = 0u; k < 4u; k++) {
        let at = place(min(4u * i + k, n - 1u));
        x[k] = gate[(at + args.gate) / 4u][(at + args.gate) % 4u];
        by[k] = up[(at + args.up) / 4u][(at + args.up) % 4u];
    }
    y[i] = select(y[i], gated(x, by), inside(i, n));
}
