// `muon_momentum` with a momentum in 8 bits, rounded at random: code * scale, with one f32 scale for each block of 64 values of a
// row.

//#import muon_tile
//#import noise
//#import int8 THREADS=256u

struct Args {
    rows: u32, cols: u32, batch: u32, start: u32, stride: u32, offset: u32, transposed: u32, stream: u32, beta: f32
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>; // (batch) of (rows, cols) from start, stride apart
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (6): ..., key
@group(0) @binding(4) var<storage, read_write> m: array<u32>; // like g, four codes in a word
@group(0) @binding(5) var<storage, read_write> scales: array<f32>; // one for each 64 columns of a row of g
@group(0) @binding(6) var<storage, read_write> x: array<f32>; // (batch, rows, cols) or (batch, cols, rows) from offset

// The place of the scale of element `at`.
fn scale_at(at: u32) -> u32 {
    return at / args.cols * ((args.cols + 63u) / 64u) + at % args.cols / 64u;
}

fn load(at: u32) -> vec4<f32> {
    return decode(m[at / 4u], scales[scale_at(at)]);
}

fn save(lane: u32, at: vec2<u32>, there: vec2<bool>, old: array<vec4<f32>, 2>, moved: array<vec4<f32>, 2>) {
    let size = largest(lane, vec2<f32>(size_of(moved[0]), size_of(moved[1])));
    for (var i = 0u; i < 2u; i++) {
        if there[i] {
            let scale = scale_of(size[i], 127.0);
            m[at[i] / 4u] = encode(moved[i], old[i], scale, first(noise(at[i])));
            if lane % 16u == 0u {
                scales[scale_at(at[i])] = scale;
            }
        }
    }
}
