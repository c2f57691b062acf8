// The op that imports this has logits, (rows, experts), starts, (experts + 1), and args.experts.

fn top_logit(row: u32) -> f32 {
    var top = logits[row * args.experts];
    for (var e = 1u; e < args.experts; e++) {
        top = max(top, logits[row * args.experts + e]);
    }
    return top;
}

// experts times the share of all assignments that an expert has.
fn share(e: u32) -> f32 {
    return f32(args.experts) * (f32(starts[e + 1u] - starts[e]) / f32(max(starts[args.experts], 1u)));
}

// The sum over e of e^(logit - top), and the mean of the shares under softmax(logits[row]).
fn softmax_mean(row: u32, top: f32) -> vec2<f32> {
    var total = 0.0;
    var sum = 0.0;
    for (var e = 0u; e < args.experts; e++) {
        let p = exp(logits[row * args.experts + e] - top);
        sum += p * share(e);
        total += p;
    }
    return vec2<f32>(total, sum / total);
}
