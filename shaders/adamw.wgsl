// AdamW (Loshchilov & Hutter 2019). m = beta1 m + (1-beta1) g, v = beta2 v + (1-beta2) g^2, w = w (1 - lr wd) - lr (m /
// step[1]) / (sqrt(v / step[2]) + eps), with g = gradient * ctl[0], lr = args.lr * step[0], and step[1], step[2] the
// bias corrections 1 - beta^t. Nothing moves when ctl[1] is set.

//#import quads

struct Args { n: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>; // (n)
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (4): learning-rate factor, bias corrections, ...
@group(0) @binding(4) var<storage, read_write> w: array<vec4<f32>>; // (n)
@group(0) @binding(5) var<storage, read_write> m: array<vec4<f32>>; // (n)
@group(0) @binding(6) var<storage, read_write> v: array<vec4<f32>>; // (n)

fn quad(i: u32) {
    if 4u * i >= args.n || ctl[1] != 0.0 {
        return;
    }
    let moved = inside(i, args.n);
    let grad = g[i] * ctl[0];
    let lr = args.lr * step[0];
    let weight = w[i];
    let mean = m[i];
    let square = v[i];
    let first = args.beta1 * mean + (1.0 - args.beta1) * grad;
    let second = args.beta2 * square + (1.0 - args.beta2) * grad * grad;
    let change = lr * (first / step[1]) / (sqrt(second / step[2]) + args.eps);
    w[i] = select(weight, weight * (1.0 - lr * args.weight_decay) - change, moved);
    m[i] = select(mean, first, moved);
    v[i] = select(square, second, moved);
}
