#line 2 "states.cuh"
// The states between chunks, in f32 registers, by going through the chunks of a sequence.

// A team has the state of one slice of a head; a warp has 64 of the 128 rows and 16 of the 32 columns.
struct State {
    float x[4][2][4]; // row tiles, column tiles, C fragments

    // An entry of a state in f32, in the order of the threads: [32, TEAM].
    template <typename F> __device__ __forceinline__ void each(F f) {
#pragma unroll
        for (int i = 0; i < 32; i++) f(i * TEAM + threadIdx.x % TEAM, x[i / 8][i / 4 % 2][i % 4]);
    }

    // In bf16, to memory [N, 32] or a tile.
    __device__ __forceinline__ void store(bf16 *to) const {
        int lane = threadIdx.x % 32, warp = warp_of_team(), g = lane / 4, q = lane % 4;
        to += (warp % 2 * 64 + q / 2 * 8 + g) * SLICE + (warp / 2 * 2 + q % 2) * 8;
#pragma unroll
        for (int m = 0; m < 4; m++) {
            u32 word[4];
#pragma unroll
            for (int k = 0; k < 4; k++) word[k] = round_bf16x2(x[m][k % 2][k / 2 * 2], x[m][k % 2][k / 2 * 2 + 1]);
            transpose_quad(word);
            *reinterpret_cast<uint4 *>(to + m * 16 * SLICE) = make_uint4(word[0], word[1], word[2], word[3]);
        }
    }
    __device__ __forceinline__ void put(u32 tile) const {
        int lane = threadIdx.x % 32, warp = warp_of_team(), g = lane / 4, q = lane % 4;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            u32 to = place<SLICE>(tile, warp % 2 * 64 + g, warp / 2 * 2 + j) + 4 * q;
#pragma unroll
            for (int m = 0; m < 4; m++)
#pragma unroll
                for (int i = 0; i < 2; i++) // rows eight apart have their pieces in the same places
                    write_word(to + (m * 16 + i * 8) * SLICE * 2, round_bf16x2(x[m][j][2 * i], x[m][j][2 * i + 1]));
        }
    }

    // x = decay x + sum_t weight_t (row t of `rows` [CHUNK, N]) (x) (row t of `columns` [CHUNK, P]).
    __device__ __forceinline__ void step(u32 rows, u32 columns, float decay, const float *weight) {
        int lane = threadIdx.x % 32, warp = warp_of_team(), q = lane % 4;
#pragma unroll
        for (int i = 0; i < 32; i++) x[i / 8][i / 4 % 2][i % 4] *= decay;
#pragma unroll
        for (int k = 0; k < CHUNK / 16; k++) {
            u32 b[4];
            read_b<SLICE>(b, columns, k * 16, warp / 2 * 2);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float2 two = *reinterpret_cast<const float2 *>(weight + k * 16 + i % 2 * 8 + 2 * q);
                b[i] = scale_pair(b[i], two.x, two.y);
            }
#pragma unroll
            for (int m = 0; m < 4; m++) {
                u32 a[4];
                read_a_of_transpose<STATE>(a, rows, k * 16, warp % 2 * 8 + m * 2);
                mma2(x[m][0], x[m][1], a, b);
            }
        }
    }
};

// Shared memory of a stage for each team: columns of x (or dy), decays and weights.
constexpr int TEAM_BYTES = TILE_BYTES<SLICE> + 2 * PART_BYTES;

// Rows of B or C by all threads of a block of one to three teams.
DEVICE void copy_rows(u32 tile, const bf16 *from, i64 stride, int live) {
    if (blockDim.x == 3 * TEAM) copy_tile<STATE, 3 * TEAM>(tile, from, stride, live, threadIdx.x);
    else if (blockDim.x == 2 * TEAM) copy_tile<STATE, 2 * TEAM>(tile, from, stride, live, threadIdx.x);
    else copy_tile<STATE, TEAM>(tile, from, stride, live, threadIdx.x);
}

// For blockIdx.z = 0 the states S before each chunk, from the first to the last; for 1 their gradients R after each
// chunk, from the last to the first; each [B, chunks, H slices, N, P] in bf16, R behind S. blockIdx.y counts segments
// of `each` chunks: they start from `starts` if that is given, else from zero, and leave their final state in `ends` if
// that is; both in f32, [direction, B, H slices, segments, 32, TEAM]. Teams of a block share B or C.
extern "C" __global__ void __launch_bounds__(3 * TEAM, 2)
    chunk_states(bf16 *states, float *ends, const float *starts, const bf16 *xbc, const bf16 *dy,
                 const float *steps, int batch, int len, int heads, int slices, int groups, int each) {
    constexpr int STAGES = 3;
    extern __shared__ __align__(128) u8 shared[];
    Sizes sizes(len, heads, slices, groups);
    int teams = blockDim.x / TEAM, team = team_of_block(), thread = threadIdx.x % TEAM;
    int task = blockIdx.x * teams + team, sequence = task / sizes.wide(), slice = task % sizes.wide();
    bool backwards = blockIdx.z == 1;
    int from = blockIdx.y * each, to = min(sizes.chunks, from + each), group = sizes.group(slice);
    i64 row0 = (i64)sequence * len;
    int columns_stride = backwards ? sizes.inner() : sizes.stride();
    const bf16 *rows_from = xbc + row0 * sizes.stride() + (backwards ? sizes.c(group) : sizes.b(group));
    const bf16 *columns_from = (backwards ? dy : xbc) + row0 * columns_stride + slice * SLICE;
    i64 end = (((i64)blockIdx.z * batch + sequence) * sizes.wide() + slice) * gridDim.y + blockIdx.y;
    end *= STATE * SLICE;
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
            i64 row = (i64)chunk * CHUNK;
            copy_rows(shared_address(rows_at(i)), rows_from + row * sizes.stride(), sizes.stride(), live);
            copy_tile<SLICE, TEAM>(own, columns_from + row * columns_stride, columns_stride, live, thread);
            copy_steps<2>(own + TILE_BYTES<SLICE>, steps + sizes.steps(sequence, slice, chunk) + DECAY * CHUNK, thread);
        }
        copy_commit();
    };
    fetch(0);
    fetch(1);
    State state = {};
    if (starts) state.each([&](int at, float &x) { x = starts[end + at]; });
    for (int i = 0; i < to - from; i++) {
        int chunk = chunk_of(i);
        bool first = chunk == (backwards ? sizes.chunks - 1 : 0); // its state is 0, and nobody reads it
        if (states && !first) state.store(states + sizes.state(sequence, slice, chunk));
        if (i == updates) break;
        copy_wait<1>();
        __syncthreads();
        fetch(i + 2);
        // Backwards the weight of a step is the decay through it.
        const float *decay = reinterpret_cast<const float *>(team_at(i) + TILE_BYTES<SLICE>);
        const float *weight = backwards ? decay : decay + (WEIGHT - DECAY) * CHUNK;
        state.step(shared_address(rows_at(i)), shared_address(team_at(i)), decay[CHUNK - 1], weight);
    }
    if (ends) state.each([&](int at, float &x) { ends[end + at] = x; });
}

// Turns the final states of segments that started from zero into what each starts from. A thread has an entry.
extern "C" __global__ void chunk_join(float *ends, const float *steps, int batch, int len, int heads, int slices,
                                      int segments, int each) {
    int chunks = ceil_div(len, CHUNK), wide = heads * slices;
    i64 pair = blockIdx.x; // [B, H slices]
    bool backwards = blockIdx.z == 1;
    float *at = ends + ((i64)blockIdx.z * batch * wide + pair) * segments * (STATE * SLICE) + blockIdx.y * blockDim.x +
                threadIdx.x;
    const float *last = steps + pair / slices * chunks * (PARTS * CHUNK) + LOG * CHUNK + CHUNK - 1;
    auto segment = [&](int i) { return backwards ? segments - 1 - i : i; };
    auto end_of = [&](int i) { return i < segments ? at[(i64)segment(i) * (STATE * SLICE)] : 0.0f; };
    auto log_of = [&](int i) { // summed over lanes
        int from = segment(i) * each, to = i < segments ? min(chunks, from + each) : 0;
        float sum = 0.0f;
        for (int chunk = from + threadIdx.x % 32; chunk < to; chunk += 32) sum += last[(i64)chunk * (PARTS * CHUNK)];
        return sum;
    };
    float state = 0.0f, end = end_of(0), log = log_of(0);
    for (int i = 0; i < segments; i++) {
        float next_end = end_of(i + 1), next_log = log_of(i + 1);
        at[(i64)segment(i) * (STATE * SLICE)] = state;
        state = fmaf(exp2_fast(warp_sum(log)), state, end);
        end = next_end, log = next_log;
    }
}
