// Cross-entropy in nats, from what `cross_entropy_partial` found: losses[row + r] = log(sum(exp(logits[r]))) - chosen[r]; a
// target that is no token, such as 0xffffffff, counts nothing. softmax[r] = (top, grad_scale / sum of exp(logit - top),
// 0), from which `cross_entropy_gradient` has the softmax; the second is 0 where the row counts nothing, and the third is for
// `softmax_mean`. Targets are read, and losses written, from element `row`. One thread for each row.

//#import elements

struct Args { rows: u32, vocab: u32, blocks: u32, row: u32, grad_scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // (at least row + rows)
@group(0) @binding(2) var<storage, read> partial: array<f32>; // (rows, blocks, 2)
@group(0) @binding(3) var<storage, read> chosen: array<f32>; // (rows)
@group(0) @binding(4) var<storage, read_write> losses: array<f32>; // (at least row + rows)
@group(0) @binding(5) var<storage, read_write> softmax: array<f32>; // (rows, 3)

fn element(r: u32) {
    if r >= args.rows {
        return;
    }
    let start = 2u * r * args.blocks;
    let end = start + 2u * args.blocks;
    var top = -1e30;
    for (var i = start; i < end; i += 2u) {
        top = max(top, partial[i]);
    }
    var total = 0.0;
    for (var i = start; i < end; i += 2u) {
        total += partial[i + 1u] * exp(partial[i] - top);
    }
    var loss = 0.0;
    var factor = 0.0;
    if targets[args.row + r] < args.vocab {
        loss = top + log(total) - chosen[r];
        factor = args.grad_scale / total;
    }
    losses[args.row + r] = loss;
    softmax[3u * r] = top;
    softmax[3u * r + 1u] = factor;
    softmax[3u * r + 2u] = 0.0;
}
