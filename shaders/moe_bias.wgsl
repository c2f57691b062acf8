// Balances experts without a loss (Wang et al. 2024, arXiv 2408.15664), one thread for each layer: bias[e] += rate *
// sign(mean(load) - load[e]), the mean over the experts of a layer. Layers are `stride` elements apart. A skipped step (ctl[1] is
// not 0) moves no bias. seen[e] = load[e], for whoever reads it after the next step has begun.

//#import elements

struct Args { layers: u32, experts: u32, stride: u32, rate: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> load: array<f32>; // (layers, stride)
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4)
@group(0) @binding(3) var<storage, read_write> bias: array<f32>; // (layers, stride)
@group(0) @binding(4) var<storage, read_write> seen: array<f32>; // (layers, stride)

fn element(layer: u32) {
    if layer >= args.layers {
        return;
    }
    let start = layer * args.stride;
    var sum = 0.0;
    for (var e = start; e < start + args.experts; e++) {
        sum += load[e];
    }
    let mean = sum / f32(args.experts);
    for (var e = start; e < start + args.experts; e++) {
        seen[e] = load[e];
        if ctl[1] == 0.0 && mean != load[e] {
            bias[e] += select(-args.rate, args.rate, mean > load[e]);
        }
    }
}
