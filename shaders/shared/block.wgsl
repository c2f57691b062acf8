// Reads a matrix of `size` rows and columns that begins at element `start` of the buffer FACTOR. `words` defines these for f32;
// an op may define them otherwise:
//   FACTOR_elements(i, n) -> vec4<u32>: what holds the first `n` elements from `i` of four, and zeros
//   FACTOR_vec4(i) -> vec4<u32>: what holds four elements from `i`, a multiple of 4

// Rows row..row + 4, columns col..col + 4; zero outside the matrix.
fn FACTOR_block(start: u32, row: u32, col: u32, size: vec2<u32>) -> Block {
    var block: Block;
    let i = start + row * size.y + col;
    let i1 = i + size.y;
    let i2 = i1 + size.y;
    let i3 = i2 + size.y;
    if row + 4u > size.x || col + 4u > size.y {
        let n = max(size.y, col) - col;
        block.x = FACTOR_elements(i, select(0u, n, row < size.x));
        block.y = FACTOR_elements(i1, select(0u, n, row + 1u < size.x));
        block.z = FACTOR_elements(i2, select(0u, n, row + 2u < size.x));
        block.w = FACTOR_elements(i3, select(0u, n, row + 3u < size.x));
    } else if size.y % 4u == 0u && start % 4u == 0u {
        block.x = FACTOR_vec4(i);
        block.y = FACTOR_vec4(i1);
        block.z = FACTOR_vec4(i2);
        block.w = FACTOR_vec4(i3);
    } else {
        block.x = FACTOR_elements(i, 4u);
        block.y = FACTOR_elements(i1, 4u);
        block.z = FACTOR_elements(i2, 4u);
        block.w = FACTOR_elements(i3, 4u);
    }
    return block;
}
