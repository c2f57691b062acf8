// Tiles of SIDE x SIDE for SIDE * SIDE / 64 threads; see `gemm`. A step takes SIDE / 8 of k, so that each thread loads one
// block: the first half of the threads those of the left factor, the others those of the right one.

// (SIDE / 8 of k, SIDE rows or columns as vec4). The vec4 of a row are exchanged, by an exclusive or below 8 that differs from
// two of k to the next, so that threads that store blocks side by side along k hit different banks.
var<workgroup> a_tile_SIDE: array<vec4<f32>, SIDE * SIDE / 32>;
var<workgroup> b_tile_SIDE: array<vec4<f32>, SIDE * SIDE / 32>;

// The block of a thread in a step, as its number along the tile's side and along k.
fn block_SIDE(lane: u32, along_k: bool) -> vec2<u32> {
    let i = lane % (SIDEu * SIDEu / 128u);
    return select(vec2<u32>(i % (SIDEu / 4u), i / (SIDEu / 4u)), vec2<u32>(i / (SIDEu / 32u), i % (SIDEu / 32u)), along_k);
}

fn take_SIDE(lane: u32, row: u32, col: u32, k: u32, p: Problem) -> Block {
    var block: Block;
    if lane < SIDEu * SIDEu / 128u {
        let at = vec2<u32>(row, k) + 4u * block_SIDE(lane, p.a_along_k);
        if p.a_along_k { block = load_a(at.x, at.y); } else { block = load_a(at.y, at.x); }
    } else {
        let at = vec2<u32>(col, k) + 4u * block_SIDE(lane, p.b_along_k);
        if p.b_along_k { block = load_b(at.x, at.y); } else { block = load_b(at.y, at.x); }
    }
    return block;
}

// Where a vec4 of a row lies for the first of the `pair`-th two of k; for the second it is a row further.
fn spot_SIDE(vec4_of_row: u32, pair: u32) -> u32 {
    return (pair * (SIDEu / 2u)) | (vec4_of_row ^ (pair * (128u / SIDEu)));
}

// Fast products have large tiles, because small ones have no registers left for rounding.
fn put_SIDE(lane: u32, block: Block, p: Problem) {
    if lane < SIDEu * SIDEu / 128u {
        let at = block_SIDE(lane, p.a_along_k);
        var rows = values_a(block);
        if p.a_along_k { rows = transposed(rows); }
        let i = spot_SIDE(at.x, 2u * at.y);
        let h = spot_SIDE(at.x, 2u * at.y + 1u);
        a_tile_SIDE[i] = rows.x;
        a_tile_SIDE[i + SIDEu / 4u] = rows.y;
        a_tile_SIDE[h] = rows.z;
        a_tile_SIDE[h + SIDEu / 4u] = rows.w;
        if SIDEu == 128u && p.fast {
            a_tile_SIDE[i] = short(a_tile_SIDE[i]);
            a_tile_SIDE[i + SIDEu / 4u] = short(a_tile_SIDE[i + SIDEu / 4u]);
            a_tile_SIDE[h] = short(a_tile_SIDE[h]);
            a_tile_SIDE[h + SIDEu / 4u] = short(a_tile_SIDE[h + SIDEu / 4u]);
        }
    } else {
        let at = block_SIDE(lane, p.b_along_k);
        var rows = values_b(block);
        if p.b_along_k { rows = transposed(rows); }
        let i = spot_SIDE(at.x, 2u * at.y);
        let h = spot_SIDE(at.x, 2u * at.y + 1u);
        b_tile_SIDE[i] = rows.x;
        b_tile_SIDE[i + SIDEu / 4u] = rows.y;
        b_tile_SIDE[h] = rows.z;
        b_tile_SIDE[h + SIDEu / 4u] = rows.w;
        if SIDEu == 128u && p.fast && !p.b_short {
            b_tile_SIDE[i] = short(b_tile_SIDE[i]);
            b_tile_SIDE[i + SIDEu / 4u] = short(b_tile_SIDE[i + SIDEu / 4u]);
            b_tile_SIDE[h] = short(b_tile_SIDE[h]);
            b_tile_SIDE[h + SIDEu / 4u] = short(b_tile_SIDE[h + SIDEu / 4u]);
        }
    }
}

// Which vec4 of a tile's rows and columns this thread has; a warp of 32 covers 4 x 8 of them.
fn corner_SIDE(lane: u32) -> vec2<u32> {
    let warp = lane / 32u;
    let corner = vec2<u32>(lane / 8u % 4u + warp / (SIDEu / 64u) * 4u, lane % 8u + warp % (SIDEu / 64u) * 8u);
    return corner % (SIDEu / 8u);
}

fn store_SIDE(wid: vec3<u32>, lane: u32, i: u32, value: vec4<f32>) {
    let at = vec2<u32>(wid.y, wid.x) * SIDEu + 4u * corner_SIDE(lane);
    store(at.x + i / 2u % 4u + i / 8u * (SIDEu / 2u), at.y + i % 2u * (SIDEu / 2u), value);
}

// Adds the product for one of k; `i` and `h` are where it lies in the tiles.
fn outer_SIDE(i: u32, h: u32) {
    outer(a_tile_SIDE[i], a_tile_SIDE[i + SIDEu / 8u], b_tile_SIDE[h], b_tile_SIDE[h + SIDEu / 8u]);
}

// Sums up this workgroup's part of k, and stores the results if there is one part only.
fn multiply_SIDE(wid: vec3<u32>, groups: vec3<u32>, lane: u32) {
    let p = problem(wid);
    let at = place(wid, groups);
    let row = wid.y * SIDEu;
    let col = wid.x * SIDEu;
    let step = SIDEu / 8u;
    let range = (p.k + step * at.parts - 1u) / (step * at.parts) * step;
    let end = min((at.part + 1u) * range, p.k);
    let corner = corner_SIDE(lane);
    var block = take_SIDE(lane, row, col, at.part * range, p);
    for (var k = at.part * range; k < end; k += step) {
        workgroupBarrier();
        put_SIDE(lane, block, p);
        workgroupBarrier();
        block = take_SIDE(lane, row, col, k + step, p);
        for (var pair = 0u; pair < SIDEu / 16u; pair++) {
            // The minimum tells compilers that no index wraps, so that they add constants to it in the instruction that loads.
            let i = min(spot_SIDE(corner.x, pair), SIDEu * 4u);
            let h = min(spot_SIDE(corner.y, pair), SIDEu * 4u);
            outer_SIDE(i, h);
            outer_SIDE(i + SIDEu / 4u, h + SIDEu / 4u);
        }
    }
    if at.parts == 1u {
        store_SIDE(wid, lane, 0u, acc[0]); store_SIDE(wid, lane, 1u, acc[1]);
        store_SIDE(wid, lane, 2u, acc[2]); store_SIDE(wid, lane, 3u, acc[3]);
        store_SIDE(wid, lane, 4u, acc[4]); store_SIDE(wid, lane, 5u, acc[5]);
        store_SIDE(wid, lane, 6u, acc[6]); store_SIDE(wid, lane, 7u, acc[7]);
        store_SIDE(wid, lane, 8u, acc[8]); store_SIDE(wid, lane, 9u, acc[9]);
        store_SIDE(wid, lane, 10u, acc[10]); store_SIDE(wid, lane, 11u, acc[11]);
        store_SIDE(wid, lane, 12u, acc[12]); store_SIDE(wid, lane, 13u, acc[13]);
        store_SIDE(wid, lane, 14u, acc[14]); store_SIDE(wid, lane, 15u, acc[15]);
    } else {
        let next = SIDEu * SIDEu / 64u;
        let i = (at.slot + at.part * at.next) * 16u * next + lane;
        scratch[i] = acc[0]; scratch[i + next] = acc[1];
        scratch[i + 2u * next] = acc[2]; scratch[i + 3u * next] = acc[3];
        scratch[i + 4u * next] = acc[4]; scratch[i + 5u * next] = acc[5];
        scratch[i + 6u * next] = acc[6]; scratch[i + 7u * next] = acc[7];
        scratch[i + 8u * next] = acc[8]; scratch[i + 9u * next] = acc[9];
        scratch[i + 10u * next] = acc[10]; scratch[i + 11u * next] = acc[11];
        scratch[i + 12u * next] = acc[12]; scratch[i + 13u * next] = acc[13];
        scratch[i + 14u * next] = acc[14]; scratch[i + 15u * next] = acc[15];
    }
}

// Adds up the parts of a tile. Each workgroup that summed up a part does a share of the tile.
fn finish_SIDE(wid: vec3<u32>, groups: vec3<u32>, lane: u32) {
    let at = place(wid, groups);
    let next = SIDEu * SIDEu / 64u;
    for (var i = at.part; i < 16u; i += at.parts) {
        var sum = vec4<f32>();
        for (var part = 0u; part < at.parts; part++) {
            sum += scratch[((at.slot + part * at.next) * 16u + i) * next + lane];
        }
        store_SIDE(wid, lane, i, sum);
    }
}
