// `muon_momentum` with a momentum in bf16, rounded at random.

//#import muon_tile
//#import noise
//#import bf16

struct Args {
    rows: u32, cols: u32, batch: u32, start: u32, stride: u32, offset: u32, transposed: u32, stream: u32, beta: f32
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>; // (batch) of (rows, cols) from start, stride apart
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (6): ..., key
@group(0) @binding(4) var<storage, read_write> m: array<vec2<u32>>; // like g, two bf16 in a word
@group(0) @binding(5) var<storage, read_write> x: array<f32>; // (batch, rows, cols) or (batch, cols, rows) from offset

fn load(at: u32) -> vec4<f32> {
    return widen(m[at / 4u]);
}

fn save(lane: u32, at: vec2<u32>, there: vec2<bool>, old: array<vec4<f32>, 2>, moved: array<vec4<f32>, 2>) {
    if there.x { m[at.x / 4u] = narrow(moved[0], first(noise(at.x))); }
    if there.y { m[at.y / 4u] = narrow(moved[1], first(noise(at.y))); }
}
