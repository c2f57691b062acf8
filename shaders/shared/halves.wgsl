// The two f16 values of a word as f32. By integers: WGSL allows `unpack2x16float` to make values below 2^-14 zero. All values are
// finite.
fn halves(word: u32) -> vec2<f32> {
    let bits = vec2<u32>(word, word >> 16u);
    let size = bitcast<vec2<f32>>(((bits & vec2<u32>(0x7fffu)) << vec2<u32>(13u)) + vec2<u32>(0x38000000u));
    // Below 2^-14 an f16 has no leading 1, which this takes away again: the second term is the smaller one there alone.
    let value = min(size, 2.0 * size - 0x1p-14f);
    return bitcast<vec2<f32>>(bitcast<vec2<u32>>(value) | ((bits & vec2<u32>(0x8000u)) << vec2<u32>(16u)));
}
