// Gradient of `moe_balance`, in which the shares f count as constants, one thread for each row: with p = softmax(logits[r]) and
// g = experts * f, dlogits[r][e] = dvalue[0] / rows * p[e] * (g[e] - sum over i of p[i] * g[i]).

//#import elements
//#import softmax_mean

struct Args { rows: u32, experts: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, experts)
@group(0) @binding(2) var<storage, read> starts: array<u32>; // (experts + 1)
@group(0) @binding(3) var<storage, read> dvalue: array<f32>; // (1)
@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>; // (rows, experts)

fn element(row: u32) {
    if row >= args.rows {
        return;
    }
    let top = top_logit(row);
    let found = softmax_mean(row, top);
    let scale = dvalue[0] / f32(args.rows);
    for (var e = 0u; e < args.experts; e++) {
        let at = row * args.experts + e;
        dlogits[at] = scale * (exp(logits[at] - top) / found.x) * (share(e) - found.y);
    }
}
