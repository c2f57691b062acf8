// Attention over blocks of keys. `scratch` holds, for each row, the number of its blocks, then for each head of each row and
// each block the largest score, the sum of weights and the sum of weighted values: (rows), (rows, heads, blocks, 2 + dim).

const PART = 256u; // keys of a block

// Where the words of a block are, for head `group` of all rows.
fn part_at(rows: u32, dim: u32, blocks: u32, group: u32, block: u32) -> u32 {
    return rows + (group * blocks + block) * (2u + dim);
}

// The largest score of `count` blocks from `first` on, and 1 / the sum of their weights.
fn whole_of(first: u32, count: u32, dim: u32) -> vec2<f32> {
    var top = -1e30;
    for (var b = 0u; b < count; b++) {
        top = max(top, scratch[first + b * (2u + dim)]);
    }
    var total = 0.0;
    for (var b = 0u; b < count; b++) {
        let at = first + b * (2u + dim);
        total += scratch[at + 1u] * exp(scratch[at] - top);
    }
    return vec2<f32>(top, select(0.0, 1.0 / total, count > 0u));
}

// Element c of a head's result.
fn element_of(first: u32, count: u32, dim: u32, whole: vec2<f32>, c: u32) -> f32 {
    var sum = 0.0;
    for (var b = 0u; b < count; b++) {
        let at = first + b * (2u + dim);
        sum += scratch[at + 2u + c] * exp(scratch[at] - whole.x);
    }
    return sum * whole.y;
}
