#line 2 "states.cuh"
// The states between chunks, in f32 registers, by going through the chunks of a sequence.

// A team of four warps has the state of one slice of a head; a warp has 64 of the 128 rows and 16 of the 32 columns.
constexpr int TEAM = 128;
struct State {
    float x[4][2][4]; // row tiles, column tiles, C fragments

    // An entry of a state in f32, in the order of the threads: [32, TEAM].
    template <typename F> __device__ __forceinline__ void each(F f) {
#pragma unroll
        for (int i = 0; i < 32; i++) f(i * TEAM + threadIdx.x % TEAM, x[i / 8][i / 4 % 2][i % 4]);
    }

    __device__ __forceinline__ void store(bf16 *to) const {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, g = lane / 4, q = lane % 4;
#pragma unroll
        for (int m = 0; m < 4; m++) {
            u32 word[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float *c = x[m][k % 2] + k / 2 * 2;
                word[k] = round_bf16x2(c[0], c[1]);
            }
            transpose_quad(word);
            int row = warp % 2 * 64 + m * 16 + q / 2 * 8 + g, piece = warp / 2 * 2 + q % 2;
            *reinterpret_cast<uint4 *>(to + row * SLICE + piece * 8) = make_uint4(word[0], word[1], word[2], word[3]);
        }
    }

    // x = decay x + sum_t weight_t (row t of `rows` [CHUNK, N]) (x) (row t of `columns` [CHUNK, P]); the weights are
    // dt 2^(last - log) forwards and 2^log backwards.
    __device__ __forceinline__ void step(u32 rows, u32 columns, const float *dt, const float *log, bool backwards) {
        int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, q = lane % 4;
        float last = log[CHUNK - 1], decay = power2(last);
#pragma unroll
        for (int i = 0; i < 32; i++) x[i / 8][i / 4 % 2][i % 4] *= decay;
#pragma unroll
        for (int k = 0; k < CHUNK / 16; k++) {
            float weight[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int t = k * 16 + i / 2 * 8 + 2 * q + i % 2;
                weight[i] = backwards ? power2(log[t]) : dt[t] * power2(last - log[t]);
            }
            u32 b[4];
            read_b<SLICE>(b, columns, k * 16, warp / 2 * 2);
#pragma unroll
            for (int i = 0; i < 4; i++)
                b[i] = round_bf16x2(low(b[i]) * weight[i % 2 * 2], high(b[i]) * weight[i % 2 * 2 + 1]);
#pragma unroll
            for (int m = 0; m < 4; m++) {
                u32 a[4];
                read_a_of_transpose<STATE>(a, rows, k * 16, warp % 2 * 8 + m * 2);
                mma2(x[m][0], x[m][1], a, b);
            }
        }
    }
};

// Shared memory of a stage: the rows of B (or C), and for each team the columns of x (or dy), dt and log decay.
constexpr int STEPS_BYTES = CHUNK * 4;
constexpr int TEAM_BYTES = TILE_BYTES<SLICE> + 2 * STEPS_BYTES;

// For blockIdx.z = 0 the states S before each chunk, from the first to the last; for 1 their gradients R after each
// chunk, from the last to the first; each [B, chunks, H slices, N, P] in bf16, R behind S. blockIdx.y counts segments
// of `each` chunks: they start from `starts` if that is given, else from zero, and leave their final state in `ends` if
// that is; both in f32, [direction, B, H slices, segments, 32, TEAM]. Teams of a block share B or C.
extern "C" __global__ void __launch_bounds__(3 * TEAM, 2)
    chunk_states(bf16 *states, float *ends, const float *starts, const bf16 *xbc, const bf16 *dy, const float *dt,
                 const float *log_decay, int batch, int len, int heads, int slices, int groups, int each) {
    constexpr int STAGES = 3;
    extern __shared__ __align__(128) u8 shared[];
    Sizes sizes(len, heads, slices, groups);
    int teams = blockDim.x / TEAM, team = threadIdx.x / TEAM, thread = threadIdx.x % TEAM;
    int task = blockIdx.x * teams + team, sequence = task / sizes.wide(), slice = task % sizes.wide();
    bool backwards = blockIdx.z == 1;
    int from = blockIdx.y * each, to = min(sizes.chunks, from + each), group = sizes.group(slice);
    i64 row0 = (i64)sequence * len, columns_stride = backwards ? sizes.inner() : sizes.stride();
    const bf16 *rows_from = xbc + row0 * sizes.stride() + (backwards ? sizes.c(group) : sizes.b(group));
    const bf16 *columns_from = (backwards ? dy : xbc) + row0 * columns_stride + slice * SLICE;
    i64 end = ((((i64)blockIdx.z * batch + sequence) * sizes.wide() + slice) * gridDim.y + blockIdx.y) * (STATE * SLICE);
    if (states && backwards) states += (i64)batch * sizes.chunks * sizes.wide() * (STATE * SLICE);

    int bytes = TILE_BYTES<STATE> + teams * TEAM_BYTES;
    auto rows_at = [&](int i) { return shared + i % STAGES * bytes; };
    auto team_at = [&](int i) { return rows_at(i) + TILE_BYTES<STATE> + team * TEAM_BYTES; };
    auto chunk_of = [&](int i) { return backwards ? to - 1 - i : from + i; };
    int updates = to - from - (ends ? 0 : 1);
    auto fetch = [&](int i) {
        if (i < updates) {
            int chunk = chunk_of(i), live = sizes.live(chunk);
            u32 own = shared_address(team_at(i));
            copy_tile<STATE>(shared_address(rows_at(i)), rows_from + chunk * CHUNK * sizes.stride(), sizes.stride(),
                             live, threadIdx.x, blockDim.x);
            copy_tile<SLICE>(own, columns_from + chunk * CHUNK * columns_stride, columns_stride, live, thread, TEAM);
            i64 steps = sizes.steps(sequence, slice, chunk);
            if (thread < 2 * CHUNK / 4) {
                const float *source = thread < CHUNK / 4 ? dt : log_decay;
                copy_async(own + TILE_BYTES<SLICE> + thread * 16, source + steps + thread % (CHUNK / 4) * 4, true);
            }
        }
        copy_commit();
    };
    fetch(0);
    fetch(1);
    State state = {};
    if (starts) state.each([&](int at, float &x) { x = starts[end + at]; });
    for (int i = 0; i < to - from; i++) {
        int chunk = chunk_of(i);
        if (states && chunk != (backwards ? sizes.chunks - 1 : 0)) state.store(states + sizes.state(sequence, slice, chunk));
        if (i == updates) break;
        copy_wait<1>();
        __syncthreads();
        fetch(i + 2);
        const float *steps = reinterpret_cast<const float *>(team_at(i) + TILE_BYTES<SLICE>);
        state.step(shared_address(rows_at(i)), shared_address(team_at(i)), steps, steps + CHUNK, backwards);
    }
    if (ends) state.each([&](int at, float &x) { ends[end + at] = x; });
}

// Turns the final states of segments that started from zero into what each starts from. A thread has an entry.
extern "C" __global__ void chunk_join(float *ends, const float *log_decay, int batch, int len, int heads, int slices,
                                      int segments, int each) {
    int chunks = ceil_div(len, CHUNK), wide = heads * slices;
    i64 pair = blockIdx.x; // [B, H slices]
    bool backwards = blockIdx.z == 1;
    float *at = ends + ((i64)blockIdx.z * batch * wide + pair) * segments * (STATE * SLICE) + blockIdx.y * blockDim.x +
                threadIdx.x;
    const float *log = log_decay + pair / slices * chunks * CHUNK + CHUNK - 1;
    float state = 0.0f;
    for (int i = 0; i < segments; i++) {
        int segment = backwards ? segments - 1 - i : i;
        float end = at[(i64)segment * (STATE * SLICE)], sum = 0.0f;
        for (int chunk = segment * each; chunk < min(chunks, (segment + 1) * each); chunk++) sum += log[chunk * CHUNK];
        at[(i64)segment * (STATE * SLICE)] = state;
        state = fmaf(power2(sum), state, end);
    }
}
