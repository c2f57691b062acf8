// Gated unit (Shazeer 2020): y = silu(gate) * up, silu(x) = x / (1 + exp(-x)).

//#import elements

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> gate: array<f32>; // (n)
@group(0) @binding(2) var<storage, read> up: array<f32>; // (n)
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // (n)

fn element(i: u32) {
    if i >= args.n {
        return;
    }
    // Bounded, so that no intermediate value is infinite.
    y[i] = gate[i] / (1.0 + exp(min(-gate[i], 80.0))) * up[i];
}
