// First step of the gradient of `attention`: delta = sum over head_dim of y * dy (Dao et al. 2022), one thread for each
// query.

struct Args { batch: u32, seq: u32, heads: u32, head_dim: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> y: array<f32>; // (batch, seq, heads, head_dim)
@group(0) @binding(2) var<storage, read> dy: array<f32>; // (batch, seq, heads, head_dim)
@group(0) @binding(3) var<storage, read_write> delta: array<f32>; // (batch, heads, seq)

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (wid.x + wid.y * groups.x) * 64u + lane;
    if i >= args.batch * args.seq * args.heads {
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
    delta[i] = sum;
}
