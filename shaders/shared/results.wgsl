// Where the results of a product go, and which tiles are mirrored instead of computed. The op that imports this has m, n and
// symmetric in its `args`, and defines
//   store_at(i, value): element i of all results

// The first element of this workgroup's results.
var<private> d_start: u32;
// Whether this tile is also written as its mirror image.
var<private> mirrored: bool;

fn store_one(row: u32, col: u32, value: f32) {
    if col >= args.n {
        return;
    }
    store_at(d_start + row * args.n + col, value);
    if mirrored {
        store_at(d_start + col * args.n + row, value);
    }
}

fn store(row: u32, col: u32, value: vec4<f32>) {
    if row >= args.m {
        return;
    }
    store_one(row, col, value.x);
    store_one(row, col + 1u, value.y);
    store_one(row, col + 2u, value.z);
    store_one(row, col + 3u, value.w);
}

// Whether this workgroup's tile is computed, not mirrored.
fn is_computed(wid: vec3<u32>) -> bool {
    mirrored = args.symmetric != 0u && wid.y < wid.x;
    return args.symmetric == 0u || wid.y <= wid.x;
}
