// Last stage of the cross-entropy, over a part of the tokens: turns the logits into their gradient in place,
// (softmax - one_hot) * grad_scale, with softmax[r] = (top, grad_scale / sum of exp(logit - top)) from `cross_entropy`;
// where the second is 0 it is 0. Column 0 of the logits is token `first`. Targets are read from element `row`. One
// workgroup for each 4096 columns of a row.

//#import groups

struct Args { rows: u32, cols: u32, first: u32, row: u32, grad_scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // (at least row + rows)
@group(0) @binding(2) var<storage, read> softmax: array<f32>; // (rows, 2)
@group(0) @binding(3) var<storage, read_write> logits: array<f32>; // (rows, cols)

fn group(i: u32, lane: u32) {
    let count = (args.cols + 4095u) / 4096u;
    let r = i / count;
    if r >= args.rows {
        return;
    }
    let first = i % count * 4096u;
    let start = r * args.cols;
    // It wraps to a column that is none where the target is before `first`.
    let chosen = targets[args.row + r] - args.first;
    let top = softmax[2u * r];
    let factor = softmax[2u * r + 1u];
    for (var c = first + lane; c < min(first + 4096u, args.cols); c += 64u) {
        var grad = 0.0;
        if factor != 0.0 {
            grad = exp(logits[start + c] - top) * factor;
        }
        logits[start + c] = grad - select(0.0, args.grad_scale, c == chosen);
    }
}
