// WGSL's types, operators and functions in CUDA C++; a translated shader follows. It is compiled with
// --device-as-default-execution-space, so no function needs an annotation.
//
// WGSL defines some results that C++ leaves undefined: integers wrap, a division by zero gives the dividend and its remainder
// 0, shift distances are taken modulo 32, and converting a float to an integer saturates.

namespace wgsl {

template <typename T, int N> struct alignas(sizeof(T) * (N == 3 ? 4 : N)) vec {
    T at[N];
    T& operator[](unsigned i) { return at[i]; }
    const T& operator[](unsigned i) const { return at[i]; }
};

template <typename T, unsigned N> struct array {
    T at[N];
    T& operator[](unsigned i) { return at[i]; }
    const T& operator[](unsigned i) const { return at[i]; }
};

// Component j of element i of a buffer. As one index, because shaders that read scalars of such a buffer write n / 4 and n % 4.
template <typename T, int N> inline T& component(vec<T, N>* at, unsigned i, unsigned j) {
    return reinterpret_cast<T*>(at)[i * N + j];
}
template <typename T, int N> inline const T& component(const vec<T, N>* at, unsigned i, unsigned j) {
    return reinterpret_cast<const T*>(at)[i * N + j];
}

constexpr int LEAST = -2147483647 - 1;

// Scalars.

#define OPERATOR(name, op)                                                                      \
    inline float name(float a, float b) { return a op b; }                                      \
    inline unsigned name(unsigned a, unsigned b) { return a op b; }                             \
    inline int name(int a, int b) { return int(unsigned(a) op unsigned(b)); }
OPERATOR(add, +)
OPERATOR(sub, -)
OPERATOR(mul, *)

inline int divisor(int a, int b) { return b == 0 || (a == LEAST && b == -1) ? 1 : b; }
inline float div(float a, float b) { return a / b; }
inline unsigned div(unsigned a, unsigned b) { return a / (b == 0 ? 1 : b); }
inline int div(int a, int b) { return a / divisor(a, b); }
inline float rem(float a, float b) { return fmodf(a, b); }
inline unsigned rem(unsigned a, unsigned b) { return a % (b == 0 ? 1 : b); }
inline int rem(int a, int b) { return a % divisor(a, b); }
inline float neg(float a) { return -a; }
inline int neg(int a) { return int(0u - unsigned(a)); }

#define BITWISE(name, op)                                                                       \
    inline unsigned name(unsigned a, unsigned b) { return a op b; }                             \
    inline int name(int a, int b) { return a op b; }                                            \
    inline bool name(bool a, bool b) { return a op b; }
BITWISE(bit_and, &)
BITWISE(bit_or, |)
BITWISE(bit_xor, ^)
inline unsigned bit_not(unsigned a) { return ~a; }
inline int bit_not(int a) { return ~a; }
inline bool logical_not(bool a) { return !a; }
inline unsigned shl(unsigned a, unsigned b) { return a << (b & 31); }
inline int shl(int a, unsigned b) { return int(unsigned(a) << (b & 31)); }
inline unsigned shr(unsigned a, unsigned b) { return a >> (b & 31); }
inline int shr(int a, unsigned b) { return a >> (b & 31); }

#define COMPARISON(name, op)                                                                    \
    inline bool name(float a, float b) { return a op b; }                                       \
    inline bool name(unsigned a, unsigned b) { return a op b; }                                 \
    inline bool name(int a, int b) { return a op b; }
COMPARISON(eq, ==)
COMPARISON(ne, !=)
COMPARISON(lt, <)
COMPARISON(le, <=)
COMPARISON(gt, >)
COMPARISON(ge, >=)
inline bool eq(bool a, bool b) { return a == b; }
inline bool ne(bool a, bool b) { return a != b; }

inline float to_f32(float a) { return a; }
inline float to_f32(unsigned a) { return float(a); }
inline float to_f32(int a) { return float(a); }
inline float to_f32(bool a) { return a ? 1.0f : 0.0f; }
inline int to_i32(float a) { return !(a > -2147483648.0f) ? (a == a ? LEAST : 0) : a >= 2147483648.0f ? 2147483647 : int(a); }
inline int to_i32(unsigned a) { return int(a); }
inline int to_i32(int a) { return a; }
inline int to_i32(bool a) { return a; }
inline unsigned to_u32(float a) { return !(a > 0.0f) ? 0u : a >= 4294967296.0f ? 0xffffffffu : unsigned(a); }
inline unsigned to_u32(unsigned a) { return a; }
inline unsigned to_u32(int a) { return unsigned(a); }
inline unsigned to_u32(bool a) { return a; }
inline bool to_bool(float a) { return a != 0.0f; }
inline bool to_bool(unsigned a) { return a != 0; }
inline bool to_bool(int a) { return a != 0; }
inline bool to_bool(bool a) { return a; }
inline float bits_f32(float a) { return a; }
inline float bits_f32(unsigned a) { return __uint_as_float(a); }
inline float bits_f32(int a) { return __uint_as_float(unsigned(a)); }
inline unsigned bits_u32(float a) { return __float_as_uint(a); }
inline unsigned bits_u32(unsigned a) { return a; }
inline unsigned bits_u32(int a) { return unsigned(a); }
inline int bits_i32(float a) { return int(__float_as_uint(a)); }
inline int bits_i32(unsigned a) { return int(a); }
inline int bits_i32(int a) { return a; }

inline float min(float a, float b) { return fminf(a, b); }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline float max(float a, float b) { return fmaxf(a, b); }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline float abs(float a) { return fabsf(a); }
inline unsigned abs(unsigned a) { return a; }
inline int abs(int a) { return a < 0 ? neg(a) : a; }
inline float sign(float a) { return a > 0.0f ? 1.0f : a < 0.0f ? -1.0f : 0.0f; }
inline int sign(int a) { return (a > 0) - (a < 0); }
inline float floor(float a) { return floorf(a); }
inline float ceil(float a) { return ceilf(a); }
inline float trunc(float a) { return truncf(a); }
inline float round(float a) { return rintf(a); }
inline float sqrt(float a) { return sqrtf(a); }
inline float inverse_sqrt(float a) { return rsqrtf(a); }
inline float exp(float a) { return expf(a); }
inline float exp2(float a) { return exp2f(a); }
inline float log(float a) { return logf(a); }
inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
inline unsigned count_leading_zeros(unsigned a) { return unsigned(__clz(int(a))); }
inline int count_leading_zeros(int a) { return __clz(a); }
inline unsigned extract_bits(unsigned a, unsigned offset, unsigned count) {
    offset = min(offset, 32u);
    count = min(count, 32 - offset);
    return count == 0 ? 0 : a << (32 - offset - count) >> (32 - count);
}
inline int extract_bits(int a, unsigned offset, unsigned count) {
    offset = min(offset, 32u);
    count = min(count, 32 - offset);
    return count == 0 ? 0 : int(unsigned(a) << (32 - offset - count)) >> (32 - count);
}

// Vectors, component by component; a scalar operand beside a vector is broadcast.

#define LIFT_1(name)                                                                            \
    template <typename T, int N> inline auto name(const vec<T, N>& a) {                         \
        vec<decltype(name(a[0])), N> r;                                                         \
        for (int i = 0; i < N; i++) r[i] = name(a[i]);                                          \
        return r;                                                                               \
    }
#define LIFT_2(name)                                                                            \
    template <typename T, typename U, int N> inline auto name(const vec<T, N>& a, const vec<U, N>& b) { \
        vec<decltype(name(a[0], b[0])), N> r;                                                   \
        for (int i = 0; i < N; i++) r[i] = name(a[i], b[i]);                                    \
        return r;                                                                               \
    }                                                                                           \
    template <typename T, typename U, int N> inline auto name(const vec<T, N>& a, U b) {        \
        vec<decltype(name(a[0], b)), N> r;                                                      \
        for (int i = 0; i < N; i++) r[i] = name(a[i], b);                                       \
        return r;                                                                               \
    }                                                                                           \
    template <typename T, typename U, int N> inline auto name(T a, const vec<U, N>& b) {        \
        vec<decltype(name(a, b[0])), N> r;                                                      \
        for (int i = 0; i < N; i++) r[i] = name(a, b[i]);                                       \
        return r;                                                                               \
    }
LIFT_1(neg) LIFT_1(bit_not) LIFT_1(logical_not) LIFT_1(to_f32) LIFT_1(to_i32) LIFT_1(to_u32) LIFT_1(to_bool)
LIFT_1(bits_f32) LIFT_1(bits_i32) LIFT_1(bits_u32) LIFT_1(abs) LIFT_1(sign) LIFT_1(floor) LIFT_1(ceil) LIFT_1(trunc)
LIFT_1(round) LIFT_1(sqrt) LIFT_1(inverse_sqrt) LIFT_1(exp) LIFT_1(exp2) LIFT_1(log) LIFT_1(count_leading_zeros)
LIFT_2(add) LIFT_2(sub) LIFT_2(mul) LIFT_2(div) LIFT_2(rem) LIFT_2(bit_and) LIFT_2(bit_or) LIFT_2(bit_xor)
LIFT_2(shl) LIFT_2(shr) LIFT_2(eq) LIFT_2(ne) LIFT_2(lt) LIFT_2(le) LIFT_2(gt) LIFT_2(ge) LIFT_2(min) LIFT_2(max)

template <typename T> inline T clamp(const T& a, const T& low, const T& high) { return min(max(a, low), high); }

template <int N> inline auto fma(const vec<float, N>& a, const vec<float, N>& b, const vec<float, N>& c) {
    vec<float, N> r;
    for (int i = 0; i < N; i++) r[i] = fma(a[i], b[i], c[i]);
    return r;
}

template <typename T> inline T select(bool condition, const T& accept, const T& reject) {
    return condition ? accept : reject;
}

template <typename T, int N>
inline vec<T, N> select(const vec<bool, N>& condition, const vec<T, N>& accept, const vec<T, N>& reject) {
    vec<T, N> r;
    for (int i = 0; i < N; i++) r[i] = condition[i] ? accept[i] : reject[i];
    return r;
}

template <int N, typename T> inline vec<T, N> splat(T a) {
    vec<T, N> r;
    for (int i = 0; i < N; i++) r[i] = a;
    return r;
}

template <typename T, int N> inline T dot(const vec<T, N>& a, const vec<T, N>& b) {
    T sum = mul(a[0], b[0]);
    for (int i = 1; i < N; i++) sum = add(sum, mul(a[i], b[i]));
    return sum;
}

inline vec<int, 4> unpack_4x_i8(unsigned a) {
    return vec<int, 4>{int(a << 24) >> 24, int(a << 16) >> 24, int(a << 8) >> 24, int(a) >> 24};
}

inline vec<unsigned, 4> unpack_4x_u8(unsigned a) {
    return vec<unsigned, 4>{a & 255, a >> 8 & 255, a >> 16 & 255, a >> 24};
}

inline int dot_4_i8_packed(unsigned a, unsigned b) {
#if __CUDA_ARCH__ >= 610
    return __dp4a(int(a), int(b), 0);
#else
    return dot(unpack_4x_i8(a), unpack_4x_i8(b));
#endif
}

}  // namespace wgsl
