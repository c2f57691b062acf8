// `adamw` with moments in bf16, rounded at random.

//#import quads
//#import adamw
//#import noise
//#import bf16

struct Args {
    rows: u32, cols: u32, stream: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>; // (rows, cols)
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (6): learning-rate factor, bias corrections, ..., key
@group(0) @binding(4) var<storage, read_write> w: array<vec4<f32>>; // (rows, cols)
@group(0) @binding(5) var<storage, read_write> m: array<vec2<u32>>; // (rows, cols), two bf16 in a word
@group(0) @binding(6) var<storage, read_write> v: array<vec2<u32>>; // (rows, cols), two bf16 in a word

fn quad(i: u32) {
    if 4u * i >= args.rows * args.cols || ctl[1] != 0.0 {
        return;
    }
    let moved = adamw(g[i], w[i], widen(m[i]), widen(v[i]));
    let bits = noise(4u * i);
    w[i] = moved.weight;
    m[i] = narrow(moved.first, first(bits));
    v[i] = narrow(moved.second, second(bits));
}
