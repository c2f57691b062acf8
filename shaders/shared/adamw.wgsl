// AdamW's arithmetic on four elements, for `adamw` and its forms.

struct Moved { weight: vec4<f32>, first: vec4<f32>, second: vec4<f32> }

fn adamw(gradient: vec4<f32>, weight: vec4<f32>, mean: vec4<f32>, square: vec4<f32>) -> Moved {
    let grad = gradient * ctl[0];
    let lr = args.lr * step[0];
    let first = args.beta1 * mean + (1.0 - args.beta1) * grad;
    let second = args.beta2 * square + (1.0 - args.beta2) * grad * grad;
    let change = lr * (first / step[1]) / (sqrt(second / step[2]) + args.eps);
    return Moved(weight * (1.0 - lr * args.weight_decay) - change, first, second);
}
