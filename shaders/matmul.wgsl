// f32 matrix product: d = alpha * a b + beta * d, for each matrix of a batch. a is (m, k), or (k, m) when transposed; b is
// (k, n), or (n, k) when transposed; offsets count elements. With beta = 0, d is not read. When the result is `symmetric`,
// tiles below the diagonal are mirrored, not computed. `fast`: a and b are rounded to the 11 significant bits of f16.

//#import gemm
//#import gemm_passes
//#import results
//#import words FACTOR=a
//#import words FACTOR=b
//#import block FACTOR=a
//#import block FACTOR=b
//#import product

@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>; // (batch, k, n) or (batch, n, k) from b_offset

fn values_b(block: Block) -> Values {
    return floats(block);
}

fn b_value(i: u32) -> f32 {
    return bitcast<f32>(b_element(i));
}
