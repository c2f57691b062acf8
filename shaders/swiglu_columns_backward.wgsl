// Gradient of `swiglu` where up and gate are the first and the last cols columns of one matrix x (rows, 2 cols):
// dup = dy * silu(gate), dgate = dy * up * silu'(gate), at the same places of dx, silu'(x) = s + x s (1 - s) with
// s = sigmoid(x). `squared` is as in `swiglu_backward`.

//#import quads

struct Args { rows: u32, cols: u32, squared: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (rows, 2 cols)
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>; // (rows, cols)
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>; // (rows, 2 cols)

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    // Bounded, so that no intermediate value is infinite.
    return 1.0 / (1.0 + exp(min(-x, vec4<f32>(80.0))));
}

fn positive(x: vec4<f32>) -> vec4<f32> {
    return select(x, vec4<f32>(), x <= vec4<f32>());
}

fn to_up(gate: vec4<f32>, dy: vec4<f32>) -> vec4<f32> {
    if args.squared != 0u {
        return dy * (positive(gate) * positive(gate));
    }
    return dy * gate * sigmoid(gate);
}

fn to_gate(gate: vec4<f32>, up: vec4<f32>, dy: vec4<f32>) -> vec4<f32> {
    if args.squared != 0u {
        return dy * up * (2.0 * positive(gate));
    }
    let s = sigmoid(gate);
    return dy * up * (s + gate * s * (1.0 - s));
}

// Elements 4i to 4i + 3 of dx, where a row is no multiple of four columns.
fn mixed(i: u32) {
    let n = 2u * args.rows * args.cols;
    if 4u * i >= n {
        return;
    }
    var gate: vec4<f32>;
    var up: vec4<f32>;
    var dys: vec4<f32>;
    var is_up: vec4<bool>;
    for (var k = 0u; k < 4u; k++) {
        let j = min(4u * i + k, n - 1u);
        let at = j / (2u * args.cols) * args.cols + j % args.cols;
        let first = at / args.cols * args.cols + at;
        gate[k] = x[(first + args.cols) / 4u][(first + args.cols) % 4u];
        up[k] = x[first / 4u][first % 4u];
        dys[k] = dy[at / 4u][at % 4u];
        is_up[k] = j % (2u * args.cols) < args.cols;
    }
    let value = select(to_gate(gate, up, dys), to_up(gate, dys), is_up);
    dx[i] = select(dx[i], value, inside(i, n));
}

fn quad(i: u32) {
    if args.cols % 4u != 0u {
        mixed(2u * i);
        mixed(2u * i + 1u);
        return;
    }
    if 4u * i >= args.rows * args.cols {
        return;
    }
    let quads = args.cols / 4u;
    let at = i / quads * quads + i;
    let gate = x[at + quads];
    dx[at] = to_up(gate, dy[i]);
    dx[at + quads] = to_gate(gate, x[at], dy[i]);
}
