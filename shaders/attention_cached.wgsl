// `attention` of rows that belong to several sequences, over cached keys and values: row r is at positions[r] of the
// sequence in slots[r], and sees that sequence up to itself. A slot or a position beyond the table of pages, such as a slot of
// 0xffffffff, gives 0, and so does a sequence with a page up to there that is beyond the cache.
//
// A workgroup takes one head of one row, and walks the keys page by page with a running maximum: each thread makes the
// score of one key, then adds up one or two elements of the weighted values. head_dim is at most 128. Keys and values have
// the layout of `kv_append`, so that neighbouring threads read neighbours in memory.

struct Args { rows: u32, heads: u32, kv_heads: u32, head_dim: u32, slot_pages: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<f32>; // (rows, heads, head_dim)
@group(0) @binding(2) var<storage, read> k: array<f32>; // (pages, kv_heads, head_dim, 64)
@group(0) @binding(3) var<storage, read> v: array<f32>; // (pages, kv_heads, 64, head_dim)
@group(0) @binding(4) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(5) var<storage, read> slots: array<u32>; // (rows)
@group(0) @binding(6) var<storage, read> pages: array<u32>; // (slots, slot_pages)
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // (rows, heads, head_dim)

var<workgroup> query: array<f32, 128>;
var<workgroup> scores: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wid.x;
    let dim = args.head_dim;
    let out = (row * args.heads + wid.y) * dim;
    let slot = slots[row];
    let table = slot * args.slot_pages;
    let listed = slot < arrayLength(&pages) / args.slot_pages && positions[row] / 64u < args.slot_pages;
    var keys = select(0u, positions[row] + 1u, listed);
    // 16 floats of padding are behind the last page.
    let held = (max(min(arrayLength(&k), arrayLength(&v)), 16u) - 16u) / (args.kv_heads * dim * 64u);
    for (var base = 0u; base < keys; base += 64u) {
        keys = select(0u, keys, pages[table + base / 64u] < held);
    }
    for (var c = lane; c < dim; c += 64u) {
        query[c] = args.scale * q[out + c];
    }
    workgroupBarrier();
    let kv_head = wid.y / (args.heads / args.kv_heads);
    var most = -1e30;
    var total = 0.0;
    var low = 0.0;
    var high = 0.0;
    for (var base = 0u; base < keys; base += 64u) {
        let page = (pages[table + base / 64u] * args.kv_heads + kv_head) * dim * 64u;
        var score = -1e30;
        if base + lane < keys {
            score = 0.0;
            for (var c = 0u; c < dim; c++) {
                score += query[c] * k[page + c * 64u + lane];
            }
        }
        scores[lane] = score;
        workgroupBarrier();
        let count = min(64u, keys - base);
        var top = most;
        for (var i = 0u; i < count; i++) {
            top = max(top, scores[i]);
        }
        let decay = exp(most - top);
        most = top;
        total *= decay;
        low *= decay;
        high *= decay;
        for (var i = 0u; i < count; i++) {
            let weight = exp(scores[i] - top);
            let value = page + i * dim;
            total += weight;
            if lane < dim { low += weight * v[value + lane]; }
            if lane + 64u < dim { high += weight * v[value + lane + 64u]; }
        }
        workgroupBarrier();
    }
    let factor = select(0.0, 1.0 / total, keys > 0u);
    if lane < dim { y[out + lane] = low * factor; }
    if lane + 64u < dim { y[out + lane + 64u] = high * factor; }
}
