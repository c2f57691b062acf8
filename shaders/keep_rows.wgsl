// y[s][r] = old[s][r] for rows that take no further pass, ends[pick[r]] != 0, and next[s][r] for the others. A pick beyond
// `ends`, such as 0xffffffff, goes on. dim is a multiple of 4.

//#import quads

struct Args { streams: u32, rows: u32, dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> pick: array<u32>; // (rows)
@group(0) @binding(2) var<storage, read> ends: array<u32>; // (picks)
@group(0) @binding(3) var<storage, read> old: array<vec4<f32>>; // (streams, rows, dim)
@group(0) @binding(4) var<storage, read> next: array<vec4<f32>>; // (streams, rows, dim)
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>; // (streams, rows, dim)

fn quad(i: u32) {
    let dim = args.dim / 4u;
    if i >= args.streams * args.rows * dim {
        return;
    }
    let chosen = pick[i / dim % args.rows];
    var value = next[i];
    if chosen < arrayLength(&ends) && ends[min(chosen, arrayLength(&ends) - 1u)] != 0u {
        value = old[i];
    }
    y[i] = value;
}
