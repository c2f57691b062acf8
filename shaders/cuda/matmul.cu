// `matmul` on the tensor cores of sm_80 and above. What includes this names the kernel PRODUCT, its second pass FINISH, and says
// by A_ALONG and B_ALONG how the factors lie (whether k is along their rows), and by FLOAT_TERMS how many f16 a float becomes.

struct Args {
    unsigned m, n, k, batch, a_transposed, b_transposed, symmetric, a_offset, b_offset, d_offset;
    float alpha, beta;
};

namespace product {

inline Result result(const Args& args, const Place& place, float* d) {
    float* to = d + args.d_offset + place.matrix * args.m * args.n;
    return {to, to, args.m, args.n, args.alpha, args.beta, args.symmetric != 0 && place.row < place.col};
}

inline bool is_computed(const Args& args, const Place& place) { return args.symmetric == 0 || place.row <= place.col; }

}  // namespace product

extern "C" __global__ void __launch_bounds__(256, 1) PRODUCT(
    Args args, const float* a, unsigned long long, const float* b, unsigned long long, float* d, unsigned long long,
    float* scratch, unsigned long long) {
    const product::Place place(args.batch, args.k);
    if (!product::is_computed(args, place)) return;
    a += args.a_offset + place.matrix * args.m * args.k;
    b += args.b_offset + place.matrix * args.k * args.n;
    product::multiply(product::Floats<A_ALONG, FLOAT_TERMS>(a, A_ALONG ? args.k : args.m, place.row, args.m, place.end),
                      product::Floats<B_ALONG, FLOAT_TERMS>(b, B_ALONG ? args.k : args.n, place.col, args.n, place.end), place,
                      product::result(args, place, d), scratch);
}

extern "C" __global__ void __launch_bounds__(256) FINISH(
    Args args, const float*, unsigned long long, const float*, unsigned long long, float* d, unsigned long long,
    const float* scratch, unsigned long long) {
    const product::Place place(args.batch, args.k);
    if (product::is_computed(args, place)) product::add_parts(place, product::result(args, place, d), scratch);
}

