#line 2 "steps.cuh"
// Time steps and the sums of their log decay, and the last sums of the gradients.

// Least log2 of a step's decay: 2^-160 is 0 in f32, as is all below it; sums over a chunk stay small and finite.
constexpr float LEAST = -160.0f;

// Keeps a NaN.
DEVICE float clamp_step(float open, float low, float high) { return open < low ? low : open > high ? high : open; }

// steps [B, H, chunks, PARTS, CHUNK]. Beyond the sequence dt is 0 and the decay 1. A block has a chunk of HEADS heads,
// a warp one head after the other, a lane two steps of it.
constexpr int HEADS = 16;
extern "C" __global__ void __launch_bounds__(256)
    chunk_steps(float *steps, const bf16 *raw, const float *bias, const float *a_log, int len, int heads,
                i64 raw_stride, float low, float high) {
    __shared__ float inputs[HEADS][CHUNK + 2];
    int chunks = ceil_div(len, CHUNK), chunk = blockIdx.x % chunks, head0 = blockIdx.y * HEADS;
    i64 sequence = blockIdx.x / chunks;
    int live = min(CHUNK, len - chunk * CHUNK), lane = threadIdx.x % 32;
    const bf16 *rows = raw + (sequence * len + chunk * CHUNK) * raw_stride;
#pragma unroll
    for (int i = threadIdx.x; i < CHUNK * HEADS; i += 256) {
        int t = i / HEADS, head = head0 + i % HEADS;
        inputs[i % HEADS][t] = t < live && head < heads ? load(rows[t * raw_stride + head]) + bias[head] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int of_warp = 0; of_warp < HEADS / 8; of_warp++) {
        int of_block = threadIdx.x / 32 * (HEADS / 8) + of_warp, head = head0 + of_block;
        if (head >= heads) return;
        float rate = -expf(a_log[head]) * 1.44269504f, dt[2] = {}, log[2] = {}, slope[2] = {};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float input = inputs[of_block][2 * lane + i], open = softplus(input);
            if (2 * lane + i >= live) continue;
            dt[i] = clamp_step(open, low, high);
            slope[i] = open == dt[i] ? sigmoid(input) : 0.0f;
            log[i] = dt[i] * rate < LEAST ? LEAST : dt[i] * rate;
        }
        float both = log[0] + log[1], through = both;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            float before = __shfl_up_sync(0xffffffffu, through, distance);
            if (lane >= distance) through += before;
        }
        float before = __shfl_up_sync(0xffffffffu, through, 1);
        if (lane == 0) before = 0.0f;
        float last = __shfl_sync(0xffffffffu, before + both, 31);
        log[0] += before, log[1] = before + both;
        i64 at = ((sequence * heads + head) * chunks + chunk) * (PARTS * CHUNK);
        float2 *to = reinterpret_cast<float2 *>(steps + at) + lane;
        to[DT * CHUNK / 2] = make_float2(dt[0], dt[1]);
        to[LOG * CHUNK / 2] = make_float2(log[0], log[1]);
        to[DECAY * CHUNK / 2] = make_float2(exp2_fast(log[0]), exp2_fast(log[1]));
        to[WEIGHT * CHUNK / 2] = make_float2(dt[0] * exp2_fast(last - log[0]), dt[1] * exp2_fast(last - log[1]));
        to[SLOPE * CHUNK / 2] = make_float2(slope[0], slope[1]);
    }
}

// Adds up the parts of the gradients of B and C, [count, R, width], into their columns of dxbc, eight columns a thread;
// and, in the first `totals` blocks, a warp each, the sums [3, chunks, H] over the chunks into the gradients of dt_bias,
// A_log and D. 256 threads.
extern "C" __global__ void chunk_sum(bf16 *dxbc, const float *parts, int count, i64 rows, int width, i64 stride,
                                     int column, float *of_bias, float *of_a_log, float *of_d, const float *sums,
                                     i64 chunks, int heads, int add_bias, int add_a_log, int add_d, int totals) {
    if (blockIdx.x < totals) {
        int task = blockIdx.x * 8 + threadIdx.x / 32, which = task / heads, head = task % heads;
        if (which >= 3) return;
        float sum = 0.0f;
        for (i64 chunk = threadIdx.x % 32; chunk < chunks; chunk += 32)
            sum += sums[(which * chunks + chunk) * heads + head];
        sum = warp_sum(sum);
        float *to = (which == 0 ? of_bias : which == 1 ? of_a_log : of_d) + head;
        int add = which == 0 ? add_bias : which == 1 ? add_a_log : add_d;
        if (threadIdx.x % 32 == 0) *to = add ? *to + sum : sum;
        return;
    }
    i64 i = ((i64)(blockIdx.x - totals) * 256 + threadIdx.x) * 8, row = i / width, at = i % width;
    if (row >= rows) return;
    float sum[8] = {};
    for (int part = 0; part < count; part++) {
        float x[8];
        load_many<8>(parts + part * rows * width + i, x);
#pragma unroll
        for (int k = 0; k < 8; k++) sum[k] += x[k];
    }
    store_vec(dxbc + row * stride + column + at, sum);
}
