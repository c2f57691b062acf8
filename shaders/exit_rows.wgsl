// Which rows take no further pass through looped layers: those whose logits have an entropy below a threshold, in nats.
// ends[r] = passes, the number of passes so far, where ends[r] is 0, which means that the row goes on. The entropy is
// ln s - m / s with the sums s of e^d and m of d e^d, d = logit - top. One workgroup for each row.

//#import groups
//#import reduce

struct Args { rows: u32, vocab: u32, passes: u32, threshold: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, vocab)
@group(0) @binding(2) var<storage, read_write> ends: array<u32>; // (rows)

fn group(r: u32, lane: u32) {
    if r >= args.rows {
        return;
    }
    let start = r * args.vocab;
    var top = -3e38;
    for (var c = lane; c < args.vocab; c += 64u) {
        top = max(top, logits[start + c]);
    }
    top = reduce_max(lane, top);
    var s = 0.0;
    var m = 0.0;
    for (var c = lane; c < args.vocab; c += 64u) {
        // A token that is ruled out has no probability, and its logit no finite difference.
        let below = max(logits[start + c] - top, -200.0);
        let e = exp(below);
        s += e;
        m += below * e;
    }
    s = reduce_sum(lane, s);
    m = reduce_sum(lane, m);
    if lane == 0u && ends[r] == 0u && log(s) - m / s < args.threshold {
        ends[r] = args.passes;
    }
}
