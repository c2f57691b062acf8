// Last stage of the cross-entropy, over a part of the tokens: turns the logits into their gradient in place,
// (softmax - one_hot) * grad_scale, with softmax[r] = (top, grad_scale / sum of exp(logit - top), mean) from
// `cross_entropy`; where the second is 0 it is 0. If `entropy` is not 0, the loss is less by so many times the entropy of the
// softmax: its share is then multiplied by 1 + entropy * (logit - top - mean), with the mean from `softmax_mean`. Column 0 of
// the logits is token `first`. Targets are read from element `row`. One workgroup for each 4096 columns of a row.

//#import groups

struct Args { rows: u32, cols: u32, first: u32, row: u32, grad_scale: f32, entropy: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // (at least row + rows)
@group(0) @binding(2) var<storage, read> softmax: array<f32>; // (rows, 3)
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
    let top = softmax[3u * r];
    let factor = softmax[3u * r + 1u];
    let mean = softmax[3u * r + 2u];
    for (var c = first + lane; c < min(first + 4096u, args.cols); c += 64u) {
        var grad = 0.0;
        if factor != 0.0 {
            grad = exp(logits[start + c] - top) * factor;
            if args.entropy != 0.0 {
                grad *= 1.0 + args.entropy * (max(logits[start + c] - top, -200.0) - mean);
            }
        }
        logits[start + c] = grad - select(0.0, args.grad_scale, c == chosen);
    }
}
