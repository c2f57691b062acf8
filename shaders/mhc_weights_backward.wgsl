// Gradient of `mhc_weights`: dp += J^T dcoef, one thread for each parameter. With s the softmax and g_k the sum of
// dH_res over the entries of permutation k, dres_logits = s * (g - sum of s g); sigmoids through their results.

//#import permutations

struct Args { streams: u32 }

@group(0) @binding(0) var<uniform> args: Args;
// (1 or 24) alpha_logit or res_logits, (streams) each: pre_logits, pre_bias, post_logits, post_bias
@group(0) @binding(1) var<storage, read> p: array<f32>;
// (streams) h_pre, (streams) h_post, (streams, streams) H_res
@group(0) @binding(2) var<storage, read> coef: array<f32>;
@group(0) @binding(3) var<storage, read> dcoef: array<f32>; // like coef
@group(0) @binding(4) var<storage, read_write> dp: array<f32>; // like p

// Gradient with respect to the weight of permutation k of four streams.
fn along(k: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < 4u; i++) {
        sum += dcoef[8u + 4u * i + permuted(k, i)];
    }
    return sum;
}

fn logit_gradient(chosen: u32) -> f32 {
    var most = p[0];
    for (var k = 1u; k < 24u; k++) {
        most = max(most, p[k]);
    }
    var total = 0.0;
    var mean = 0.0;
    for (var k = 0u; k < 24u; k++) {
        let weight = exp(p[k] - most);
        total += weight;
        mean += weight * along(k);
    }
    return exp(p[chosen] - most) / total * (along(chosen) - mean / total);
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    let n = args.streams;
    let rest = select(1u, 24u, n == 4u);
    if lane >= rest + 4u * n {
        return;
    }
    var value = 0.0;
    if lane >= rest {
        let i = lane - rest;
        if i < 2u * n {
            let h = coef[i % n];
            value = dcoef[i % n] * h * (1.0 - h);
        } else {
            let h = coef[n + i % n];
            value = dcoef[n + i % n] * h * (1.0 - 0.5 * h);
        }
    } else if n == 4u {
        value = logit_gradient(lane);
    } else {
        let a = coef[4];
        value = (dcoef[4] - dcoef[5] - dcoef[6] + dcoef[7]) * a * (1.0 - a);
    }
    dp[lane] += value;
}
