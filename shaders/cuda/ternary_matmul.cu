// `ternary_matmul` for many rows on the tensor cores of sm_80 and above. Integer sums of a group are exact; the sums of groups
// are added up in order, never fused: the result is that of the CPU, bit for bit.
//
// First the codes are unpacked to bytes. Then a block of eight warps computes 128 rows x 128 outputs, a warp 64 x 32 of them.
// A step takes 64 weights through one of two stages of shared memory, whose rows are padded so that the eight rows of a matrix
// lie in different banks.

struct Args {
    unsigned rows, outs, dim, group, x_row;
};

// A thread takes a word of four bytes: of each, the lowest two bits belong to the first quarter of a run of 128.
extern "C" __global__ void __launch_bounds__(256) ternary_matmul_tensor_unpack(
    Args args, const signed char*, unsigned long long, const float*, unsigned long long, const unsigned* codes,
    unsigned long long, const float*, unsigned long long, float*, unsigned long long, unsigned* scratch,
    unsigned long long) {
    const unsigned i = blockIdx.x * 256 + threadIdx.x;
    if (i >= args.outs * ((args.dim + 127) / 128) * 8) return;
    const unsigned word = codes[i];
    for (unsigned quarter = 0; quarter < 4; quarter++) {
        const unsigned packed = word >> (2 * quarter);
        scratch[i / 8 * 32 + quarter * 8 + i % 8] = (((packed & 0x03030303) | 0x80808080) - 0x01010101) ^ 0x80808080;
    }
}

namespace ternary {

constexpr unsigned STEP = 64, ROW = STEP + 16, STAGE = 256 * ROW;
// As a float 12,582,912: adding an integer n below 2^22 to its bits adds n to it.
constexpr int MAGIC = 0x4B400000;

template <unsigned STEPS>
inline void product(const Args& args, const signed char* xq, const float* step, const signed char* weights,
                    const float* scales, float* y, unsigned shared) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned row0 = blockIdx.y * 128, out0 = blockIdx.x * 128;
    // Of the block's 128 rows and of its 128 outputs.
    const unsigned warp_row = warp % 2 * 64, warp_out = warp / 2 * 32;
    const unsigned groups = args.dim / (STEPS * STEP), width = (args.dim + 127) / 128 * 128;
    const unsigned steps = groups * STEPS;

    // A thread copies 16 bytes of each of these rows of activations, then of weights; none of what is outside.
    const unsigned slot = threadIdx.x / 4, piece = threadIdx.x % 4 * 16;
    const signed char* from[4];
    unsigned bytes[4];
#pragma unroll
    for (unsigned r = 0; r < 2; r++) {
        const unsigned row = row0 + slot + r * 64, out = out0 + slot + r * 64;
        const bool x = row < args.rows, w = out < args.outs;
        from[r] = xq + size_t(args.x_row + (x ? row : 0)) * args.dim + piece;
        from[2 + r] = weights + size_t(w ? out : 0) * width + piece;
        bytes[r] = x ? 16 : 0;
        bytes[2 + r] = w ? 16 : 0;
    }
    const auto load = [&](unsigned i) {
        const unsigned to = shared + i % 2 * STAGE + slot * ROW + piece;
#pragma unroll
        for (unsigned r = 0; r < 4; r++) {
            if (i < steps) copy16(to + r * 64 * ROW, from[r], bytes[r]);
            from[r] += STEP;
        }
        end_copies();
    };
    const unsigned x = shared + (warp_row + lane % 16) * ROW + lane / 16 * 16;
    const unsigned w = shared + (128 + warp_out + lane % 8 + lane / 16 * 8) * ROW + lane / 8 % 2 * 16;

    const int magic[4] = {MAGIC, MAGIC, MAGIC, MAGIC};
    float acc[4][4][4] = {};
    load(0);
    for (unsigned group = 0; group < groups; group++) {
        int sum[4][4][4];
#pragma unroll
        for (unsigned s = 0; s < STEPS; s++) {
            const unsigned i = group * STEPS + s;
            load(i + 1);
            wait_for_copies<1>();
            __syncthreads();
            const unsigned stage = (STEPS % 2 == 0 ? s : i) % 2 * STAGE;
#pragma unroll
            for (unsigned k = 0; k < STEP; k += 32) {
                unsigned a[4][4], b[2][4];
#pragma unroll
                for (unsigned m = 0; m < 4; m++) load_matrices(a[m], x + stage + m * 16 * ROW + k);
#pragma unroll
                for (unsigned n = 0; n < 2; n++) load_matrices(b[n], w + stage + n * 16 * ROW + k);
#pragma unroll
                for (unsigned m = 0; m < 4; m++)
#pragma unroll
                    for (unsigned n = 0; n < 4; n++)
                        mma(sum[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1], *(s + k == 0 ? &magic : &sum[m][n]));
            }
            __syncthreads();
        }
#pragma unroll
        for (unsigned n = 0; n < 4; n++) {
            const unsigned out = out0 + warp_out + n * 8 + lane % 4 * 2;
            const float scale[2] = {out < args.outs ? scales[out * groups + group] : 0.0f,
                                    out + 1 < args.outs ? scales[(out + 1) * groups + group] : 0.0f};
#pragma unroll
            for (unsigned m = 0; m < 4; m++)
#pragma unroll
                for (unsigned c = 0; c < 4; c++)
                    // The difference is the sum itself, an exact integer.
                    acc[m][n][c] = __fadd_rn(
                        acc[m][n][c], __fmul_rn(scale[c % 2], __fsub_rn(__int_as_float(sum[m][n][c]), 12582912.0f)));
        }
    }
#pragma unroll
    for (unsigned m = 0; m < 4; m++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            const unsigned row = row0 + warp_row + m * 16 + half * 8 + lane / 4;
            if (row >= args.rows) continue;
            const float by = step[args.x_row + row];
#pragma unroll
            for (unsigned n = 0; n < 4; n++) {
                const unsigned out = out0 + warp_out + n * 8 + lane % 4 * 2;
                float* to = y + size_t(row) * args.outs + out;
                if (out < args.outs) to[0] = acc[m][n][half * 2] * by;
                if (out + 1 < args.outs) to[1] = acc[m][n][half * 2 + 1] * by;
            }
        }
}

}  // namespace ternary

extern "C" __global__ void __launch_bounds__(256, 1) ternary_matmul_tensor(
    Args args, const signed char* xq, unsigned long long, const float* step, unsigned long long, const unsigned*,
    unsigned long long, const float* scales, unsigned long long, float* y, unsigned long long, const signed char* scratch,
    unsigned long long) {
    alignas(16) __shared__ signed char shared[2 * ternary::STAGE];
    if (args.group == 64) ternary::product<1>(args, xq, step, scratch, scales, y, place(shared));
    if (args.group == 128) ternary::product<2>(args, xq, step, scratch, scales, y, place(shared));
    if (args.group == 256) ternary::product<4>(args, xq, step, scratch, scales, y, place(shared));
}
