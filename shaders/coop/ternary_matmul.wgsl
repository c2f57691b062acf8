// `ternary_matmul` for many rows by cooperative matrices of f16 with sums in f32. Activations and codes are exact in f16, and so
// are the sums of a run of 128 in f32, in any order: they are integers below 2^24. Groups are added up in order: the result is
// that of the op's other shaders, bit for bit.
//
// A workgroup of two subgroups of WIDTH threads computes 2 TILE rows x 4 TILE outputs, a subgroup half of the columns. Matrices
// go through workgroup memory, because where a thread's part of one lies is the device's affair.

struct Args { rows: u32, outs: u32, dim: u32, group: u32, x_row: u32 }

@group(0) @binding(0) var<uniform> args: Args;
@group(0) @binding(1) var<storage, read> xq: array<u32>; // (at least x_row + rows, dim / 4), four int8 in a word
@group(0) @binding(2) var<storage, read> step: array<f32>; // (at least x_row + rows)
// (outs, dim / 128, 8), packed as by `ternary_quantize`
@group(0) @binding(3) var<storage, read> codes: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<f32>; // (outs, dim / group)
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // (rows, outs)

const ROWS = 2u * TILE;
const OUTS = 4u * TILE;
const THREADS = 2u * WIDTH;
// Results of a thread.
const EACH = ROWS * OUTS / THREADS;

var<workgroup> x_tile: array<f16, ROWS * 128u>;
var<workgroup> w_tile: array<f16, OUTS * 128u>;
var<workgroup> sums: array<f32, ROWS * OUTS>;

// Loads the run of 128 of the rows and outputs at (row0, out0); zeros outside.
fn load(row0: u32, out0: u32, run: u32, lane: u32) {
    for (var e = lane; e < ROWS * 32u; e += THREADS) {
        let row = row0 + e / 32u;
        var word = 0u;
        if row < args.rows { word = xq[((args.x_row + row) * args.dim + run * 128u) / 4u + e % 32u]; }
        let v = unpack4xI8(word);
        let at = e * 4u;
        x_tile[at] = f16(v.x); x_tile[at + 1u] = f16(v.y); x_tile[at + 2u] = f16(v.z); x_tile[at + 3u] = f16(v.w);
    }
    for (var e = lane; e < OUTS * 8u; e += THREADS) {
        let out = out0 + e / 8u;
        var word = 0x55555555u;
        if out < args.outs { word = codes[(out * (args.dim / 128u) + run) * 8u + e % 8u]; }
        for (var quarter = 0u; quarter < 4u; quarter++) {
            let codes = (vec4<u32>(word) >> (vec4<u32>(0u, 8u, 16u, 24u) + 2u * quarter)) & vec4<u32>(3u);
            let c = vec4<f16>(codes) - vec4<f16>(1.0h);
            let at = e / 8u * 128u + quarter * 32u + e % 8u * 4u;
            w_tile[at] = c.x; w_tile[at + 1u] = c.y; w_tile[at + 2u] = c.z; w_tile[at + 3u] = c.w;
        }
    }
}

// The sums of a run for the columns of this subgroup.
fn multiply(subgroup: u32) {
    let column = subgroup * 2u * TILE;
    var c00: coop_matT<f32, C>;
    var c01: coop_matT<f32, C>;
    var c10: coop_matT<f32, C>;
    var c11: coop_matT<f32, C>;
    for (var k = 0u; k < 128u; k += TILE) {
        let a0 = coopLoadT<coop_matT<f16, A>>(&x_tile[k], 128u);
        let a1 = coopLoadT<coop_matT<f16, A>>(&x_tile[TILE * 128u + k], 128u);
        let b0 = coopLoad<coop_matT<f16, B>>(&w_tile[column * 128u + k], 128u);
        let b1 = coopLoad<coop_matT<f16, B>>(&w_tile[(column + TILE) * 128u + k], 128u);
        c00 = coopMultiplyAdd(a0, b0, c00);
        c01 = coopMultiplyAdd(a0, b1, c01);
        c10 = coopMultiplyAdd(a1, b0, c10);
        c11 = coopMultiplyAdd(a1, b1, c11);
    }
    coopStoreT(c00, &sums[column], OUTS);
    coopStoreT(c01, &sums[column + TILE], OUTS);
    coopStoreT(c10, &sums[TILE * OUTS + column], OUTS);
    coopStoreT(c11, &sums[TILE * OUTS + column + TILE], OUTS);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let row0 = wid.y * ROWS;
    let out0 = wid.x * OUTS;
    var acc: array<f32, EACH>;
    var part: array<f32, EACH>;
    for (var run = 0u; run < args.dim / 128u; run++) {
        load(row0, out0, run, lane);
        workgroupBarrier();
        multiply(subgroup);
        workgroupBarrier();
        let ends = (run + 1u) * 128u % args.group == 0u;
        let group = run * 128u / args.group;
        for (var i = 0u; i < EACH; i++) {
            let e = lane + i * THREADS;
            part[i] += sums[e];
            if ends {
                let out = min(out0 + e % OUTS, args.outs - 1u);
                acc[i] += scales[out * (args.dim / args.group) + group] * part[i];
                part[i] = 0.0;
            }
        }
    }
    for (var i = 0u; i < EACH; i++) {
        let e = lane + i * THREADS;
        let row = row0 + e / OUTS;
        let out = out0 + e % OUTS;
        if row < args.rows && out < args.outs { y[row * args.outs + out] = acc[i] * step[args.x_row + row]; }
    }
}
