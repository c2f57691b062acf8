// Cross-entropy in nats: losses[row + r] = log(sum(exp(logits[r]))) - logits[r][target]; a target that is no
// token, such as 0xffffffff, does not count. Turns the logits into their gradient in place, (softmax - one_hot) * grad_scale, unless grad_scale is 0:
// then they are kept. Targets are read, and losses written, from element `row`. One workgroup for each row.

//#import groups
//#import reduce

struct Args { rows: u32, vocab: u32, row: u32, grad_scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // (at least row + rows)
@group(0) @binding(2) var<storage, read_write> logits: array<f32>; // (rows, vocab)
@group(0) @binding(3) var<storage, read_write> losses: array<f32>; // (at least row + rows)

fn group(r: u32, lane: u32) {
    if r >= args.rows {
        return;
    }
    let start = r * args.vocab;
    let chosen = targets[args.row + r];
    let counts = chosen < args.vocab;
    var most = -1e30;
    for (var c = lane; c < args.vocab; c += 64u) {
        most = max(most, logits[start + c]);
    }
    most = reduce_max(lane, most);
    var total = 0.0;
    for (var c = lane; c < args.vocab; c += 64u) {
        total += exp(logits[start + c] - most);
    }
    total = reduce_sum(lane, total);
    if lane == 0u {
        var loss = 0.0;
        if counts {
            loss = most + log(total) - logits[start + chosen];
        }
        losses[args.row + r] = loss;
    }
    if args.grad_scale == 0.0 {
        return;
    }
    // The loss reads a logit that another thread is about to change.
    storageBarrier();
    let factor = args.grad_scale / total;
    for (var c = lane; c < args.vocab; c += 64u) {
        var grad = 0.0;
        if counts {
            grad = exp(logits[start + c] - most) * factor - select(0.0, args.grad_scale, c == chosen);
        }
        logits[start + c] = grad;
    }
}
