// Lion (Chen et al., arXiv 2302.06675). w = w (1 - lr wd) - lr sign(beta1 m + (1-beta1) g), then m = beta2 m +
// (1-beta2) g, with g = gradient * ctl[0], lr = args.lr * step[0], sign(0) = 0. Nothing moves when ctl[1] is set.

//#import quads
//#import lion

struct Args { n: u32, lr: f32, beta1: f32, beta2: f32, weight_decay: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>; // (n)
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (6): learning-rate factor, ...
@group(0) @binding(4) var<storage, read_write> w: array<vec4<f32>>; // (n)
@group(0) @binding(5) var<storage, read_write> m: array<vec4<f32>>; // (n)

fn quad(i: u32) {
    if 4u * i >= args.n || ctl[1] != 0.0 {
        return;
    }
    let inner = inside(i, args.n);
    let weight = w[i];
    let mean = m[i];
    let moved = lion(g[i], weight, mean);
    w[i] = select(weight, moved.weight, inner);
    m[i] = select(mean, moved.first, inner);
}
