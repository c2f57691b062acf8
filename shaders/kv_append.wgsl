// Stores keys or values in a cache, at slots[r] and positions[r] for row r; a slot or a position beyond
// the cache, such as a slot of 0xffffffff, stores nothing.
//
// Values are (slots, kv_heads, context, head_dim). Keys are `transposed`, (slots, kv_heads, context / 64, head_dim, 64) with
// context rounded up: attention reads both in the order of memory.

//#import elements

struct Args { rows: u32, kv_heads: u32, head_dim: u32, context: u32, transposed: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, kv_heads, head_dim)
@group(0) @binding(2) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read> slots: array<u32>; // (rows)
@group(0) @binding(4) var<storage, read_write> cache: array<f32>;

fn element(i: u32) {
    let width = args.kv_heads * args.head_dim;
    if i >= args.rows * width {
        return;
    }
    let r = i / width;
    let position = positions[r];
    let panels = (args.context + 63u) / 64u;
    // 16 floats of padding are behind the last slot.
    let slot_len = width * select(args.context, panels * 64u, args.transposed != 0u);
    if slots[r] >= (max(arrayLength(&cache), 16u) - 16u) / slot_len || position >= args.context {
        return;
    }
    let head = slots[r] * args.kv_heads + i % width / args.head_dim;
    let d = i % args.head_dim;
    var at = (head * args.context + position) * args.head_dim + d;
    if args.transposed != 0u {
        let panel = head * panels + position / 64u;
        at = (panel * args.head_dim + d) * 64u + position % 64u;
    }
    cache[at] = x[i];
}
