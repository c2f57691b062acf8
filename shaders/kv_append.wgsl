// Stores keys or values in the pages of sequences: row r is at positions[r] of the sequence in slots[r], whose pages are in that
// row of the table, 64 positions each. A slot or a position beyond the table and a page beyond the cache, such as 0xffffffff,
// store nothing.
//
// Values are (pages, kv_heads, 64, head_dim). Keys are `transposed`, (pages, kv_heads, head_dim, 64): attention reads both in the
// order of memory.

//#import elements

struct Args { rows: u32, kv_heads: u32, head_dim: u32, slot_pages: u32, transposed: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, kv_heads, head_dim)
@group(0) @binding(2) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read> slots: array<u32>; // (rows)
@group(0) @binding(4) var<storage, read> pages: array<u32>; // (slots, slot_pages)
@group(0) @binding(5) var<storage, read_write> cache: array<f32>;

fn element(i: u32) {
    let width = args.kv_heads * args.head_dim;
    if i >= args.rows * width {
        return;
    }
    let r = i / width;
    let slot = slots[r];
    let listed = positions[r] / 64u;
    if slot >= arrayLength(&pages) / args.slot_pages || listed >= args.slot_pages {
        return;
    }
    let page = pages[slot * args.slot_pages + listed];
    // 16 floats of padding are behind the last page.
    if page >= (max(arrayLength(&cache), 16u) - 16u) / (width * 64u) {
        return;
    }
    let head = (page * args.kv_heads + i % width / args.head_dim) * args.head_dim * 64u;
    let place = positions[r] % 64u;
    let d = i % args.head_dim;
    cache[head + select(place * args.head_dim + d, d * 64u + place, args.transposed != 0u)] = x[i];
}
