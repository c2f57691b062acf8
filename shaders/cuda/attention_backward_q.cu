// `attention_backward_q` on the tensor cores of sm_80 and above, for heads of up to 64 elements: a block owns queries and walks
// keys. p = exp(scale * q k - lse), ds = p * (dy v - delta), dq = scale * ds k.

constexpr unsigned W = 32;
typedef attention::Walked<W> Walked;

extern "C" __global__ void __launch_bounds__(256, 1) attention_backward_q_tensor(
    attention::Args args, const float* qkv, unsigned long long, const float* dy, unsigned long long, const float* stats,
    unsigned long long, const unsigned* positions, unsigned long long, float* dqkv, unsigned long long, float*,
    unsigned long long) {
    const unsigned shared = launched_memory(), lane = threadIdx.x % 32, head = blockIdx.y;
    // The last queries see the most keys, so they come first.
    const unsigned first = (gridDim.x - 1 - blockIdx.x) * attention::OWNED, mine = first + threadIdx.x / 32 * 16;
    const unsigned kv_head = head / (args.heads / args.kv_heads);
    const attention::Rows queries = args.rows(qkv, args.queries() + head, args.all()),
                          keys = args.rows(qkv, args.keys() + kv_head, args.all()),
                          values = args.rows(qkv, kv_head, args.all());
    const attention::Owned own_q(queries, mine, shared), own_dy(args.rows(dy, head, args.heads), mine, shared);
    // This lane's two rows.
    const unsigned rows[2] = {mine + lane / 4, mine + lane / 4 + 8};
    unsigned starts[2];
    float lse[2], delta[2];
#pragma unroll
    for (unsigned r = 0; r < 2; r++) {
        starts[r] = args.start(positions, rows[r]);
        const float* stat = stats + (blockIdx.z * args.heads + head) * args.seq + (rows[r] < args.seq ? rows[r] : args.seq - 1);
        lse[r] = attention::LOG2_E * stat[0];
        delta[r] = stat[args.batch * args.heads * args.seq];
    }
    // The first key that the warp's first query sees.
    const unsigned first_start = args.start(positions, mine);
    float acc[8][4] = {};
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
        float s[W / 8][4], dp[W / 8][4];
        Walked::scores(s, own_q, key_tile, args.scale * attention::LOG2_E);
        Walked::scores(dp, own_dy, value_tile);
#pragma unroll
        for (unsigned i = 0; i < W / 2; i++) {
            const unsigned r = i / 2 % 2, t = base + i / 4 * 8 + lane % 4 * 2 + i % 2;
            float& ds = s[i / 4][i % 4];
            const float p = exp2f(ds - lse[r]);
            ds = t >= starts[r] && t <= rows[r] ? p * (dp[i / 4][i % 4] - delta[r]) : 0.0f;
        }
        Walked::weigh(acc, {1.0f, 1.0f}, s, attention::suitable_for(s), key_tile, args.head_dim);
    }
    float* const dq = dqkv + args.start_of(args.queries() + head, args.all());
    attention::store(dq, queries, mine, acc, {args.scale, args.scale});
}
