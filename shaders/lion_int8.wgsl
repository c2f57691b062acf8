// `lion` with a momentum in 8 bits, rounded at random: code * scale, with one f32 scale for each block of 64 values of a row. One
// workgroup for each four blocks.

//#import groups
//#import lion
//#import noise
//#import four_blocks

struct Args { rows: u32, cols: u32, stream: u32, lr: f32, beta1: f32, beta2: f32, weight_decay: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>; // (rows, cols)
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (6): learning-rate factor, ..., key
@group(0) @binding(4) var<storage, read_write> w: array<vec4<f32>>; // (rows, cols)
@group(0) @binding(5) var<storage, read_write> m: array<u32>; // (rows, cols), four codes in a word
@group(0) @binding(6) var<storage, read_write> scales: array<f32>; // (rows, ceil(cols / 64))

fn group(i: u32, lane: u32) {
    if ctl[1] != 0.0 {
        return;
    }
    let p = place(i, lane);
    let quad = p.at / 4u;
    var moved: Moved;
    var mean: vec4<f32>;
    if p.there {
        mean = decode(m[quad], scales[p.scale]);
        moved = lion(g[quad], w[quad], mean);
    }
    let scale = scale_of(largest(lane, vec2<f32>(size_of(moved.first), 0.0)).x, 127.0);
    if p.there {
        w[quad] = moved.weight;
        m[quad] = encode(moved.first, mean, scale, first(noise(p.at)));
    }
    if p.head {
        scales[p.scale] = scale;
    }
}
