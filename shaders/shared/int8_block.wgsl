// The factors of the gradient of a ternary matrix, see `gemm`: dy, transposed, and int8 rows times their steps. The op that
// imports this has dy, xq, step, args.outs, args.dim and args.fast, and defines
//   rows() -> vec3<u32>: how many rows there are, the first of dy, and the first of xq and step
//   last() -> u32: the last row of xq and step

// Whether the steps are multiplied into `dy`, so that the other factor is the codes alone.
fn folded() -> bool {
    return MATRICES | (args.fast != 0u);
}

// Four rows of `xq` and `step`. Beyond the last row it is that one, for which `dy` is zero.
fn rows_from(row: u32) -> vec4<u32> {
    let span = rows();
    let some = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(max(span.x, 1u) - 1u));
    return min(span.z + some, vec4<u32>(last()));
}

fn times(a: vec4<u32>, step: f32) -> vec4<u32> {
    return bitcast<vec4<u32>>(bitcast<vec4<f32>>(a) * step);
}

fn load_a(row: u32, col: u32) -> Block {
    let span = rows();
    let block = dy_block(span.y * args.outs, row, col, vec2<u32>(span.x, args.outs));
    if !folded() {
        return block;
    }
    let r = rows_from(row);
    return Block(
        times(block.x, step[r.x]), times(block.y, step[r.y]), times(block.z, step[r.z]), times(block.w, step[r.w]),
    );
}

fn values_a(block: Block) -> Values {
    return floats(block);
}

// Four words of inputs and four steps.
fn load_b(row: u32, col: u32) -> Block {
    let r = rows_from(row);
    let word = (r * args.dim + min(col, args.dim - 1u)) / 4u;
    var block: Block;
    block.x = vec4<u32>(xq[word.x], xq[word.y], xq[word.z], xq[word.w]);
    block.y = bitcast<vec4<u32>>(vec4<f32>(1.0));
    if !folded() {
        block.y = bitcast<vec4<u32>>(vec4<f32>(step[r.x], step[r.y], step[r.z], step[r.w]));
    }
    return block;
}

fn values_b(block: Block) -> Values {
    let step = bitcast<vec4<f32>>(block.y);
    return Values(
        step.x * vec4<f32>(unpack4xI8(block.x.x)), step.y * vec4<f32>(unpack4xI8(block.x.y)),
        step.z * vec4<f32>(unpack4xI8(block.x.z)), step.w * vec4<f32>(unpack4xI8(block.x.w)),
    );
}
