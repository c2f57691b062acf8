// `matmul_add` on the tensor cores of sm_80 and above.

struct Args {
    unsigned m, n, k, batch, symmetric;
    float alpha, beta;
};

namespace product {

inline Result result(const Args& args, const Place& place, const float* c, float* d) {
    const unsigned start = place.matrix * args.m * args.n;
    return {d + start, c + start, args.m, args.n, args.alpha, args.beta, args.symmetric != 0 && place.row < place.col};
}

inline bool is_computed(const Args& args, const Place& place) { return args.symmetric == 0 || place.row <= place.col; }

}  // namespace product

extern "C" __global__ void __launch_bounds__(256, 1) PRODUCT(
    Args args, const float* a, unsigned long long, const float* b, unsigned long long, const float* c, unsigned long long,
    float* d, unsigned long long, float* scratch, unsigned long long) {
    const product::Place place(args.batch, args.k);
    if (!product::is_computed(args, place)) return;
    a += place.matrix * args.m * args.k;
    b += place.matrix * args.k * args.n;
    product::multiply(product::Floats<true, 2>(a, args.k, place.row, args.m, place.end),
                      product::Floats<false, 2>(b, args.n, place.col, args.n, place.end), place,
                      product::result(args, place, c, d), scratch);
}

extern "C" __global__ void __launch_bounds__(256) FINISH(
    Args args, const float*, unsigned long long, const float*, unsigned long long, const float* c, unsigned long long,
    float* d, unsigned long long, const float* scratch, unsigned long long) {
    const product::Place place(args.batch, args.k);
    if (product::is_computed(args, place)) product::add_parts(place, product::result(args, place, c, d), scratch);
}
