// Attention on f16 tensor cores, with pairs of f16 (see `tensor.cuh`).
//
// A block of eight warps owns 128 rows of one head, a warp 16 of them, and walks the rows of the other side `W` at a time. A
// tile of scores has a row for each owned one. Every warp brings W / 8 of the walked rows, which have a power of two of their
// own. Sums are added to those of other tiles outside of tensor cores, which round towards zero.

namespace attention {

// Elements of a head at most, owned rows, and bytes of a row of f16: padded, so that eight rows lie in different banks.
constexpr unsigned DIM = 64, OWNED = 128, ROW = 2 * DIM + 16;
constexpr float LOG2_E = 1.4426950408889634f;

// Rows of a head in memory: row t is at `from + t * stride`.
struct Rows {
    const float* from;
    unsigned stride, rows, dim;

    // Four elements for each lane; half a warp has a row.
    float4 four(unsigned row) const {
        const unsigned col = threadIdx.x % 16 * 4;
        if (row >= rows || col >= dim) return {0.0f, 0.0f, 0.0f, 0.0f};
        return *reinterpret_cast<const float4*>(from + size_t(row) * stride + col);
    }
};

inline float larger(float most, const float4& v) {
    return fmaxf(fmaxf(fmaxf(most, fabsf(v.x)), fmaxf(fabsf(v.y), fabsf(v.z))), fabsf(v.w));
}

inline float suitable_for_warp(float most) { return suitable(largest_of_warp(__float_as_uint(most)) >> 23); }

// Stores four elements of a row, and the low terms `bytes` behind them.
inline void put(unsigned to, unsigned bytes, const float4& v, float scale) {
    const Pair xy = to_pair(v.x * scale, v.y * scale), zw = to_pair(v.z * scale, v.w * scale);
    store8(to, xy.high, zw.high);
    store8(to + bytes, xy.low, zw.low);
}

// This warp's owned rows, as the left factor of scores.
struct Owned {
    unsigned terms[2][4][4];
    float unscaled;

    Owned(const Rows& rows, unsigned first, unsigned shared) {
        const unsigned lane = threadIdx.x % 32, at = shared + threadIdx.x / 32 * 32 * ROW;
        float4 raw[8];
        float most = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < 8; i++) most = larger(most, raw[i] = rows.four(first + i * 2 + lane / 16));
        const float scale = suitable_for_warp(most);
        unscaled = inverse(scale);
#pragma unroll
        for (unsigned i = 0; i < 8; i++) put(at + (i * 2 + lane / 16) * ROW + lane % 16 * 8, 16 * ROW, raw[i], scale);
        __syncwarp();
#pragma unroll
        for (unsigned i = 0; i < 8; i++)
            load_matrices(terms[i / 4][i % 4], at + (i / 4 * 16 + lane % 16) * ROW + lane / 16 * 16 + i % 4 * 32);
        __syncwarp();
    }
};

// `W` walked rows of one factor.
template <unsigned W> struct Walked {
    // Bytes of a term in shared memory, and of both with 1 / the power of two of each warp's rows.
    static constexpr unsigned TERM = W * ROW, BYTES = 2 * TERM + 32;
    float4 raw[W / 16];

    static unsigned mine(unsigned i) { return threadIdx.x / 32 * (W / 8) + i * 2 + threadIdx.x % 32 / 16; }

    void load(const Rows& rows, unsigned base) {
#pragma unroll
        for (unsigned i = 0; i < W / 16; i++) raw[i] = rows.four(base + mine(i));
    }

    void put(unsigned tile) const {
        float most = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < W / 16; i++) most = larger(most, raw[i]);
        const float scale = suitable_for_warp(most);
#pragma unroll
        for (unsigned i = 0; i < W / 16; i++)
            attention::put(tile + mine(i) * ROW + threadIdx.x % 16 * 8, TERM, raw[i], scale);
        if (threadIdx.x % 32 == 0) store4(tile + 2 * TERM + threadIdx.x / 8, __float_as_uint(inverse(scale)));
    }

    // 1 / the power of two of a warp's rows, and that of the rows that are this lane's columns of the n-th 8 of a tile.
    static float unscaled_by(unsigned tile, unsigned warp) { return __uint_as_float(load4(tile + 2 * TERM + warp * 4)); }
    static float unscaled(unsigned tile, unsigned n) {
        return unscaled_by(tile, (n * 8 + threadIdx.x % 4 * 2) / (W / 8));
    }

    // The products of owned and walked rows, times `factor`.
    static void scores(float (&s)[W / 8][4], const Owned& own, unsigned tile, float factor = 1.0f) {
        const unsigned lane = threadIdx.x % 32, at = tile + (lane % 8 + lane / 16 * 8) * ROW + lane / 8 % 2 * 16;
#pragma unroll
        for (unsigned i = 0; i < W / 2; i++) s[i / 4][i % 4] = 0.0f;
#pragma unroll
        for (unsigned j = 0; j < 4; j++)
#pragma unroll
            for (unsigned n = 0; n < W / 16; n++) {
                unsigned high[4], low[4];
                load_matrices(high, at + n * 16 * ROW + j * 32);
                load_matrices(low, at + TERM + n * 16 * ROW + j * 32);
                multiply(s[2 * n], s[2 * n + 1], own.terms[0][j], own.terms[1][j], high, low);
            }
#pragma unroll
        for (unsigned n = 0; n < W / 8; n++) {
            const float by = factor * own.unscaled * unscaled(tile, n);
#pragma unroll
            for (unsigned c = 0; c < 4; c++) s[n][c] *= by;
        }
    }

    // acc * keep + weights * walked rows. The weights times `scale` fit into f16; a lane has two rows of `acc`.
    static void weigh(float (&acc)[8][4], const float (&keep)[2], const float (&weights)[W / 8][4], float scale,
                      unsigned tile, unsigned dim) {
        float most = 0.0f;
#pragma unroll
        for (unsigned i = 0; i < 8; i++) most = fmaxf(most, unscaled_by(tile, i));
        // Rows with a larger power of two than others weigh less.
        Pair left[W / 16][4];
#pragma unroll
        for (unsigned n = 0; n < W / 8; n++) {
            const float by = scale * (unscaled(tile, n) * inverse(most));
            left[n / 2][n % 2 * 2] = to_pair(weights[n][0] * by, weights[n][1] * by);
            left[n / 2][n % 2 * 2 + 1] = to_pair(weights[n][2] * by, weights[n][3] * by);
        }
        const unsigned lane = threadIdx.x % 32, at = tile + lane % 16 * ROW + lane / 16 * 16;
        const float unscaled = most * inverse(scale);
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            if (half * 32 >= dim) break;
            float sum[4][4] = {};
#pragma unroll
            for (unsigned i = 0; i < W / 8; i++) {
                const unsigned k = i / 2, n = i % 2;
                unsigned high[4], low[4], x[4], y[4];
#pragma unroll
                for (unsigned r = 0; r < 4; r++) x[r] = left[k][r].high, y[r] = left[k][r].low;
                load_transposed(high, at + k * 16 * ROW + half * 64 + n * 32);
                load_transposed(low, at + TERM + k * 16 * ROW + half * 64 + n * 32);
                multiply(sum[2 * n], sum[2 * n + 1], x, y, high, low);
            }
#pragma unroll
            for (unsigned i = 0; i < 16; i++) {
                float& to = acc[half * 4 + i / 4][i % 4];
                to = to * keep[i / 2 % 2] + sum[i / 4][i % 4] * unscaled;
            }
        }
    }

    // Adds products of pairs to two neighbours.
    static void multiply(float (&left)[4], float (&right)[4], const unsigned (&x)[4], const unsigned (&y)[4],
                         const unsigned (&high)[4], const unsigned (&low)[4]) {
        mma(left, x, low[0], low[1]);
        mma(right, x, low[2], low[3]);
        mma(left, y, high[0], high[1]);
        mma(right, y, high[2], high[3]);
        mma(left, x, high[0], high[1]);
        mma(right, x, high[2], high[3]);
    }
};

// The power of two for the weights of a warp.
template <unsigned N> inline float suitable_for(const float (&weights)[N][4]) {
    float most = 0.0f;
#pragma unroll
    for (unsigned i = 0; i < 4 * N; i++) most = fmaxf(most, fabsf(weights[i / 4][i % 4]));
    return suitable_for_warp(most);
}

// Stores this warp's rows: results times `by`, of each of the two rows of a lane.
inline void store(float* to, const Rows& like, unsigned first, const float (&acc)[8][4], const float (&by)[2]) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned i = 0; i < 16; i++) {
        const unsigned row = first + lane / 4 + i % 2 * 8, col = i / 2 * 8 + lane % 4 * 2;
        if (row >= like.rows || col >= like.dim) continue;
        float* at = to + size_t(row) * like.stride + col;
        at[0] = acc[i / 2][i % 2 * 2] * by[i % 2];
        at[1] = acc[i / 2][i % 2 * 2 + 1] * by[i % 2];
    }
}

struct Args {
    unsigned batch, seq, heads, kv_heads, head_dim;
    float scale;

    // The first row that row t of a sequence sees.
    unsigned start(const unsigned* positions, unsigned t) const {
        const unsigned position = positions[blockIdx.z * seq + (t < seq ? t : seq - 1)];
        return t - (t < position ? t : position);
    }
    // Heads in a row of values, keys and queries, in this order, and the first of its keys and queries.
    unsigned all() const { return 2 * kv_heads + heads; }
    unsigned keys() const { return kv_heads; }
    unsigned queries() const { return 2 * kv_heads; }
    // A head's first element in memory, and all rows of a head of this sequence, of `of` heads.
    size_t start_of(unsigned head, unsigned of) const { return (size_t(blockIdx.z) * seq * of + head) * head_dim; }
    Rows rows(const float* from, unsigned head, unsigned of) const {
        return {from + start_of(head, of), of * head_dim, seq, head_dim};
    }
};

}  // namespace attention
