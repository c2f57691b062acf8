// First step of the gradient of `attention`: delta = sum over head_dim of y * dy (Dao et al. 2022), put behind lse. One
// thread for each query.

//#import elements

struct Args { batch: u32, seq: u32, heads: u32, head_dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> y: array<f32>; // (batch, seq, heads, head_dim)
@group(0) @binding(2) var<storage, read> dy: array<f32>; // (batch, seq, heads, head_dim)
@group(0) @binding(3) var<storage, read> lse: array<f32>; // (batch, heads, seq)
@group(0) @binding(4) var<storage, read_write> stats: array<f32>; // (2, batch, heads, seq)

fn element(i: u32) {
    let rows = args.batch * args.heads * args.seq;
    if i >= rows {
        return;
    }
    let t = i % args.seq;
    let head = i / args.seq % args.heads;
    let batch = i / args.seq / args.heads;
    let start = ((batch * args.seq + t) * args.heads + head) * args.head_dim;
    var sum = 0.0;
    for (var c = start; c < start + args.head_dim; c++) {
        sum += y[c] * dy[c];
    }
    stats[i] = lse[i];
    stats[rows + i] = sum;
}
