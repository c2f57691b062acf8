// Matrix products (m, k) x (k, n) of floats on f16 tensor cores.
//
// A product of pairs is high high + high low + low high, and one with a factor that is exact in f16 is high exact + low exact.
// With one term of each float, results are those of floats that are rounded to 11 significant bits.
// A block has a power of two for each factor. Where a step holds a value that exceeds it, the block takes another one, and
// scales what it has summed up.
// Tensor cores round sums towards zero (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"), so one step's sums are
// added to the others outside of them (Ootomo and Yokota 2022, "Recovering single precision accuracy from Tensor Cores").
//
// A block of eight warps computes 128 x 128 results, a warp 64 x 32 of them. A step takes 32 of k through one of two stages of
// shared memory. While a warp multiplies 16 of its rows, it converts one of its four pieces of the next step and starts to load
// that of the step after. Several blocks may share a tile: each sums up a part of k into `scratch`; `add_parts` adds them in order.

namespace product {

constexpr unsigned SIDE = 128, STEP = 32, AREA = SIDE * SIDE;

// A factor's tile in shared memory, as in the matrix: k along a row, or across rows. Rows are padded so that the eight rows of
// a matrix for the tensor cores lie in different banks. A thread brings four pieces of four neighbours.
template <bool ALONG> struct Tile {
    static constexpr unsigned ROW = 2 * (ALONG ? STEP : SIDE) + 16, BYTES = (ALONG ? SIDE : STEP) * ROW;
    // A row for each eight threads; sixteen threads that store at once hit different banks.
    static unsigned row() {
        const unsigned slot = threadIdx.x / 8;
        return slot % 2 * 4 + slot / 2 % 4 + slot / 8 * 8;
    }
    // A piece's place along the tile's side, and along k.
    static unsigned side(unsigned piece) { return ALONG ? row() + piece * 32 : threadIdx.x % 32 * 4; }
    static unsigned k(unsigned piece) { return ALONG ? threadIdx.x % 8 * 4 : threadIdx.x / 32 + piece * 8; }
    // Its bytes in the tile.
    unsigned first_at = kept(ALONG ? side(0) * ROW + k(0) * 2 : k(0) * ROW + side(0) * 2);
    unsigned at(unsigned piece) const { return first_at + piece * (ALONG ? 32 : 8) * ROW; }
    // Where this lane finds its row of the matrices that `fragment` loads: those of a left and of a right factor.
    static unsigned left(unsigned first) {
        const unsigned lane = threadIdx.x % 32;
        return ALONG ? (first + lane % 16) * ROW + lane / 16 * 16
                     : (lane % 8 + lane / 16 * 8) * ROW + (first + lane / 8 % 2 * 8) * 2;
    }
    static unsigned right(unsigned first) {
        const unsigned lane = threadIdx.x % 32;
        return ALONG ? (first + lane % 8 + lane / 16 * 8) * ROW + lane / 8 % 2 * 16
                     : lane % 16 * ROW + (first + lane / 16 * 8) * 2;
    }
    // Loads 16 x 16 values: the i-th along the side, the j-th along k.
    static void fragment(unsigned (&r)[4], unsigned from, unsigned i, unsigned j) {
        if (ALONG) load_matrices(r, from + i * 16 * ROW + j * 32);
        else load_transposed(r, from + j * 16 * ROW + i * 32);
    }
};

// The largest of the block's numbers below 256.
inline unsigned largest_of_block(unsigned own) {
    unsigned most = 0;
    for (unsigned bit = 128; bit > 0; bit /= 2)
        if (__syncthreads_or(own >= (most | bit))) most |= bit;
    return most;
}

// A factor of floats, held as `N` f16 each. Element (i, k) is at `from[i * pitch + k]`, or at `from[k * pitch + i]` across; those
// below `side` and `end` exist. `WIDE` promises that four neighbours are aligned. With `STEPS`, across, each is multiplied by
// `steps[start + k]`.
template <bool ALONG, unsigned N, bool WIDE = false, bool STEPS = false> struct Floats : Tile<ALONG> {
    typedef Tile<ALONG> T;
    static constexpr unsigned TERMS = N;
    const float *from, *steps;
    unsigned pitch, first, side, end, start;
    bool wide;
    // How far each piece may go along k: nowhere beside the matrix.
    unsigned bound[ALONG ? 4 : 1];
    // A power of two by which values are multiplied, and the largest product of the pieces that were put.
    float scale = suitable(0), most = 0.0f;
    float4 raw[4];
    float lane_by, by[4];

    Floats(const float* from, unsigned pitch, unsigned first, unsigned side, unsigned end, const float* steps = nullptr,
           unsigned start = 0)
        : from(from), steps(steps), pitch(pitch), first(first), side(side), end(end), start(start),
          wide(WIDE || pitch % 4 == 0 && size_t(from) % 16 == 0) {
#pragma unroll
        for (unsigned piece = 0; piece < (ALONG ? 4 : 1); piece++) bound[piece] = first + T::side(piece) < side ? end : 0;
    }

    void load(unsigned piece, unsigned step) {
        const unsigned i = first + T::side(piece), k = step + T::k(piece), bound = this->bound[ALONG ? piece : 0];
        const float* at = from + (ALONG ? i * pitch + k : k * pitch + i);
        float4 r = {0.0f, 0.0f, 0.0f, 0.0f};
        if (wide) {
            if (k < bound) r = *reinterpret_cast<const float4*>(at);
        } else {
            // Of four neighbours, those up to `last` exist.
            const unsigned next = ALONG ? k : i, last = ALONG ? bound : k < bound ? side : 0;
            if (next < last) r.x = at[0];
            if (next + 1 < last) r.y = at[1];
            if (next + 2 < last) r.z = at[2];
            if (next + 3 < last) r.w = at[3];
        }
        raw[piece] = r;
        if (STEPS && piece == 0) {
            const unsigned k = step + threadIdx.x % 32;
            lane_by = k < end ? steps[start + k] : 0.0f;
        }
    }

    // A lane of each warp has loaded the factor of each of k.
    void share() {
        if (STEPS)
#pragma unroll
            for (unsigned piece = 0; piece < 4; piece++) by[piece] = __shfl_sync(~0u, lane_by, T::k(piece));
    }
    float factor(unsigned piece) const { return STEPS ? by[piece] : 1.0f; }

    // Chooses another scale if the step's finite values exceed this one. Returns by how much results change.
    float fit() {
        share();
        float own = 0.0f;
#pragma unroll
        for (unsigned piece = 0; piece < 4; piece++) {
            const float4& v = raw[piece];
            const float all[4] = {fabsf(v.x), fabsf(v.y), fabsf(v.z), fabsf(v.w)};
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                const float it = all[i] * fabsf(factor(piece));
                own = it > own && it < __int_as_float(0x7f800000) ? it : own;
            }
        }
        const unsigned exponent = largest_of_block(__float_as_uint(own) >> 23);
        const float before = scale, another = suitable(exponent);
        if (another * 4.0f >= scale) return 1.0f;
        scale = another;
        return scale * inverse(before);
    }
    float unscaled() const { return inverse(scale); }
    bool exceeds() const { return most > 32768.0f; }

    // Stores a piece as f16.
    void put(unsigned piece, unsigned tile) {
        if (piece == 0) share();
        const float s = scale * factor(piece);
        const float x = raw[piece].x * s, y = raw[piece].y * s, z = raw[piece].z * s, w = raw[piece].w * s;
        most = fmaxf(fmaxf(fmaxf(most, fabsf(x)), fmaxf(fabsf(y), fabsf(z))), fabsf(w));
        const Pair xy = to_pair(x, y), zw = to_pair(z, w);
        const unsigned to = tile + T::at(piece);
        store8(to, xy.high, zw.high);
        if (N > 1) store8(to + T::BYTES, xy.low, zw.low);
    }
};

// What a factor that is exact in f16 has instead of a scale.
template <bool ALONG> struct Exact : Tile<ALONG> {
    static constexpr unsigned TERMS = 1;
    float most = 0.0f;
    float fit() { return 1.0f; }
    float unscaled() const { return 1.0f; }
    bool exceeds() const { return false; }
};

// Two f16 in a word: bytes 2 i and 2 i + 1 of a word, below 256, minus `bias`.
template <unsigned I> inline unsigned bytes_to_halves(unsigned bytes, float bias) {
    // The bits of an f16 from 1,024 to 2,047 count in ones.
    const float less = -1024.0f - bias;
    return add_halves(__byte_perm(bytes, 0x64646464, I == 0 ? 0x4140 : 0x4342), to_halves(less, less));
}

// Adds up this block's part of k, from `k` to `end`.
template <class Left, class Right>
inline void sum_up(float (&acc)[4][4][4], Left& a, Right& b, unsigned k, unsigned end) {
    constexpr unsigned RIGHT = Left::TERMS * Left::BYTES, STAGE = RIGHT + Right::TERMS * Right::BYTES;
    const unsigned shared = launched_memory(), warp = threadIdx.x / 32;
    const unsigned left = kept(shared + Left::left(warp % 2 * 64)), right = kept(shared + RIGHT + Right::right(warp / 2 * 32));
    bool fits = false;
#pragma unroll 1
    for (unsigned stage = 0; k < end; k += STEP, stage = STAGE - stage) {
        const unsigned next = shared + STAGE - stage;
        if (!fits) {
#pragma unroll
            for (unsigned piece = 0; piece < 4; piece++) a.load(piece, k), b.load(piece, k);
            const float change[2] = {a.fit(), b.fit()};
#pragma unroll
            for (unsigned i = 0; i < 64; i++) acc[i / 16][i / 4 % 4][i % 4] = acc[i / 16][i / 4 % 4][i % 4] * change[0] * change[1];
#pragma unroll
            for (unsigned piece = 0; piece < 4; piece++) {
                a.put(piece, shared + stage);
                b.put(piece, shared + stage + RIGHT);
                a.load(piece, k + STEP), b.load(piece, k + STEP);
            }
            __syncthreads();
        }
        a.most = b.most = 0.0f;
        unsigned w[2][Right::TERMS][2][4];
#pragma unroll
        for (unsigned i = 0; i < 4 * Right::TERMS; i++)
            Right::fragment(w[i % 2][i / 4][i / 2 % 2], right + stage + i / 4 * Right::BYTES, i / 2 % 2, i % 2);
#pragma unroll
        for (unsigned m = 0; m < 4; m++) {
            float sum[4][4] = {};
#pragma unroll
            for (unsigned j = 0; j < 2; j++) {
                unsigned v[Left::TERMS][4];
#pragma unroll
                for (unsigned term = 0; term < Left::TERMS; term++)
                    Left::fragment(v[term], left + stage + term * Left::BYTES, m, j);
                // The smallest products first, that of both low terms never.
#pragma unroll
                for (unsigned order = 3; order-- > 0;) {
                    const unsigned x = order & 1, y = order >> 1;
                    if (x >= Left::TERMS || y >= Right::TERMS) continue;
#pragma unroll
                    for (unsigned n = 0; n < 4; n++) {
                        const unsigned(&right)[4] = w[j][y][n / 2];
                        mma(sum[n], v[x], right[n % 2 * 2], right[n % 2 * 2 + 1]);
                    }
                }
            }
#pragma unroll
            for (unsigned i = 0; i < 16; i++) acc[m][i / 4][i % 4] += sum[i / 4][i % 4];
            a.put(m, next), b.put(m, next + RIGHT);
            a.load(m, k + 2 * STEP), b.load(m, k + 2 * STEP);
        }
        fits = !__syncthreads_or(a.exceeds() || b.exceeds());
    }
}

// A block's place in a batch of products.
struct Place {
    unsigned row = blockIdx.y * SIDE, col = blockIdx.x * SIDE;
    unsigned parts, matrix, k, end;
    // Its tile of `scratch`, and the distance to that of the next part.
    size_t tile, next = size_t(gridDim.x) * gridDim.y * AREA;

    Place(unsigned batch, unsigned whole) : parts(gridDim.z / batch), matrix(blockIdx.z / parts) {
        const unsigned range = (whole + STEP * parts - 1) / (STEP * parts) * STEP, part = blockIdx.z % parts;
        k = part * range;
        end = k + range < whole ? k + range : whole;
        tile = (size_t(matrix * parts * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * AREA;
    }
    unsigned part() const { return blockIdx.z % parts; }
};

// What becomes of a result: to = alpha * it + beta * from, without `from` if beta is 0; also of its mirror image.
struct Result {
    float* to;
    const float* from;
    unsigned rows, cols;
    float alpha, beta;
    bool mirrored = false;

    void store_at(unsigned i, float value) const {
        const float result = alpha * value;
        to[i] = beta == 0.0f ? result : result + beta * from[i];
    }
    void store(unsigned row, unsigned col, float value) const {
        if (row >= rows || col >= cols) return;
        store_at(row * cols + col, value);
        if (mirrored) store_at(col * cols + row, value);
    }
};

// A block's share of a product: its results, or those of its part of k.
template <class Left, class Right>
inline void multiply(Left a, Right b, const Place& place, const Result& result, float* scratch) {
    float acc[4][4][4] = {};
    sum_up(acc, a, b, place.k, place.end);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned row0 = warp % 2 * 64 + lane / 4, col0 = warp / 2 * 32 + lane % 4 * 2;
    scratch += place.tile + place.part() * place.next;
#pragma unroll
    for (unsigned i = 0; i < 64; i++) {
        const unsigned row = row0 + i / 16 * 16 + i / 2 % 2 * 8, col = col0 + i / 4 % 4 * 8 + i % 2;
        const float value = acc[i / 16][i / 4 % 4][i % 4] * a.unscaled() * b.unscaled();
        if (place.parts == 1) result.store(place.row + row, place.col + col, value);
        else scratch[row * SIDE + col] = value;
    }
}

// Adds up the parts of a tile in order. Each block that summed up a part does a share of the tile.
inline void add_parts(const Place& place, const Result& result, const float* scratch) {
    for (unsigned i = place.part() * 256 + threadIdx.x; i < AREA; i += place.parts * 256) {
        float sum = 0.0f;
        for (unsigned part = 0; part < place.parts; part++) sum += scratch[place.tile + part * place.next + i];
        result.store(place.row + i / SIDE, place.col + i % SIDE, sum);
    }
}

}  // namespace product
