// The gated delta rule (Gated Delta Networks, Yang, Kautz and Hatamizadeh 2024). Each head has a state S (key_size, value_size),
// of which a row forgets a part and which it then corrects where its key reads it:
// S_t = a_t (I - b_t k_t k_t^T) S_(t-1) + b_t k_t v_t^T and y_t = S_t^T q_t / sqrt(key_size), where the keys and queries are
// divided by their lengths, b_t is gates[t][h] and a_t is e^gates[t][heads + h]. A row at position 0 starts with zeros.
//
// x is values, keys and queries. In training, the rows are sequences of `seq` rows, `slots` is not read, and `state` gets the
// states before every 32nd row. With `seq` = 0, row r is at positions[r] of the sequence in slots[r], whose state is in `state`. A
// slot beyond it, such as 0xffffffff, changes nothing and gives 0.
//
// A workgroup walks the rows of one sequence for 16 columns of one head: four threads share a column, each with a quarter of its
// rows. Sizes are multiples of 4, at most 128.

struct Args { rows: u32, heads: u32, key_size: u32, value_size: u32, seq: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (rows, heads * (value_size + 2 * key_size))
@group(0) @binding(2) var<storage, read> gates: array<f32>; // (rows, 2, heads)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (rows)
@group(0) @binding(4) var<storage, read> slots: array<u32>; // (rows)
// (slots, heads, key_size, value_size), in training (sequences, ceil(seq / 32), heads, key_size, value_size)
@group(0) @binding(5) var<storage, read_write> state: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // (rows, heads, value_size)

var<workgroup> own: array<f32, 2048>; // (key_size, 16)
var<workgroup> keys: array<f32, 256>; // a key, then from 128 on a query
var<workgroup> sums: array<vec4<f32>, 64>; // (4 quarters, 16 columns)

// The sum over the four quarters of a column.
fn column(c: u32) -> vec4<f32> {
    return (sums[c] + sums[c + 16u]) + (sums[c + 32u] + sums[c + 48u]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let h = wid.y;
    let size = args.heads * args.key_size * args.value_size;
    let cols = args.heads * (args.value_size + 2u * args.key_size);
    let first = wid.z * max(args.seq, 1u);
    let slot = slots[first];
    var end = first + args.seq;
    let c = lane % 16u;
    let j = wid.x * 16u + c;
    let quarter = args.key_size / 4u;
    let start = lane / 16u * quarter;
    if args.seq == 0u {
        let is_none = slot >= arrayLength(&state) / size;
        if is_none && lane < 16u && j < args.value_size {
            y[(first * args.heads + h) * args.value_size + j] = 0.0;
        }
        var goes_on = is_none;
        if first > 0u {
            goes_on = goes_on || slots[first - 1u] == slot;
        }
        // An earlier workgroup has this row.
        if goes_on {
            return;
        }
        end = first + 1u;
        while end < args.rows {
            if slots[end] != slot {
                break;
            }
            end++;
        }
    }
    // Where this thread's elements begin in the state of a sequence.
    let place = h * args.key_size * args.value_size + j;
    if args.seq == 0u && j < args.value_size {
        for (var i = start; i < start + quarter; i++) {
            own[i * 16u + c] = state[slot * size + place + i * args.value_size];
        }
    }
    let chunks = (args.seq + 31u) / 32u;
    for (var r = first; r < end; r++) {
        let t = r - first;
        for (var i = lane; i < args.key_size; i += 64u) {
            let at = r * cols + args.heads * args.value_size + h * args.key_size + i;
            keys[i] = x[at];
            keys[128u + i] = x[at + args.heads * args.key_size];
        }
        let starts = positions[r] == 0u || (args.seq > 0u && t == 0u);
        let beta = gates[r * 2u * args.heads + h];
        let decay = exp(gates[r * 2u * args.heads + args.heads + h]);
        workgroupBarrier();
        // What the key reads, and the squared lengths of key and query.
        var read = vec4<f32>();
        for (var i = start; i < start + quarter; i++) {
            let s = select(own[i * 16u + c], 0.0, starts);
            own[i * 16u + c] = s;
            let k = keys[i];
            let q = keys[128u + i];
            read += vec4<f32>(k * s, k * k, q * q, 0.0);
        }
        if args.seq > 0u && t % 32u == 0u && j < args.value_size {
            let to = (wid.z * chunks + t / 32u) * size + place;
            for (var i = start; i < start + quarter; i++) {
                state[to + i * args.value_size] = own[i * 16u + c];
            }
        }
        sums[lane] = read;
        workgroupBarrier();
        let all = column(c);
        let to_key = 1.0 / sqrt(all.y + 1e-6);
        let to_query = 1.0 / sqrt((all.z + 1e-6) * f32(args.key_size));
        var value = 0.0;
        if j < args.value_size {
            value = x[r * cols + h * args.value_size + j];
        }
        let change = beta * (value - decay * (to_key * all.x));
        var out = 0.0;
        for (var i = start; i < start + quarter; i++) {
            let s = decay * own[i * 16u + c] + to_key * keys[i] * change;
            own[i * 16u + c] = s;
            out += to_query * keys[128u + i] * s;
        }
        workgroupBarrier();
        sums[lane] = vec4<f32>(out, 0.0, 0.0, 0.0);
        workgroupBarrier();
        if lane < 16u && j < args.value_size {
            y[(r * args.heads + h) * args.value_size + j] = column(c).x;
        }
        workgroupBarrier();
    }
    if args.seq == 0u && j < args.value_size {
        for (var i = start; i < start + quarter; i++) {
            state[slot * size + place + i * args.value_size] = own[i * 16u + c];
        }
    }
}
