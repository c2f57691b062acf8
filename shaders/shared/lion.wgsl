// Lion's arithmetic on four elements, for `lion` and its forms.

struct Moved { weight: vec4<f32>, first: vec4<f32> }

fn lion(gradient: vec4<f32>, weight: vec4<f32>, mean: vec4<f32>) -> Moved {
    let grad = gradient * ctl[0];
    let lr = args.lr * step[0];
    let direction = args.beta1 * mean + (1.0 - args.beta1) * grad;
    let moved = weight * (1.0 - lr * args.weight_decay) - lr * sign(direction);
    return Moved(moved, args.beta2 * mean + (1.0 - args.beta2) * grad);
}
