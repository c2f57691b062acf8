// `adamw` with moments in 8 bits, rounded at random, with one f32 scale for each block of 64 values of a row: the first moment
// is code * scale, the second (code * scale)^2. One workgroup for each four blocks.

//#import groups
//#import adamw
//#import noise
//#import four_blocks

struct Args {
    rows: u32, cols: u32, stream: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32
}

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>; // (rows, cols)
@group(0) @binding(2) var<storage, read> ctl: array<f32>; // (4): factor, skip, ...
@group(0) @binding(3) var<storage, read> step: array<f32>; // (6): learning-rate factor, bias corrections, ..., key
@group(0) @binding(4) var<storage, read_write> w: array<vec4<f32>>; // (rows, cols)
@group(0) @binding(5) var<storage, read_write> m: array<u32>; // (rows, cols), four codes in a word
@group(0) @binding(6) var<storage, read_write> m_scales: array<f32>; // (rows, ceil(cols / 64))
@group(0) @binding(7) var<storage, read_write> v: array<u32>; // (rows, cols), four codes in a word
@group(0) @binding(8) var<storage, read_write> v_scales: array<f32>; // (rows, ceil(cols / 64))

fn group(i: u32, lane: u32) {
    if ctl[1] != 0.0 {
        return;
    }
    let p = place(i, lane);
    let quad = p.at / 4u;
    var moved: Moved;
    var mean: vec4<f32>;
    var old_root: vec4<f32>;
    if p.there {
        mean = decode(m[quad], m_scales[p.scale]);
        old_root = decode_roots(v[quad], v_scales[p.scale]);
        moved = adamw(g[quad], w[quad], mean, old_root * old_root);
    }
    let root = sqrt(moved.second);
    let size = largest(lane, vec2<f32>(size_of(moved.first), size_of(root)));
    let scales = vec2<f32>(scale_of(size.x, 127.0), scale_of(size.y, 255.0));
    if p.there {
        let bits = noise(p.at);
        w[quad] = moved.weight;
        m[quad] = encode(moved.first, mean, scales.x, first(bits));
        v[quad] = encode_roots(root, old_root, scales.y, second(bits));
    }
    if p.head {
        m_scales[p.scale] = scales.x;
        v_scales[p.scale] = scales.y;
    }
}
