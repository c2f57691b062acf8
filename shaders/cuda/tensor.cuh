// Instructions of tensor cores and of copies that do not wait, for sm_80 and above. The emulator of `tests/cuda` has its own.
// Places in shared memory are the numbers that its instructions take.

#ifndef EMULATED

inline unsigned place(const void* shared) { return unsigned(__cvta_generic_to_shared(shared)); }

// The place of the shared memory whose size is given at the launch.
inline unsigned launched_memory() {
    extern __shared__ uint4 memory[];
    return place(memory);
}

// d = a b + c for a (16, 32) and b (32, 8) of bytes, spread over a warp: lane l has, of a, rows l / 4 and l / 4 + 8, columns
// 4 (l % 4)..+4 and 16 further; of b, column l / 4 and those rows; of c and d, those rows of a and columns 2 (l % 4)..+2.
inline void mma(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const int (&c)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}

// d += a b for a (16, 16) and b (16, 8) of f16, two in a word: a lane has two columns of a where it has four bytes above, and
// columns 8 further instead of 16. Sums are rounded towards zero.
inline void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 rows of 16 bytes in shared memory; lane 8 i + j has the place of row j of matrix i, and gets bytes
// 4 (l % 4)..+4 of row l / 4 of each.
inline void load_matrices(unsigned (&r)[4], unsigned row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
}

// The same of matrices of f16, transposed: a lane gets column l / 4 of rows 2 (l % 4)..+2 of each.
inline void load_transposed(unsigned (&r)[4], unsigned row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
}

// Words in shared memory.
inline unsigned load4(unsigned from) {
    unsigned r;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(r) : "r"(from));
    return r;
}
inline void store4(unsigned to, unsigned word) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word)); }
inline void store8(unsigned to, unsigned low, unsigned high) {
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(low), "r"(high));
}

// Two f16 in a word, the first in its lower half: the nearest to two floats, and their values.
inline unsigned to_halves(float low, float high) {
    unsigned r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
inline float low_half(unsigned halves) {
    float r;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}" : "=f"(r) : "r"(halves));
    return r;
}
inline float high_half(unsigned halves) {
    float r;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high;}" : "=f"(r) : "r"(halves));
    return r;
}
inline unsigned add_halves(unsigned a, unsigned b) {
    unsigned r;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
inline unsigned multiply_halves(unsigned a, unsigned b) {
    unsigned r;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

// The same number, which compilers keep in a register instead of computing it again and again.
inline unsigned kept(unsigned n) {
    unsigned r;
    asm volatile("mov.b32 %0, %1;" : "=r"(r) : "r"(n));
    return r;
}

// The largest number of a warp's lanes.
inline unsigned largest_of_warp(unsigned own) { return __reduce_max_sync(~0u, own); }

// Starts to copy 16 bytes to shared memory: `bytes` of them, then zeros.
inline void copy16(unsigned to, const void* from, unsigned bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

// Ends a group of copies.
inline void end_copies() { asm volatile("cp.async.commit_group;"); }

// Waits for this thread's groups of copies except the last `N`.
template <int N> inline void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N)); }

#endif

// Pairs: a float times a power of two is the sum of two f16, high + low, up to 2^-23 of it. Below 2^-14 of the largest value
// that the power of two suits, what is lost is 2^-37 of that.

struct Pair {
    unsigned high, low;
};

// Two floats as pairs: the low terms are what rounding left of the high ones.
inline Pair to_pair(float x, float y) {
    const unsigned high = to_halves(x, y);
    return {high, to_halves(x - low_half(high), y - high_half(high))};
}

// The power of two that takes the largest of some values to between 2^12 and 2^13, by the exponent of that with its bias of
// 127. They may grow eightfold before they exceed f16.
inline float suitable(unsigned exponent) {
    const unsigned bounded = exponent < 27 ? 27 : exponent > 254 ? 254 : exponent;
    return __uint_as_float((266 - bounded) << 23);
}

// 1 / it of a power of two.
inline float inverse(float power) { return __uint_as_float((254u << 23) - __float_as_uint(power)); }
