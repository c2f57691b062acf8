// y = x.

//#import elements

struct Args { n: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (n)

fn element(i: u32) {
    if i < args.n {
        y[i] = x[i];
    }
}
