// Matrix products (m, k) x (k, n) in square tiles; `gemm_passes` are their passes, and `gemm_tile` has the functions for tiles
// of one size. A thread holds 8 x 8 results. A step takes 16 of k through workgroup memory, while the next 16 are on their way
// from the buffers to registers.
// Several workgroups may share a tile: each sums up a part of k and stores it in `scratch`, and a second pass adds the parts
// in order. The op that imports this defines
//   problem(wid) -> Problem: the shape
//   load_a(row, col) -> Block: what holds the 4 x 4 values of the left factor, as it lies in memory, from there on
//   load_b(row, col) -> Block: the same of the right factor
//   values_a(Block) -> Values, values_b(Block) -> Values: these values, computed when they have arrived. Those outside are
//     zero along k in one factor and finite in the other; they do not matter along m and n.
//   begin(wid, groups) -> bool: finds this workgroup's matrices; whether its tile is computed, not mirrored
//   store(row, col, value): the results at columns col..col + 4 of a row, which may lie outside of the matrix

struct Problem {
    m: u32, n: u32, k: u32, batch: u32,
    // whether neighbours along k are neighbours in memory
    a_along_k: bool, b_along_k: bool,
    // whether factors of f32 are rounded to the 11 significant bits of f16, and whether the right factor has no more anyway
    fast: bool, b_short: bool,
}

// Sixteen words from memory.
struct Block { x: vec4<u32>, y: vec4<u32>, z: vec4<u32>, w: vec4<u32> }

// Four rows of four.
struct Values { x: vec4<f32>, y: vec4<f32>, z: vec4<f32>, w: vec4<f32> }

// A workgroup's place in a product.
struct Place {
    // The matrix of the batch, which part of k, and how many parts there are.
    matrix: u32, part: u32, parts: u32,
    // First element of the tile's partial results in `scratch`, and the distance to those of the next part, in vec4 a thread.
    slot: u32, next: u32,
}

fn place(wid: vec3<u32>, groups: vec3<u32>) -> Place {
    let parts = groups.z / problem(wid).batch;
    let next = groups.x * groups.y;
    let matrix = wid.z / parts;
    return Place(matrix, wid.z % parts, parts, (matrix * parts * groups.y + wid.y) * groups.x + wid.x, next);
}

// The results of this thread: vec4 2 i and 2 i + 1 are columns 0..4 and those half a tile further of the i-th row.
var<private> acc: array<vec4<f32>, 16>;

fn outer(a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>) {
    acc[0] += a0.x * b0; acc[1] += a0.x * b1;
    acc[2] += a0.y * b0; acc[3] += a0.y * b1;
    acc[4] += a0.z * b0; acc[5] += a0.z * b1;
    acc[6] += a0.w * b0; acc[7] += a0.w * b1;
    acc[8] += a1.x * b0; acc[9] += a1.x * b1;
    acc[10] += a1.y * b0; acc[11] += a1.y * b1;
    acc[12] += a1.z * b0; acc[13] += a1.z * b1;
    acc[14] += a1.w * b0; acc[15] += a1.w * b1;
}

fn floats(a: Block) -> Values {
    return Values(bitcast<vec4<f32>>(a.x), bitcast<vec4<f32>>(a.y), bitcast<vec4<f32>>(a.z), bitcast<vec4<f32>>(a.w));
}

// Rounded to 11 significant bits, at any exponent; ties go to even ones.
fn short(value: vec4<f32>) -> vec4<f32> {
    let a = bitcast<vec4<u32>>(value);
    let nearest = (a + 0xfffu + ((a >> vec4<u32>(13u)) & vec4<u32>(1u))) & vec4<u32>(0xffffe000u);
    let finite = (a & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
    return bitcast<vec4<f32>>(select(a, nearest, finite));
}

fn transposed(a: Values) -> Values {
    return Values(
        vec4<f32>(a.x.x, a.y.x, a.z.x, a.w.x), vec4<f32>(a.x.y, a.y.y, a.z.y, a.w.y),
        vec4<f32>(a.x.z, a.y.z, a.z.z, a.w.z), vec4<f32>(a.x.w, a.y.w, a.z.w, a.w.w),
    );
}
