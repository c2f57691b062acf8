// Tiles of 64 x 64 scores, and their products, for 256 threads. A workgroup owns 64 rows of one head and walks 64 rows of
// the other side at a time: a score belongs to a walked row and an owned one. A thread holds 4 x 4 values of a tile. The op
// that imports this has positions, args.seq and args.head_dim (a multiple of 4), and defines
//   four(owned, second, at: vec4<u32>) -> Tile: four vec4 of the owned or the walked rows, of the first or the second factor
//   one(second, at: u32) -> vec4: one vec4 of the walked rows
//   put(second, at: u32, value: vec4): one vec4 of the first or the second result, a row for each owned one

const LOG2_E: f32 = 1.4426950408889634;

// 32 of a product's inner dimension: (32, 64 rows / 4) of the left factor, then (32, 64 columns / 4) of the right one
var<workgroup> factors: array<array<vec4<f32>, 16>, 64>;

// Rows 4 y to 4 y + 3 and columns 4 x to 4 x + 3 of a tile, for the thread at (x, y).
struct Tile { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32> }

// The first of 64 rows of a head in memory: row `first` is at `head` + first * stride, counted in vec4.
struct Rows { head: u32, stride: u32, first: u32 }

// The first row that row t of a sequence sees.
fn start(sequence: u32, t: u32) -> u32 {
    return t - min(t, positions[sequence + min(t, args.seq - 1u)]);
}

// Where a thread's values lie in a tile. 32 consecutive threads are 8 x 4, so that they read few different vec4.
fn place(lane: u32) -> vec2<u32> {
    return vec2<u32>(lane % 8u + lane / 32u % 2u * 8u, lane / 8u % 4u + lane / 64u * 4u);
}

fn transposed(t: Tile) -> Tile {
    return Tile(
        vec4<f32>(t.r0.x, t.r1.x, t.r2.x, t.r3.x), vec4<f32>(t.r0.y, t.r1.y, t.r2.y, t.r3.y),
        vec4<f32>(t.r0.z, t.r1.z, t.r2.z, t.r3.z), vec4<f32>(t.r0.w, t.r1.w, t.r2.w, t.r3.w),
    );
}

fn times(t: Tile, factor: vec4<f32>) -> Tile {
    return Tile(t.r0 * factor, t.r1 * factor, t.r2 * factor, t.r3 * factor);
}

// sum + left * right, over the 32 of the inner dimension that are in workgroup memory.
fn multiply(sum: Tile, at: vec2<u32>) -> Tile {
    var c = sum;
    for (var k = 0u; k < 32u; k += 16u) {
        // Sixteen steps, so that compilers unroll them.
        for (var i = 0u; i < 16u; i++) {
            let a = factors[k + i][at.y];
            let b = factors[32u + k + i][at.x];
            c.r0 += a.x * b;
            c.r1 += a.y * b;
            c.r2 += a.z * b;
            c.r3 += a.w * b;
        }
    }
    return c;
}

// The products of walked (rows of the tile) and owned rows (columns), over head_dim.
fn scores(lane: u32, second: bool, walked: Rows, owned: Rows) -> Tile {
    let dim = args.head_dim / 4u;
    let mine = lane >= 128u;
    // This thread loads four rows of one vec4.
    let c = lane / 16u % 8u;
    let row = select(walked.first, owned.first, mine) + lane % 16u * 4u;
    let rows = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(args.seq - 1u));
    let source = select(walked.head, owned.head, mine) + c + rows * select(walked.stride, owned.stride, mine);
    let to = lane / 128u * 32u + c * 4u;
    var sum = Tile();
    for (var chunk = 0u; chunk < dim; chunk += 8u) {
        var block = Tile();
        if chunk + c < dim {
            block = transposed(four(mine, second, source + chunk));
        }
        factors[to][lane % 16u] = block.r0;
        factors[to + 1u][lane % 16u] = block.r1;
        factors[to + 2u][lane % 16u] = block.r2;
        factors[to + 3u][lane % 16u] = block.r3;
        workgroupBarrier();
        sum = multiply(sum, place(lane));
        workgroupBarrier();
    }
    return sum;
}

// sum + (64 elements of head_dim from 64 * part, walked rows) * weights (walked, owned rows): the sums of walked rows that the
// owned ones weigh, transposed.
fn weighted(sum: Tile, weights: Tile, lane: u32, second: bool, walked: Rows, part: u32) -> Tile {
    let at = place(lane);
    var c = sum;
    for (var half = 0u; half < 2u; half++) {
        if at.y / 8u == half {
            let to = 32u + at.y % 8u * 4u;
            factors[to][at.x] = weights.r0;
            factors[to + 1u][at.x] = weights.r1;
            factors[to + 2u][at.x] = weights.r2;
            factors[to + 3u][at.x] = weights.r3;
        }
        // This thread loads one vec4 of two rows.
        let element = part * 16u + lane % 16u;
        let row = walked.first + half * 32u + lane / 16u;
        var upper = vec4<f32>();
        var lower = vec4<f32>();
        if element < args.head_dim / 4u {
            let rows = min(vec2<u32>(row, row + 16u), vec2<u32>(args.seq - 1u));
            let source = walked.head + element + rows * walked.stride;
            upper = one(second, source.x);
            lower = one(second, source.y);
        }
        factors[lane / 16u][lane % 16u] = upper;
        factors[lane / 16u + 16u][lane % 16u] = lower;
        workgroupBarrier();
        c = multiply(c, at);
        workgroupBarrier();
    }
    return c;
}

// Stores what `weighted` summed up.
fn store(sum: Tile, lane: u32, second: bool, owned: Rows, part: u32) {
    let at = place(lane);
    let element = part * 16u + at.y;
    if element >= args.head_dim / 4u {
        return;
    }
    let t = transposed(sum);
    let row = owned.first + at.x * 4u;
    let to = owned.head + row * owned.stride + element;
    if row < args.seq { put(second, to, t.r0); }
    if row + 1u < args.seq { put(second, to + owned.stride, t.r1); }
    if row + 2u < args.seq { put(second, to + 2u * owned.stride, t.r2); }
    if row + 3u < args.seq { put(second, to + 3u * owned.stride, t.r3); }
}
