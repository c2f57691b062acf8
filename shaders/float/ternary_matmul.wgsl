// `ternary_matmul` for many rows in f32, for devices that have no instruction for products of four bytes: `dot4I8Packed` is a
// dozen instructions there. Products are exact, and so are the sums of a group, in any order: they are integers below 2^24.
// Groups are added up in order: the result is that of the op's other shaders, bit for bit.
//
// A workgroup computes 32 rows x 64 outputs, a thread 4 x 8 of them. A step takes 32 inputs through workgroup memory.

struct Args { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> xq: array<u32>; // (at least x_row + rows, dim / 4), four int8 in a word
@group(0) @binding(2) var<storage, read> step: array<f32>; // (at least x_row + rows)
// (outs, ceil(dim / 128), 8), packed as by `ternary_quantize`
@group(0) @binding(3) var<storage, read> codes: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>; // (outs, dim / group)
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // (rows, outs)

var<workgroup> x_tile: array<vec4<f32>, 256>; // (32 inputs, 32 rows as 8 vec4)
var<workgroup> w_tile: array<vec4<f32>, 512>; // (32 inputs, 64 outputs as 16 vec4)

// Four rows of four.
struct Block { x: vec4<f32>, y: vec4<f32>, z: vec4<f32>, w: vec4<f32> }

fn transposed(a: Block) -> Block {
    return Block(
        vec4<f32>(a.x.x, a.y.x, a.z.x, a.w.x), vec4<f32>(a.x.y, a.y.y, a.z.y, a.w.y),
        vec4<f32>(a.x.z, a.y.z, a.z.z, a.w.z), vec4<f32>(a.x.w, a.y.w, a.z.w, a.w.w),
    );
}

// Inputs 4 word..4 word + 4 of the 32 from `k`; zero outside.
fn activations(row: u32, k: u32, word: u32) -> vec4<f32> {
    if row >= args.rows {
        return vec4<f32>();
    }
    return vec4<f32>(unpack4xI8(xq[((args.x_row + row) * args.dim + k) / 4u + word]));
}

// The weights of the same inputs: a word of a run holds them at the bits of their quarter.
fn weights(out: u32, k: u32, word: u32) -> vec4<f32> {
    if out >= args.outs {
        return vec4<f32>();
    }
    let packed = codes[(out * ((args.dim + 127u) / 128u) + k / 128u) * 8u + word];
    let shift = vec4<u32>(0u, 8u, 16u, 24u) + vec4<u32>(k / 32u % 4u * 2u);
    return vec4<f32>((vec4<u32>(packed) >> shift) & vec4<u32>(3u)) - vec4<f32>(1.0);
}

fn load_x(row0: u32, k: u32, lane: u32) {
    let row = row0 + lane % 8u * 4u;
    let word = lane / 8u;
    let block = transposed(Block(
        activations(row, k, word), activations(row + 1u, k, word),
        activations(row + 2u, k, word), activations(row + 3u, k, word),
    ));
    let to = word * 32u + lane % 8u;
    x_tile[to] = block.x;
    x_tile[to + 8u] = block.y;
    x_tile[to + 16u] = block.z;
    x_tile[to + 24u] = block.w;
}

fn load_w(out0: u32, k: u32, lane: u32, word: u32) {
    let out = out0 + lane % 16u * 4u;
    let block = transposed(Block(
        weights(out, k, word), weights(out + 1u, k, word), weights(out + 2u, k, word), weights(out + 3u, k, word),
    ));
    let to = word * 64u + lane % 16u;
    w_tile[to] = block.x;
    w_tile[to + 16u] = block.y;
    w_tile[to + 32u] = block.z;
    w_tile[to + 48u] = block.w;
}

// Scales of outputs out..out + 4 for a group.
fn load_scales(out: u32, group: u32) -> vec4<f32> {
    let at = min(vec4<u32>(out, out + 1u, out + 2u, out + 3u), vec4<u32>(args.outs - 1u)) * (args.dim / args.group) + group;
    return vec4<f32>(scales[at.x], scales[at.y], scales[at.z], scales[at.w]);
}

fn store(row: u32, out: u32, value: vec4<f32>) {
    if row >= args.rows {
        return;
    }
    let scaled = value * step[args.x_row + row];
    let at = row * args.outs + out;
    if out < args.outs { y[at] = scaled.x; }
    if out + 1u < args.outs { y[at + 1u] = scaled.y; }
    if out + 2u < args.outs { y[at + 2u] = scaled.z; }
    if out + 3u < args.outs { y[at + 3u] = scaled.w; }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row0 = wid.y * 32u;
    let out0 = wid.x * 64u;
    // This thread's rows are row0 + 4 ty..row0 + 4 ty + 4; its outputs are four from out0 + 4 tx on, and four 32 further.
    let tx = lane % 8u;
    let ty = lane / 8u;
    var acc: array<vec4<f32>, 8>;
    var sum: array<vec4<f32>, 8>;
    for (var k = 0u; k < args.dim; k += 32u) {
        load_x(row0, k, lane);
        load_w(out0, k, lane, lane / 16u);
        load_w(out0, k, lane, lane / 16u + 4u);
        workgroupBarrier();
        for (var i = 0u; i < 32u; i++) {
            let x = x_tile[i * 8u + ty];
            let w0 = w_tile[i * 16u + tx];
            let w1 = w_tile[i * 16u + 8u + tx];
            sum[0] += x.x * w0; sum[1] += x.x * w1;
            sum[2] += x.y * w0; sum[3] += x.y * w1;
            sum[4] += x.z * w0; sum[5] += x.z * w1;
            sum[6] += x.w * w0; sum[7] += x.w * w1;
        }
        workgroupBarrier();
        if (k + 32u) % args.group == 0u {
            let s0 = load_scales(out0 + 4u * tx, k / args.group);
            let s1 = load_scales(out0 + 32u + 4u * tx, k / args.group);
            acc[0] += s0 * sum[0]; acc[1] += s1 * sum[1];
            acc[2] += s0 * sum[2]; acc[3] += s1 * sum[3];
            acc[4] += s0 * sum[4]; acc[5] += s1 * sum[5];
            acc[6] += s0 * sum[6]; acc[7] += s1 * sum[7];
            sum = array<vec4<f32>, 8>();
        }
    }
    let row = row0 + 4u * ty;
    let out = out0 + 4u * tx;
    store(row, out, acc[0]); store(row, out + 32u, acc[1]);
    store(row + 1u, out, acc[2]); store(row + 1u, out + 32u, acc[3]);
    store(row + 2u, out, acc[4]); store(row + 2u, out + 32u, acc[5]);
    store(row + 3u, out, acc[6]); store(row + 3u, out + 32u, acc[7]);
}
