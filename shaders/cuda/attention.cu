// `attention` on the tensor cores of sm_80 and above, for heads of up to 64 elements. A block owns queries and walks keys.

constexpr unsigned W = 64;
typedef attention::Walked<W> Walked;

extern "C" __global__ void __launch_bounds__(256, 1) attention_tensor(
    attention::Args args, const float* qkv, unsigned long long, const unsigned* positions, unsigned long long, float* y,
    unsigned long long, float* lse, unsigned long long, float*, unsigned long long) {
    const unsigned shared = launched_memory(), lane = threadIdx.x % 32, head = blockIdx.y;
    // The last queries see the most keys, so they come first.
    const unsigned first = (gridDim.x - 1 - blockIdx.x) * attention::OWNED, mine = first + threadIdx.x / 32 * 16;
    const unsigned kv_head = head / (args.heads / args.kv_heads);
    const attention::Rows queries = args.rows(qkv, args.queries() + head, args.all()),
                          keys = args.rows(qkv, args.keys() + kv_head, args.all()),
                          values = args.rows(qkv, kv_head, args.all());
    const attention::Owned own(queries, mine, shared);
    // This lane's two rows.
    const unsigned rows[2] = {mine + lane / 4, mine + lane / 4 + 8};
    const unsigned starts[2] = {args.start(positions, rows[0]), args.start(positions, rows[1])};
    // The first keys that the warp's first and last query see.
    const unsigned first_start = args.start(positions, mine), last_start = args.start(positions, mine + 15);
    // Above the score of a key that is not seen, so that its weight is 0.
    float most[2] = {-1e29f, -1e29f}, total[2] = {}, acc[8][4] = {};
    const unsigned begin = args.start(positions, first), after = first + attention::OWNED;
    const unsigned end = after < args.seq ? after : args.seq;
    Walked key, value;
    key.load(keys, begin);
    value.load(values, begin);
    __syncthreads();
#pragma unroll 1
    for (unsigned base = begin, stage = 0; base < end; base += W, stage = 2 * Walked::BYTES - stage) {
        const unsigned key_tile = shared + stage, value_tile = key_tile + Walked::BYTES;
        key.put(key_tile);
        value.put(value_tile);
        key.load(keys, base + W);
        value.load(values, base + W);
        __syncthreads();
        if (base > mine + 15 || base + W <= first_start) continue;
        float s[W / 8][4];
        Walked::scores(s, own, key_tile, args.scale * attention::LOG2_E);
        if (base < last_start || base + W > mine + 1) {
#pragma unroll
            for (unsigned i = 0; i < W / 2; i++) {
                const unsigned r = i / 2 % 2, t = base + i / 4 * 8 + lane % 4 * 2 + i % 2;
                if (t < starts[r] || t > rows[r]) s[i / 4][i % 4] = -1e30f;
            }
        }
        float top[2] = {most[0], most[1]}, keep[2];
#pragma unroll
        for (unsigned i = 0; i < W / 2; i++) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[i / 4][i % 4]);
#pragma unroll
        for (unsigned r = 0; r < 2; r++) {
            top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
            top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
            keep[r] = exp2f(most[r] - top[r]);
            most[r] = top[r];
            total[r] *= keep[r];
        }
#pragma unroll
        for (unsigned i = 0; i < W / 2; i++) {
            float& weight = s[i / 4][i % 4];
            weight = exp2f(weight - top[i / 2 % 2]);
            total[i / 2 % 2] += weight;
        }
        Walked::weigh(acc, keep, s, 4096.0f, value_tile, args.head_dim);
    }
    float by[2];
#pragma unroll
    for (unsigned r = 0; r < 2; r++) {
        total[r] += __shfl_xor_sync(~0u, total[r], 1);
        total[r] += __shfl_xor_sync(~0u, total[r], 2);
        by[r] = 1.0f / total[r];
        if (lane % 4 == 0 && rows[r] < args.seq)
            lse[(blockIdx.z * args.heads + head) * args.seq + rows[r]] = most[r] / attention::LOG2_E + logf(total[r]);
    }
    attention::store(y + args.start_of(head, args.heads), args.rows(y, head, args.heads), mine, acc, by);
}
