// `matmul` with a right factor of f16 values, two in a word. Widening them is exact, so the bits are those of the product with
// the same values as f32.

//#import gemm
//#import gemm_passes
//#import results
//#import words FACTOR=a
//#import block FACTOR=a
//#import block FACTOR=b
//#import product
//#import halves

@group(0) @binding(2) var<storage, read> b: array<vec2<u32>>; // (batch, k, n) or (batch, n, k) from b_offset

// The bits of an element.
fn b_element(i: u32) -> u32 {
    return (b[i / 4u][i / 2u % 2u] >> (i % 2u * 16u)) & 0xffffu;
}

// A row of a block is two words, of the first `n` elements from `i`, and zeros.
fn b_elements(i: u32, n: u32) -> vec4<u32> {
    var words: vec4<u32>;
    if n > 0u { words.x = b_element(i); }
    if n > 1u { words.x |= b_element(i + 1u) << 16u; }
    if n > 2u { words.y = b_element(i + 2u); }
    if n > 3u { words.y |= b_element(i + 3u) << 16u; }
    return words;
}

fn b_vec4(i: u32) -> vec4<u32> {
    return vec4<u32>(b[i / 4u], 0u, 0u);
}

fn four(row: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(halves(row.x), halves(row.y));
}

fn values_b(block: Block) -> Values {
    return Values(four(block.x), four(block.y), four(block.z), four(block.w));
}

fn b_value(i: u32) -> f32 {
    return halves(b_element(i)).x;
}
