// Optimizer state in bf16, the upper half of an f32: two values in a word.

fn widen(words: vec2<u32>) -> vec4<f32> {
    let low = words << vec2<u32>(16u);
    let high = words & vec2<u32>(0xffff0000u);
    return bitcast<vec4<f32>>(vec4<u32>(low.x, high.x, low.y, high.y));
}

// Rounded to a neighbour at random, by 16 random bits for each: the mean is the value.
fn narrow(value: vec4<f32>, noise: vec4<u32>) -> vec2<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let finite = (bits & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
    let rounded = select(bits, bits + noise, finite);
    return (rounded.xz >> vec2<u32>(16u)) | (rounded.yw & vec2<u32>(0xffff0000u));
}
