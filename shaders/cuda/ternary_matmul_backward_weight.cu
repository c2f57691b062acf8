// `ternary_matmul_backward_weight` on the tensor cores of sm_80 and above: dw += (step * dy)^T xq, whose int8 are exact in
// f16. A float of dy becomes FLOAT_TERMS f16.

struct Args {
    unsigned rows, outs, dim, x_row;
};

namespace product {

struct Activations : Exact<false> {
    const signed char* from;
    // The matrix has this many rows from `start` on, and none beside its columns.
    unsigned dim, first, rows, start;
    unsigned raw[4];

    Activations(const signed char* from, unsigned dim, unsigned first, unsigned rows, unsigned start)
        : from(from), dim(dim), first(first), rows(first + side(0) < dim ? rows : 0), start(start) {}

    void load(unsigned piece, unsigned step) {
        const unsigned row = step + k(piece), i = (start + row) * dim + first + side(piece);
        raw[piece] = row < rows ? *reinterpret_cast<const unsigned*>(from + i) : 0;
    }

    void put(unsigned piece, unsigned tile) const {
        const unsigned biased = raw[piece] ^ 0x80808080;
        store8(tile + at(piece), bytes_to_halves<0>(biased, 128.0f), bytes_to_halves<1>(biased, 128.0f));
    }
};

inline Result result(const Args& args, float* dw) { return {dw, dw, args.outs, args.dim, 1.0f, 1.0f}; }

}  // namespace product

extern "C" __global__ void __launch_bounds__(256, 1) PRODUCT(
    Args args, const float* dy, unsigned long long, const signed char* xq, unsigned long long, const float* step,
    unsigned long long, float* dw, unsigned long long, float* scratch, unsigned long long) {
    const product::Place place(1, args.rows);
    const product::Floats<false, FLOAT_TERMS, true, true> left(dy, args.outs, place.row, args.outs, place.end, step, args.x_row);
    const product::Activations right(xq, args.dim, place.col, place.end, args.x_row);
    product::multiply(left, right, place, product::result(args, dw), scratch);
}

extern "C" __global__ void __launch_bounds__(256) FINISH(
    Args args, const float*, unsigned long long, const signed char*, unsigned long long, const float*, unsigned long long,
    float* dw, unsigned long long, const float* scratch, unsigned long long) {
    product::add_parts(product::Place(1, args.rows), product::result(args, dw), scratch);
}
