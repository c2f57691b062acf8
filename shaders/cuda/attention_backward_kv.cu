// `attention_backward_kv` on the tensor cores of sm_80 and above, for heads of up to 64 elements: a block owns keys and walks
// the queries that see them, head after head. p = exp(scale * q k - lse), dv = p^T dy, dk = scale * ds^T q with ds = p * (dy v -
// delta).

constexpr unsigned W = 32;
typedef attention::Walked<W> Walked;
// The queries' lse in units of log(2), delta, and the first rows that they see lie behind both factors.
constexpr unsigned STATS = 2 * Walked::BYTES, STAGE = STATS + 3 * W * 4;

extern "C" __global__ void __launch_bounds__(256, 1) attention_backward_kv_tensor(
    attention::Args args, const float* qkv, unsigned long long, const float* dy, unsigned long long, const float* stats,
    unsigned long long, const unsigned* positions, unsigned long long, float* dqkv, unsigned long long, float*,
    unsigned long long) {
    const unsigned shared = launched_memory(), lane = threadIdx.x % 32, kv_head = blockIdx.y;
    const unsigned first = blockIdx.x * attention::OWNED, mine = first + threadIdx.x / 32 * 16;
    const attention::Rows keys = args.rows(qkv, args.keys() + kv_head, args.all());
    const attention::Owned own_k(keys, mine, shared), own_v(args.rows(qkv, kv_head, args.all()), mine, shared);
    float acc_k[8][4] = {}, acc_v[8][4] = {};
    const unsigned sharing = args.heads / args.kv_heads;
    unsigned stage = 0;
    __syncthreads();
    for (unsigned head = kv_head * sharing; head < (kv_head + 1) * sharing; head++) {
        const attention::Rows queries = args.rows(qkv, args.queries() + head, args.all()),
                              gradients = args.rows(dy, head, args.heads);
        const float* stat = stats + (blockIdx.z * args.heads + head) * args.seq;
        Walked query, gradient;
        query.load(queries, first);
        gradient.load(gradients, first);
#pragma unroll 1
        for (unsigned base = first; base < args.seq; base += W) {
            // From here on, no document reaches back to these keys.
            const unsigned start = args.start(positions, base);
            if (start >= first + attention::OWNED) break;
            const unsigned query_tile = shared + stage, gradient_tile = query_tile + Walked::BYTES, about = query_tile + STATS;
            query.put(query_tile);
            gradient.put(gradient_tile);
            if (threadIdx.x < W) {
                const unsigned row = base + threadIdx.x, t = row < args.seq ? row : args.seq - 1;
                store4(about + threadIdx.x * 4, __float_as_uint(attention::LOG2_E * stat[t]));
                store4(about + (W + threadIdx.x) * 4, __float_as_uint(stat[args.batch * args.heads * args.seq + t]));
                // A row behind the last one sees no key.
                store4(about + (2 * W + threadIdx.x) * 4, row < args.seq ? args.start(positions, row) : ~0u);
            }
            query.load(queries, base + W);
            gradient.load(gradients, base + W);
            __syncthreads();
            stage = STAGE - stage;
            if (base + W <= mine || start > mine + 15) continue;
            float p[W / 8][4], ds[W / 8][4];
            Walked::scores(p, own_k, query_tile, args.scale * attention::LOG2_E);
            Walked::scores(ds, own_v, gradient_tile);
#pragma unroll
            for (unsigned i = 0; i < W / 4; i++) {
                const unsigned at = i / 2 * 8 + lane % 4 * 2 + i % 2, row = base + at;
                const float lse = __uint_as_float(load4(about + at * 4)), delta = __uint_as_float(load4(about + (W + at) * 4));
                const unsigned sees = load4(about + (2 * W + at) * 4);
#pragma unroll
                for (unsigned r = 0; r < 2; r++) {
                    const unsigned key = mine + lane / 4 + r * 8;
                    float &weight = p[i / 2][r * 2 + i % 2], &gradient = ds[i / 2][r * 2 + i % 2];
                    weight = key >= sees && key <= row ? exp2f(weight - lse) : 0.0f;
                    gradient = weight * (gradient - delta);
                }
            }
            Walked::weigh(acc_v, {1.0f, 1.0f}, p, attention::suitable_for(p), gradient_tile, args.head_dim);
            Walked::weigh(acc_k, {1.0f, 1.0f}, ds, attention::suitable_for(ds), query_tile, args.head_dim);
        }
    }
    float *const dk = dqkv + args.start_of(args.keys() + kv_head, args.all()),
                 *const dv = dqkv + args.start_of(kv_head, args.all());
    attention::store(dk, keys, mine, acc_k, {args.scale, args.scale});
    attention::store(dv, keys, mine, acc_v, {1.0f, 1.0f});
}
