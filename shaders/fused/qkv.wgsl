// Normalisation, quantisation, the products for queries, keys and values, rotation, and the cache's new rows, for up to 8 rows:
// `rms_norm`, `quantize_rows`, three `ternary_matmul`, two `rope` and two `kv_append` in one.
//
// A workgroup computes 4 rows x 8 outputs of one head: four pairs that rotate together.

//#import reduce
//#import few

struct Args { rows: u32, dim: u32, eps: f32, group: u32, heads: u32, kv_heads: u32, head_dim: u32, slot_pages: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, dim)
@group(0) @binding(2) var<storage, read> w: array<f32>; // (dim)
@group(0) @binding(3) var<storage, read> codes_q: array<u32>; // (heads * head_dim, ceil(dim / 128), 8)
@group(0) @binding(4) var<storage, read> scales_q: array<f32>; // (heads * head_dim, dim / group)
@group(0) @binding(5) var<storage, read> codes_k: array<u32>; // (kv_heads * head_dim, ...)
@group(0) @binding(6) var<storage, read> scales_k: array<f32>;
@group(0) @binding(7) var<storage, read> codes_v: array<u32>;
@group(0) @binding(8) var<storage, read> scales_v: array<f32>;
@group(0) @binding(9) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(10) var<storage, read> table: array<f32>; // (positions, head_dim / 2, 2)
@group(0) @binding(11) var<storage, read> slots: array<u32>; // (rows)
@group(0) @binding(12) var<storage, read> pages: array<u32>; // (slots, slot_pages)
@group(0) @binding(13) var<storage, read_write> q: array<f32>; // (rows, heads, head_dim)
@group(0) @binding(14) var<storage, read_write> k: array<f32>; // (pages, kv_heads, head_dim, 64)
@group(0) @binding(15) var<storage, read_write> v: array<f32>; // (pages, kv_heads, 64, head_dim)

const ROOM = 3584u;
var<workgroup> outputs: array<f32, 64>; // (8 outputs, 8), of which four are rows

fn input(row: u32, c: u32) -> f32 {
    return x[row * args.dim + c];
}

fn gain(c: u32) -> f32 {
    return w[c];
}

fn code_at(which: u32, i: u32) -> u32 {
    if which == 0u { return codes_q[i]; }
    if which == 1u { return codes_k[i]; }
    return codes_v[i];
}

fn scale_at(which: u32, i: u32) -> f32 {
    if which == 0u { return scales_q[i]; }
    if which == 1u { return scales_k[i]; }
    return scales_v[i];
}

// Where a row's place of a head is in a cache of so many floats: NOWHERE if there is none.
const NOWHERE = 0xffffffffu;
fn page_of(row: u32, head: u32, length: u32) -> u32 {
    let slot = slots[row];
    let listed = positions[row] / 64u;
    if slot >= arrayLength(&pages) / args.slot_pages || listed >= args.slot_pages {
        return NOWHERE;
    }
    let page = pages[slot * args.slot_pages + listed];
    // 16 floats of padding are behind the last page.
    if page >= (max(length, 16u) - 16u) / (args.kv_heads * args.head_dim * 64u) {
        return NOWHERE;
    }
    return (page * args.kv_heads + head) * args.head_dim * 64u;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = wid.y * 4u;
    let count = min(args.rows - first, 4u);
    for (var r = 0u; r < count; r++) {
        quantize(first + r, r, args.dim, args.eps, lane);
    }
    workgroupBarrier();
    let half = args.head_dim / 2u;
    let head = wid.x / (half / 4u); // of queries, then of keys, then of values
    let pair = wid.x % (half / 4u) * 4u + lane / 8u % 4u;
    let d = pair + lane / 32u * half;
    let which = u32(head >= args.heads) + u32(head >= args.heads + args.kv_heads);
    let own = head - select(0u, args.heads, which > 0u) - select(0u, args.kv_heads, which > 1u);
    let outs = select(args.kv_heads, args.heads, which == 0u) * args.head_dim;
    sum_runs(which, own * args.head_dim + d, outs, count, args.dim, args.group, lane);
    let value = product(lane);
    outputs[lane] = value;
    workgroupBarrier();
    if lane % 8u >= count {
        return;
    }
    let row = first + lane % 8u;
    let position = min(positions[row], max(arrayLength(&table) / args.head_dim, 1u) - 1u);
    let c = table[(position * half + pair) * 2u];
    let s = table[(position * half + pair) * 2u + 1u];
    let other = outputs[lane ^ 32u];
    let turned = select(value * c + other * s, value * c - other * s, lane < 32u);
    let place = positions[row] % 64u;
    if which == 0u {
        q[(row * args.heads + own) * args.head_dim + d] = turned;
    } else if which == 1u {
        let at = page_of(row, own, arrayLength(&k));
        if at != NOWHERE { k[at + d * 64u + place] = turned; }
    } else {
        let at = page_of(row, own, arrayLength(&v));
        if at != NOWHERE { v[at + place * args.head_dim + d] = value; }
    }
}
