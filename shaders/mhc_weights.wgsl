// mHC-lite coefficients (arXiv 2512.24880, 2601.05732) from a sub-layer's parameters, one thread for each coefficient:
// h_pre = sigmoid(pre_logits + pre_bias), h_post = 2 sigmoid(post_logits + post_bias), and H_res doubly stochastic by
// construction: for 2 streams [[a, 1-a], [1-a, a]] with a = sigmoid(alpha_logit), for 4 softmax(res_logits) over the 24
// permutations.

//#import permutations

struct Args { streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
// (1 or 24) alpha_logit or res_logits, (streams) each: pre_logits, pre_bias, post_logits, post_bias
@group(0) @binding(1) var<storage, read> p: array<f32>;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(2) var<storage, read_write> coef: array<f32>;

fn sigmoid(value: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-value, 80.0)));
}

// Entry (i, j) of the mix of four streams.
fn mix(i: u32, j: u32) -> f32 {
    var most = p[0];
    for (var k = 1u; k < 24u; k++) {
        most = max(most, p[k]);
    }
    var total = 0.0;
    var sum = 0.0;
    for (var k = 0u; k < 24u; k++) {
        let weight = exp(p[k] - most);
        total += weight;
        if permuted(k, i) == j {
            sum += weight;
        }
    }
    return sum / total;
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    let n = args.streams;
    if lane >= n * (2u + n) {
        return;
    }
    let rest = select(1u, 24u, n == 4u);
    var value = 0.0;
    if lane < n {
        value = sigmoid(p[rest + lane] + p[rest + n + lane]);
    } else if lane < 2u * n {
        value = 2.0 * sigmoid(p[rest + n + lane] + p[rest + 2u * n + lane]);
    } else if n == 4u {
        value = mix((lane - 8u) / 4u, lane % 4u);
    } else {
        let a = sigmoid(p[0]);
        value = select(1.0 - a, a, lane == 4u || lane == 7u);
    }
    coef[lane] = value;
}
