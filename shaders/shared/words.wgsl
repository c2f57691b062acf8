// Reads the f32 buffer FACTOR, for `block`.

fn FACTOR_element(i: u32) -> u32 {
    return bitcast<u32>(FACTOR[i / 4u][i % 4u]);
}

// The first `n` elements from `i`, and zeros.
fn FACTOR_elements(i: u32, n: u32) -> vec4<u32> {
    var words: vec4<u32>;
    if n > 0u { words.x = FACTOR_element(i); }
    if n > 1u { words.y = FACTOR_element(i + 1u); }
    if n > 2u { words.z = FACTOR_element(i + 2u); }
    if n > 3u { words.w = FACTOR_element(i + 3u); }
    return words;
}

fn FACTOR_vec4(i: u32) -> vec4<u32> {
    return bitcast<vec4<u32>>(FACTOR[i / 4u]);
}
