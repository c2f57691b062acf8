// `attention` of rows that belong to several sequences, over cached keys and values: row r is at positions[r] of the
// sequence in slots[r], and sees that sequence up to itself. A slot or a position beyond the table of pages, such as a slot of
// 0xffffffff, gives 0, and so does a sequence with a page up to there that is beyond the cache.
//
// Keys are taken in blocks of 256, each with its own maximum, and the blocks are then put together in order. Up to 16 rows, a
// workgroup takes one block of one head of one row, and `combine` puts blocks together; further rows are enough work without
// that, so a workgroup takes all blocks. Within a block, each thread makes the score of one key of a
// page, then adds up the elements of the weighted values from its own on, by steps of 64. head_dim is at most 256. Keys and values have the layout of
// `kv_append`, so that neighbouring threads read neighbours in memory.

//#import parts

// The sums of some keys, for the elements of a head that a thread has.
struct Part { most: f32, total: f32, values: vec4<f32> }

// `most` of no keys is -1e30: then this is b.
fn merged(a: Part, b: Part) -> Part {
    let top = max(a.most, b.most);
    let x = exp(a.most - top);
    let y = exp(b.most - top);
    return Part(top, a.total * x + b.total * y, a.values * x + b.values * y);
}

struct Args { rows: u32, heads: u32, kv_heads: u32, head_dim: u32, slot_pages: u32, scale: f32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> q: array<f32>; // (rows, heads, head_dim)
@group(0) @binding(2) var<storage, read> k: array<f32>; // (pages, kv_heads, head_dim, 64)
@group(0) @binding(3) var<storage, read> v: array<f32>; // (pages, kv_heads, 64, head_dim)
@group(0) @binding(4) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(5) var<storage, read> slots: array<u32>; // (rows)
@group(0) @binding(6) var<storage, read> pages: array<u32>; // (slots, slot_pages)
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // (rows, heads, head_dim)
@group(0) @binding(8) var<storage, read_write> scratch: array<f32>; // as `parts` describes

var<workgroup> query: array<f32, 256>;
var<workgroup> scores: array<f32, 64>;

// The sum over keys `first` to `end`, at most 256, of the pages in this row of the table.
fn attend(first: u32, end: u32, table: u32, kv_head: u32, lane: u32) -> Part {
    let dim = args.head_dim;
    var part = Part(-1e30, 0.0, vec4<f32>());
    for (var base = first; base < end; base += 64u) {
        let page = (pages[table + base / 64u] * args.kv_heads + kv_head) * dim * 64u;
        var score = -1e30;
        if base + lane < end {
            score = 0.0;
            for (var c = 0u; c < dim; c++) {
                score += query[c] * k[page + c * 64u + lane];
            }
        }
        scores[lane] = score;
        workgroupBarrier();
        let count = min(64u, end - base);
        var top = part.most;
        for (var i = 0u; i < count; i++) {
            top = max(top, scores[i]);
        }
        workgroupBarrier();
        scores[lane] = exp(score - top);
        workgroupBarrier();
        let decay = exp(part.most - top);
        part = Part(top, part.total * decay, part.values * decay);
        for (var i = 0u; i < count; i++) {
            let weight = scores[i];
            let value = page + i * dim;
            part.total += weight;
            if lane < dim { part.values.x += weight * v[value + lane]; }
            if lane + 64u < dim { part.values.y += weight * v[value + lane + 64u]; }
            if lane + 128u < dim { part.values.z += weight * v[value + lane + 128u]; }
            if lane + 192u < dim { part.values.w += weight * v[value + lane + 192u]; }
        }
        workgroupBarrier();
    }
    return part;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = wid.z;
    let head = wid.y;
    let dim = args.head_dim;
    let out = (row * args.heads + head) * dim;
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
    let kv_head = head / (args.heads / args.kv_heads);
    let split = args.rows <= 16u;
    let first = select(0u, wid.x * PART, split);
    let end = select(keys, min(keys, first + PART), split);
    var sum = Part(-1e30, 0.0, vec4<f32>());
    for (var base = first; base < end; base += PART) {
        sum = merged(sum, attend(base, min(base + PART, end), table, kv_head, lane));
    }
    if !split {
        let factor = select(0.0, 1.0 / sum.total, sum.total > 0.0);
        let values = sum.values * factor;
        if lane < dim { y[out + lane] = values.x; }
        if lane + 64u < dim { y[out + lane + 64u] = values.y; }
        if lane + 128u < dim { y[out + lane + 128u] = values.z; }
        if lane + 192u < dim { y[out + lane + 192u] = values.w; }
    } else if first < end {
        let at = part_at(args.rows, dim, (args.slot_pages + 3u) / 4u, row * args.heads + head, wid.x);
        if lane == 0u {
            scratch[at] = sum.most;
            scratch[at + 1u] = sum.total;
        }
        // One by one: an index into the vector would make it memory.
        if lane < dim { scratch[at + 2u + lane] = sum.values.x; }
        if lane + 64u < dim { scratch[at + 2u + lane + 64u] = sum.values.y; }
        if lane + 128u < dim { scratch[at + 2u + lane + 128u] = sum.values.z; }
        if lane + 192u < dim { scratch[at + 2u + lane + 192u] = sum.values.w; }
    }
    if split && wid.x == 0u && head == 0u && lane == 0u {
        scratch[row] = f32((keys + PART - 1u) / PART);
    }
}

@compute @workgroup_size(64)
fn combine(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let count = u32(scratch[wid.z]);
    let first = part_at(args.rows, args.head_dim, (args.slot_pages + 3u) / 4u, wid.z * args.heads + wid.y, 0u);
    let whole = whole_of(first, count, args.head_dim);
    for (var c = lane; c < args.head_dim; c += 64u) {
        y[(wid.z * args.heads + wid.y) * args.head_dim + c] = element_of(first, count, args.head_dim, whole, c);
    }
}
