// AdamW (Loshchilov & Hutter 2019). m = beta1 m + (1-beta1) g, v = beta2 v + (1-beta2) g^2, w = w (1 - lr wd) - lr (m /
// step[1]) / (sqrt(v / step[2]) + eps), with g = gradient * ctl[0], lr = args.lr * step[0], and step[1], step[2] the
// bias corrections 1 - beta^t. Nothing moves when ctl[1] is set.

//#import elements

struct Args { n: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<f32>; // (n)
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (4): learning-rate factor, bias corrections, ...
@group(0) @binding(4) var<storage, read_write> w: array<f32>; // (n)
@group(0) @binding(5) var<storage, read_write> m: array<f32>; // (n)
@group(0) @binding(6) var<storage, read_write> v: array<f32>; // (n)

fn element(i: u32) {
    if i >= args.n || ctl[1] != 0.0 {
        return;
    }
    let grad = g[i] * ctl[0];
    let lr = args.lr * step[0];
    let first = args.beta1 * m[i] + (1.0 - args.beta1) * grad;
    let second = args.beta2 * v[i] + (1.0 - args.beta2) * grad * grad;
    m[i] = first;
    v[i] = second;
    w[i] = w[i] * (1.0 - lr * args.weight_decay) - lr * (first / step[1]) / (sqrt(second / step[2]) + args.eps);
}
