// For the entropy of the softmax, over a part of the tokens: adds to softmax[r][2] the sum of p (logit - top), with the
// probabilities p = scale * softmax[r][1] * exp(logit - top) and top = softmax[r][0], both from `cross_entropy`. One
// workgroup for each row.

//#import groups
//#import reduce

struct Args { rows: u32, cols: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, cols)
@group(0) @binding(2) var<storage, read_write> softmax: array<f32>; // (rows, 3)

fn group(r: u32, lane: u32) {
    if r >= args.rows {
        return;
    }
    let top = softmax[3u * r];
    var total = 0.0;
    for (var c = lane; c < args.cols; c += 64u) {
        // A token that is ruled out has no probability, and its logit no finite difference.
        let below = max(logits[r * args.cols + c] - top, -200.0);
        total += below * exp(below);
    }
    total = reduce_sum(lane, total);
    if lane == 0u {
        softmax[3u * r + 2u] += args.scale * softmax[3u * r + 1u] * total;
    }
}
