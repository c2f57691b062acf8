// The ternary factor of a gradient's product, see `gemm`. The op that imports this has codes, scales, args.outs, args.dim and
// args.group.

// Rows row..row + 4 and columns col..col + 4 of the matrix that begins at row `first` of the codes. Four columns from a multiple
// of four lie in one word. The block holds four of these words, four scales, and where in the words the codes are. Beyond the
// last row it repeats that one, for which the other factor is zero.
fn ternary_block(first: u32, row: u32, col: u32) -> Block {
    let out = first + min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(args.outs - 1u));
    let c = min(col, args.dim - 1u);
    let word = out * ((args.dim + 127u) / 128u * 8u) + c / 128u * 8u + c % 32u / 4u;
    let scale = out * (args.dim / args.group) + c / args.group;
    var block: Block;
    block.x = vec4<u32>(codes[word.x], codes[word.y], codes[word.z], codes[word.w]);
    block.y = bitcast<vec4<u32>>(vec4<f32>(scales[scale.x], scales[scale.y], scales[scale.z], scales[scale.w]));
    block.z = vec4<u32>(c % 128u / 32u * 2u);
    return block;
}

fn weights(word: u32, scale: f32) -> vec4<f32> {
    return scale * (vec4<f32>(unpack4xU8(word & 0x03030303u)) - 1.0);
}

fn ternary_values(block: Block) -> Values {
    let word = block.x >> block.z;
    let scale = bitcast<vec4<f32>>(block.y);
    return Values(
        weights(word.x, scale.x), weights(word.y, scale.y), weights(word.z, scale.z), weights(word.w, scale.w),
    );
}
