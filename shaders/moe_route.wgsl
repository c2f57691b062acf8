// The router of a mixture of experts (Shazeer et al. 2017), one workgroup for each row: logits[r][e] = x[r] . w[e]. chosen[r] are
// the k experts with the largest logits + bias, the largest first and of equals the one with the lower number; weights[r] is the
// softmax of their logits, without the bias: it changes the choice alone (Wang et al. 2024, arXiv 2408.15664).

//#import groups
//#import reduce

struct Args { rows: u32, dim: u32, experts: u32, k: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (experts, dim)
@group(0) @binding(3) var<storage, read> bias: array<f32>; // (experts)
@group(0) @binding(4) var<storage, read_write> logits: array<f32>; // (rows, experts)
@group(0) @binding(5) var<storage, read_write> chosen: array<u32>; // (rows, k)
@group(0) @binding(6) var<storage, read_write> weights: array<f32>; // (rows, k)

fn is_chosen(row: u32, rank: u32, e: u32) -> bool {
    for (var j = 0u; j < rank; j++) {
        if chosen[row * args.k + j] == e {
            return true;
        }
    }
    return false;
}

fn choose(row: u32) {
    let own = row * args.experts;
    var top = 0.0;
    for (var rank = 0u; rank < args.k; rank++) {
        var best = args.experts;
        var most = 0.0;
        for (var e = 0u; e < args.experts; e++) {
            let score = logits[own + e] + bias[e];
            if (best == args.experts || score > most) && !is_chosen(row, rank, e) {
                best = e;
                most = score;
            }
        }
        chosen[row * args.k + rank] = best;
        let logit = logits[own + best];
        if rank == 0u || logit > top {
            top = logit;
        }
    }
    var total = 0.0;
    for (var j = 0u; j < args.k; j++) {
        let at = row * args.k + j;
        weights[at] = exp(logits[own + chosen[at]] - top);
        total += weights[at];
    }
    for (var j = 0u; j < args.k; j++) {
        weights[row * args.k + j] /= total;
    }
}

fn group(row: u32, lane: u32) {
    if row >= args.rows {
        return;
    }
    for (var e = 0u; e < args.experts; e++) {
        var sum = 0.0;
        for (var c = lane; c < args.dim; c += 64u) {
            sum += x[row * args.dim + c] * w[e * args.dim + c];
        }
        let total = reduce_sum(lane, sum);
        // One thread keeps all of them: what a thread wrote it may read.
        if lane == 0u {
            logits[row * args.experts + e] = total;
        }
    }
    if lane == 0u {
        choose(row);
    }
}
