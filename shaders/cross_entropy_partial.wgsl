// First stage of the cross-entropy, over a part of the tokens: partial[r][block + b] = (top, sum of exp(logit - top)) for
// block b of 4096 logits of row r, with top the largest of them, but at least -1e30. Column 0 of the logits is token
// `first`. Where the target of a row is one of these tokens, chosen[r] is its logit. Targets are read from element `row`.
// One workgroup for each block. A thread reads its logits once, with a running top and sum.

//#import groups
//#import reduce

struct Args { rows: u32, cols: u32, first: u32, row: u32, block: u32, blocks: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // (at least row + rows)
@group(0) @binding(2) var<storage, read> logits: array<f32>; // (rows, cols)
@group(0) @binding(3) var<storage, read_write> partial: array<f32>; // (rows, blocks, 2)
@group(0) @binding(4) var<storage, read_write> chosen: array<f32>; // (rows)

// What lies behind the last column is far below every top.
fn logit(start: u32, c: u32, end: u32) -> f32 {
    if c < end {
        return logits[start + c];
    }
    return -3e38;
}

fn group(i: u32, lane: u32) {
    let count = (args.cols + 4095u) / 4096u;
    let r = i / count;
    if r >= args.rows {
        return;
    }
    let b = i % count;
    let start = r * args.cols;
    let end = min(b * 4096u + 4096u, args.cols);
    var top = -1e30;
    var total = 0.0;
    for (var c = b * 4096u + lane; c < end; c += 256u) {
        let x = vec4<f32>(
            logits[start + c],
            logit(start, c + 64u, end),
            logit(start, c + 128u, end),
            logit(start, c + 192u, end),
        );
        let most = max(top, max(max(x.x, x.y), max(x.z, x.w)));
        let e = exp(x - most);
        total = total * exp(top - most) + ((e.x + e.y) + (e.z + e.w));
        top = most;
    }
    let most = reduce_max(lane, top);
    total = reduce_sum(lane, total * exp(top - most));
    if lane == 0u {
        let at = 2u * (r * args.blocks + args.block + b);
        partial[at] = most;
        partial[at + 1u] = total;
        // It wraps to a column that is none where the target is before `first`.
        let c = targets[args.row + r] - args.first;
        if c / 4096u == b && c < end {
            chosen[r] = logits[start + c];
        }
    }
}
