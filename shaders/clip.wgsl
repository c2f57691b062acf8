// Second stage of the global gradient norm, and the verdict on the step, by one workgroup.
//
// norm = sqrt(sum of partials); ctl[0] = min(clip / (norm + 1e-6), 1), the factor by which every optimizer scales its
// gradients; ctl[1] = 1 if the step is to be skipped: the norm, the loss, ctl[2], ctl[3] or one of `checks` values behind
// the partials (those of weights and optimizer state) is not finite, or norm > outlier * max(ctl[2], clip) after
// `warmup` steps have been counted in ctl[3]; ctl[2] = running mean of the norm (0.9 old + 0.1 new; the first
// norm starts it): an outlier counts as just at the limit. clip = 0 means no clipping, outlier = 0 no limit. Whether a value is
// finite is read from its bits, because a shader compiler may assume that every value is finite.

//#import reduce

struct Args { partials: u32, checks: u32, warmup: u32, clip: f32, outlier: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> partial: array<f32>; // (partials + checks)
@group(0) @binding(2) var<storage, read> loss: array<f32>; // (1)
@group(0) @binding(3) var<storage, read> step: array<f32>; // (4): [3] is the slot of the ring
@group(0) @binding(4) var<storage, read_write> ctl: array<f32>; // (4): factor, skip, running mean, steps counted
@group(0) @binding(5) var<storage, read_write> stats: array<f32>; // (64, 4): loss, norm, skipped, 0

fn is_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u;
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < args.partials; i += 64u) {
        sum += partial[i];
    }
    let total = reduce_sum(lane, sum);
    var check = 0.0;
    for (var i = lane; i < args.checks; i += 64u) {
        check += partial[args.partials + i];
    }
    let checked = reduce_sum(lane, check);
    if lane != 0u {
        return;
    }
    let norm = sqrt(total);
    let counted = ctl[3];
    let limit = args.outlier * max(ctl[2], args.clip);
    let limited = args.outlier > 0.0 && counted > 0.0 && counted >= f32(args.warmup);
    let finite = is_finite(total) && is_finite(loss[0]) && is_finite(checked) && is_finite(ctl[2]) && is_finite(counted);
    let skip = !finite || (limited && norm > limit);
    ctl[0] = select(min(args.clip / (norm + 1e-6), 1.0), 1.0, args.clip == 0.0);
    ctl[1] = select(0.0, 1.0, skip);
    if finite {
        let bounded = select(norm, min(norm, limit), limited);
        ctl[2] = select(0.9 * ctl[2] + 0.1 * bounded, norm, counted == 0.0);
        ctl[3] = counted + 1.0;
    }
    let slot = u32(step[3]) % 64u * 4u;
    stats[slot] = loss[0];
    stats[slot + 1u] = norm;
    stats[slot + 2u] = select(0.0, 1.0, skip);
    stats[slot + 3u] = 0.0;
}
