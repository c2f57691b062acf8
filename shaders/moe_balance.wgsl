// The loss that balances experts (Fedus et al. 2021, arXiv 2101.03961), by one workgroup: value = experts * sum over e of
// f[e] * P[e], where f[e] is the share of all assignments that expert e has, which `starts` counts, and P[e] the mean over rows of
// softmax(logits[r])[e]. It is 1 where both are uniform.

//#import reduce
//#import softmax_mean

struct Args { rows: u32, experts: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (rows, experts)
@group(0) @binding(2) var<storage, read> starts: array<u32>; // (experts + 1)
@group(0) @binding(3) var<storage, read_write> value: array<f32>; // (1)

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var row = lane; row < args.rows; row += 64u) {
        sum += softmax_mean(row, top_logit(row)).y;
    }
    let total = reduce_sum(lane, sum);
    if lane == 0u {
        value[0] = total / f32(args.rows);
    }
}
