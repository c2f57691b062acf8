// `ternary_matmul_backward_input` on the tensor cores of sm_80 and above. A code times its scale is exact in f16, as scales are.
// A float of dy becomes FLOAT_TERMS f16.

struct Args {
    unsigned rows, outs, dim, group, x_row;
    float beta;
};

namespace product {

// A thread brings a word, of whose bytes the lowest two bits belong to the first quarter of a run of 128, as one piece.
struct Weights : Exact<false> {
    const unsigned* codes;
    const float* scales;
    unsigned outs, runs, run, groups;
    // The group of each quarter.
    unsigned group[4];
    unsigned raw;
    float scale[4];
    unsigned to = kept(row() * ROW + threadIdx.x % 8 * 8);

    Weights(const unsigned* codes, const float* scales, const Args& args, unsigned first)
        : codes(codes), scales(scales), outs(args.outs), runs((args.dim + 127) / 128), run(first / 128),
          groups(args.dim / args.group) {
#pragma unroll
        for (unsigned quarter = 0; quarter < 4; quarter++) {
            const unsigned col = first + quarter * 32;
            group[quarter] = (col < args.dim ? col : args.dim - 1) / args.group;
        }
    }

    // Beyond the last output it repeats that one, for which `dy` is zero.
    void load(unsigned piece, unsigned step) {
        if (piece != 0) return;
        const unsigned out = step + row() < outs ? step + row() : outs - 1;
        raw = codes[(out * runs + run) * 8 + threadIdx.x % 8];
#pragma unroll
        for (unsigned quarter = 0; quarter < 4; quarter++) scale[quarter] = scales[out * groups + group[quarter]];
    }

    void put(unsigned piece, unsigned tile) const {
        if (piece != 0) return;
#pragma unroll
        for (unsigned quarter = 0; quarter < 4; quarter++) {
            const unsigned codes = raw >> 2 * quarter & 0x03030303, by = to_halves(scale[quarter], scale[quarter]);
            store8(tile + to + quarter * 64,
                   multiply_halves(bytes_to_halves<0>(codes, 1.0f), by), multiply_halves(bytes_to_halves<1>(codes, 1.0f), by));
        }
    }
};

inline Result result(const Args& args, float* dx) {
    float* to = dx + size_t(args.x_row) * args.dim;
    return {to, to, args.rows, args.dim, 1.0f, args.beta};
}

}  // namespace product

extern "C" __global__ void __launch_bounds__(256, 1) PRODUCT(
    Args args, const float* dy, unsigned long long, const unsigned* codes, unsigned long long, const float* scales,
    unsigned long long, float* dx, unsigned long long, float* scratch, unsigned long long) {
    const product::Place place(1, args.outs);
    product::multiply(product::Floats<true, FLOAT_TERMS, true>(dy, args.outs, place.row, args.rows, place.end),
                      product::Weights(codes, scales, args, place.col), place, product::result(args, dx), scratch);
}

extern "C" __global__ void __launch_bounds__(256) FINISH(
    Args args, const float*, unsigned long long, const unsigned*, unsigned long long, const float*, unsigned long long,
    float* dx, unsigned long long, const float* scratch, unsigned long long) {
    product::add_parts(product::Place(1, args.outs), product::result(args, dx), scratch);
}
