// First step of the gradient of `attention`: delta = sum over head_dim of y * dy (Dao et al. 2022), put behind lse. One
// workgroup for eight queries, in the order of memory; eight threads for each. head_dim is a multiple of 4.

//#import groups

struct Args { batch: u32, seq: u32, heads: u32, head_dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>; // (batch, seq, heads, head_dim)
@group(0) @binding(3) var<storage, read> lse: array<f32>; // (batch, heads, seq)
@group(0) @binding(4) var<storage, read_write> stats: array<f32>; // (2, batch, heads, seq)

var<workgroup> sums: array<f32, 64>; // (8 queries, 8 threads)

fn group(block: u32, lane: u32) {
    let dim = args.head_dim / 4u;
    let rows = args.batch * args.seq * args.heads;
    let row = block * 8u + lane / 8u;
    var sum = 0.0;
    if row < rows {
        for (var at = row * dim + lane % 8u; at < (row + 1u) * dim; at += 8u) {
            sum += dot(y[at], dy[at]);
        }
    }
    sums[lane] = sum;
    workgroupBarrier();
    if lane % 8u == 0u && row < rows {
        for (var i = 1u; i < 8u; i++) {
            sum += sums[lane + i];
        }
        let t = row / args.heads % args.seq;
        let to = (row / args.heads / args.seq * args.heads + row % args.heads) * args.seq + t;
        stats[to] = lse[to];
        stats[rows + to] = sum;
    }
}
