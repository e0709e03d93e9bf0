// Depthwise causal convolution over time, then silu. A warp takes RUN rows in a row of 32 * W channels; a lane keeps
// the last K values of its W channels in registers, of which there are too few for more than LANE channels. A kernel of
// fewer than K taps has zeros before its own. Rows are read a batch at a time, and a batch ahead of where they are
// used.
#include "common.cuh"

constexpr int WARPS = 4;
constexpr int RUN = 16;
constexpr int RUN_BACK = 32; // in the backward pass, where runs overlap
constexpr int LANE = 4;
constexpr int SHORT = 4; // most taps of the fast variants
constexpr int LONG = 16; // most taps at all
constexpr int BATCH = 4;
constexpr int BATCH_BACK = 2;

// Floats of shared memory: a filter's or the warps' sums, for each of 32 lanes.
constexpr int SHARED = 32 * LONG;
static_assert(SHORT * LANE <= LONG && WARPS * LANE <= LONG, "no other variant needs more");

template <int N> DEVICE void clear(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = 0;
}

template <int N> DEVICE void copy(float (&to)[N], const float (&from)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = from[i];
}

// Rows first, first + 1, ... below last of a column; zeros beyond.
template <int COUNT, int W>
DEVICE void read_rows(const elem *column, i64 stride, i64 first, i64 last, Packed<W> (&x)[COUNT]) {
#pragma unroll
    for (int b = 0; b < COUNT; b++) {
        if (first + b < last) x[b].read(column + (first + b) * stride);
        else x[b].clear();
    }
}

// Weights [C, taps] and bias of the lane's channels.
template <int W, int K> struct Filter {
    float tap[K][W];
    float bias[W];

    __device__ __forceinline__ void load(const float *weight, const float *biases, int taps, int width, float *shared) {
        int first = blockIdx.x * 32 * W, own = first + threadIdx.x * W;
#pragma unroll
        for (int i = 0; i < W; i++) bias[i] = own + i < width ? biases[own + i] : 0.0f;
        if (K == 4 && taps == 4 && aligned16(weight)) {
#pragma unroll
            for (int i = 0; i < W; i++) {
                float of_channel[4] = {0, 0, 0, 0};
                if (own + i < width) load_many<4>(weight + (i64)(own + i) * 4, of_channel);
#pragma unroll
                for (int k = 0; k < K; k++) tap[k][i] = of_channel[k % 4];
            }
            return;
        }
        // By way of shared memory [K, 32 W], which the block's columns share.
        int thread = threadIdx.y * 32 + threadIdx.x;
        for (int i = thread; i < K * 32 * W; i += 32 * WARPS) shared[i] = 0;
        __syncthreads();
        int count = min(32 * W, width - first) * taps;
        for (int i = thread; i < count; i += 32 * WARPS) {
            shared[(i % taps + K - taps) * 32 * W + i / taps] = weight[(i64)first * taps + i];
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < K; k++) load_many<W>(shared + k * 32 * W + threadIdx.x * W, tap[k]);
    }

    // window[k]: the row K - 1 - k back.
    __device__ __forceinline__ void apply(const float (&window)[K][W], float (&sum)[W]) const {
        copy(sum, bias);
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int i = 0; i < W; i++) sum[i] = fmaf(tap[k][i], window[k][i], sum[i]);
    }
};

// The rows before a row at position t of its sequence, as far as they are in it; `at` is its place in x.
template <int W, int K> DEVICE void look_back(const elem *at, i64 stride, int t, float (&window)[K][W]) {
#pragma unroll
    for (int k = 0; k < K - 1; k++) {
        int back = K - 1 - k;
        if (t >= back) load_many<W>(at - back * stride, window[k]);
        else clear(window[k]);
    }
    clear(window[K - 1]);
}

// On to the next row: its position and what it sees behind it.
template <int W, int K> DEVICE int step(int t, int len, float (&window)[K][W]) {
#pragma unroll
    for (int k = 0; k + 1 < K; k++) copy(window[k], window[k + 1]);
    if (t + 1 < len) return t + 1;
#pragma unroll
    for (int k = 0; k + 1 < K; k++) clear(window[k]);
    return 0;
}

template <int W, int K>
DEVICE void forward(elem *__restrict__ y, const elem *__restrict__ x, i64 stride, const float *__restrict__ weight,
                    const float *__restrict__ bias, i64 rows, int len, int width, int taps, float *shared) {
    Filter<W, K> filter;
    filter.load(weight, bias, taps, width, shared);
    int column = (blockIdx.x * 32 + threadIdx.x) * W;
    if (column >= width) return;
    x += column;
    y += column;
    i64 jump = (i64)gridDim.y * WARPS * RUN;
    for (i64 first = ((i64)blockIdx.y * WARPS + threadIdx.y) * RUN; first < rows; first += jump) {
        i64 last = min(first + RUN, rows);
        int t = (int)(first % len);
        float window[K][W];
        Packed<W> ahead[BATCH];
        read_rows(x, stride, first, last, ahead);
        look_back<W, K>(x + first * stride, stride, t, window);
        for (i64 row = first; row < last; row += BATCH) {
            Packed<W> now[BATCH];
#pragma unroll
            for (int b = 0; b < BATCH; b++) now[b] = ahead[b];
            read_rows(x, stride, row + BATCH, last, ahead);
#pragma unroll
            for (int b = 0; b < BATCH; b++) {
                if (row + b >= last) continue;
                now[b].unpack(window[K - 1]);
                float p[W];
                filter.apply(window, p);
#pragma unroll
                for (int i = 0; i < W; i++) p[i] = silu(p[i]);
                store_many<W>(y + (row + b) * width, p);
                t = step<W, K>(t, len, window);
            }
        }
    }
}

// vec and taps pick the variant.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
conv_forward(elem *y, const elem *x, i64 stride, const float *weight, const float *bias, i64 rows, int len, int width,
             int taps, int vec) {
    __shared__ float4 shared[SHARED / 4];
    float *filter = reinterpret_cast<float *>(shared);
    if (taps > SHORT) forward<1, LONG>(y, x, stride, weight, bias, rows, len, width, taps, filter);
    else if (vec) forward<LANE, SHORT>(y, x, stride, weight, bias, rows, len, width, taps, filter);
    else forward<1, SHORT>(y, x, stride, weight, bias, rows, len, width, taps, filter);
}

// dx has the stride of x. Runs overlap by K - 1 rows: the rows after a run add to its dx.
template <int W, int K>
DEVICE void backward(elem *__restrict__ dx, float *__restrict__ dweight, float *__restrict__ dbias,
                     const elem *__restrict__ dy, const elem *__restrict__ x, i64 stride,
                     const float *__restrict__ weight, const float *__restrict__ bias, i64 rows, int len, int width,
                     int taps, float *shared) {
    Filter<W, K> filter;
    filter.load(weight, bias, taps, width, shared);
    int column = (blockIdx.x * 32 + threadIdx.x) * W;
    float dtap[K + 1][W]; // the last one is the bias's
#pragma unroll
    for (int k = 0; k <= K; k++) clear(dtap[k]);
    i64 jump = (i64)gridDim.y * WARPS * RUN_BACK;
    for (i64 first = ((i64)blockIdx.y * WARPS + threadIdx.y) * RUN_BACK; first < rows && column < width; first += jump) {
        i64 last = min(first + RUN_BACK, rows), seen = min(last + K - 1, rows);
        int t = (int)(first % len);
        float window[K][W], pending[K][W]; // pending[j]: dx so far of the row j back
        Packed<W> next_x[BATCH_BACK], next_dy[BATCH_BACK];
        read_rows(x + column, stride, first, seen, next_x);
        read_rows(dy + column, width, first, seen, next_dy);
        look_back<W, K>(x + first * stride + column, stride, t, window);
#pragma unroll
        for (int j = 0; j < K; j++) clear(pending[j]);
        for (i64 batch = first; batch < last + K - 1; batch += BATCH_BACK) {
            Packed<W> now[BATCH_BACK], now_dy[BATCH_BACK];
#pragma unroll
            for (int b = 0; b < BATCH_BACK; b++) now[b] = next_x[b], now_dy[b] = next_dy[b];
            read_rows(x + column, stride, batch + BATCH_BACK, seen, next_x);
            read_rows(dy + column, width, batch + BATCH_BACK, seen, next_dy);
#pragma unroll
            for (int b = 0; b < BATCH_BACK; b++) {
                i64 row = batch + b;
                if (row >= last + K - 1) continue;
                if (row < rows) {
                    float p[W], d[W];
                    now[b].unpack(window[K - 1]);
                    now_dy[b].unpack(d);
                    filter.apply(window, p);
#pragma unroll
                    for (int i = 0; i < W; i++) d[i] *= silu_grad(p[i]);
                    if (row < last) {
#pragma unroll
                        for (int k = 0; k < K; k++)
#pragma unroll
                            for (int i = 0; i < W; i++) dtap[k][i] = fmaf(d[i], window[k][i], dtap[k][i]);
#pragma unroll
                        for (int i = 0; i < W; i++) dtap[K][i] += d[i];
                    }
#pragma unroll
                    for (int k = 0; k < K; k++) {
                        if (t < K - 1 - k) continue;
#pragma unroll
                        for (int i = 0; i < W; i++) {
                            pending[K - 1 - k][i] = fmaf(filter.tap[k][i], d[i], pending[K - 1 - k][i]);
                        }
                    }
                    t = step<W, K>(t, len, window);
                }
                i64 done = row - (K - 1);
                if (done >= first) store_many<W>(dx + done * stride + column, pending[K - 1]);
#pragma unroll
                for (int j = K - 1; j > 0; j--) copy(pending[j], pending[j - 1]);
                clear(pending[0]);
            }
        }
    }
    // Sum over the warps, one tap after another in shared memory [WARPS, W, 32].
    int thread = threadIdx.y * 32 + threadIdx.x;
#pragma unroll
    for (int k = 0; k <= K; k++) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < W; i++) shared[(threadIdx.y * W + i) * 32 + threadIdx.x] = dtap[k][i];
        __syncthreads();
        for (int c = thread; c < 32 * W; c += 32 * WARPS) {
            int channel = blockIdx.x * 32 * W + c, own = k - (K - taps);
            if (channel >= width || own < 0) break;
            float sum = 0;
#pragma unroll
            for (int w = 0; w < WARPS; w++) sum += shared[(w * W + c % W) * 32 + c / W];
            if (k == K) dbias[(i64)blockIdx.y * width + channel] = sum;
            else dweight[((i64)blockIdx.y * width + channel) * taps + own] = sum;
        }
    }
}

// Row blockIdx.y of dweight [., C, taps] and dbias [., C] is the block's share of the gradients.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 4)
conv_backward(elem *dx, float *dweight, float *dbias, const elem *dy, const elem *x, i64 stride, const float *weight,
              const float *bias, i64 rows, int len, int width, int taps, int vec) {
    __shared__ float4 shared[SHARED / 4];
    float *sums = reinterpret_cast<float *>(shared);
    if (taps > SHORT) {
        backward<1, LONG>(dx, dweight, dbias, dy, x, stride, weight, bias, rows, len, width, taps, sums);
    } else if (vec) {
        backward<LANE, SHORT>(dx, dweight, dbias, dy, x, stride, weight, bias, rows, len, width, taps, sums);
    } else {
        backward<1, SHORT>(dx, dweight, dbias, dy, x, stride, weight, bias, rows, len, width, taps, sums);
    }
}
