// Optimizer state in 8 bits: four codes in a word, and an f32 scale for each block of 64 values of a row. A momentum is code *
// scale with codes within +-127, a second moment (code * scale)^2 with codes from 1 to 255.
//
// 16 neighbouring threads hold a block, four values each; a thread may hold a part of two blocks.

var<workgroup> sizes: array<vec2<f32>, THREADS>;

// The largest sizes in the two blocks of a thread. Call once, in uniform control flow.
fn largest(lane: u32, size: vec2<f32>) -> vec2<f32> {
    sizes[lane] = size;
    workgroupBarrier();
    var most = vec2<f32>();
    for (var i = lane / 16u * 16u; i < lane / 16u * 16u + 16u; i++) {
        most = max(most, sizes[i]);
    }
    return most;
}

// The largest absolute value of four. One that is not finite counts as the largest float: by its bits, since compilers may assume
// that floats are finite.
fn size_of(value: vec4<f32>) -> f32 {
    let wrong = (bitcast<vec4<u32>>(value) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
    let sizes = select(abs(value), vec4<f32>(0x1.fffffep+127f), wrong);
    return max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
}

// The scale of a block of which the largest value has code `most`: 0 where all are 0 or nearly so, NaN where one is not finite.
fn scale_of(size: f32, most: f32) -> f32 {
    let scale = select(0.0, size / most, size >= 1e-30);
    return bitcast<f32>(select(bitcast<u32>(scale), 0x7fc00000u, size == 0x1.fffffep+127f));
}

// value / scale, rounded to a neighbour at random, by 16 random bits for each: the mean is the value. Where it changed by more
// than the scale from `old`, to the nearest: that has half of the variance, and the gradients are noise enough. 0 where the scale
// is 0 or NaN.
fn codes(value: vec4<f32>, old: vec4<f32>, scale: f32, random: vec4<u32>) -> vec4<f32> {
    let noise = select(random, vec4<u32>(0x8000u), abs(value - old) > vec4<f32>(scale));
    let scaled = select(vec4<f32>(), value / scale, vec4<bool>(bitcast<u32>(scale) - 1u < 0x7f7fffffu));
    return floor(scaled + vec4<f32>(noise) / 65536.0);
}

fn word(codes: vec4<u32>) -> u32 {
    let bytes = codes & vec4<u32>(0xffu);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}

fn decode(word: u32, scale: f32) -> vec4<f32> {
    let codes = bitcast<vec4<i32>>(vec4<u32>(word << 24u, word << 16u, word << 8u, word)) >> vec4<u32>(24u);
    return vec4<f32>(codes) * scale;
}

fn encode(value: vec4<f32>, old: vec4<f32>, scale: f32, noise: vec4<u32>) -> u32 {
    let rounded = clamp(codes(value, old, scale, noise), vec4<f32>(-127.0), vec4<f32>(127.0));
    return word(bitcast<vec4<u32>>(vec4<i32>(rounded)));
}

fn decode_roots(word: u32, scale: f32) -> vec4<f32> {
    let codes = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
    return vec4<f32>(codes) * scale;
}

fn encode_roots(root: vec4<f32>, old: vec4<f32>, scale: f32, noise: vec4<u32>) -> u32 {
    return word(vec4<u32>(clamp(codes(root, old, scale, noise), vec4<f32>(1.0), vec4<f32>(255.0))));
}
