// The products of a gated feed-forward layer on the tensor cores of an H100, with silu(gate) * up and its gradient in them:
// blocks of 256 x 256 by pairs of multiprocessors (clusters.cuh), one after the other. What a block gives waits in
// registers, rounded, and becomes what it is to be while the next is multiplied.
#include "clusters.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Rows of x, columns of the activation, and length of the sums.
struct Sizes {
    int rows, width, depth;
};

// First row and column of the block of a number. Of a block of the forward pass one half of the columns is of the gate, the
// other of what it gates.
struct Block {
    int row, column;
};
template <bool BACKWARD> DEVICE int count_blocks(const Sizes &sizes) {
    return (sizes.rows + SIDE - 1) / SIDE * (sizes.width / (BACKWARD ? SIDE : SIDE / 2));
}
template <bool BACKWARD> DEVICE Block block_of(int number, const Sizes &sizes) {
    int down = (sizes.rows + SIDE - 1) / SIDE;
    return {number % down * SIDE, number / down * (BACKWARD ? SIDE : SIDE / 2)};
}

// The piece of the next block after whose products a quarter of the last one's gradients is made. The caller sees to it
// that these differ.
DEVICE int turn_of(int quarter, int last) { return min(1 + 3 * quarter, last); }

// 64 columns of gate and up, for the rows of both groups.
DEVICE void bring_values(const TensorMap &values, const Block &block, int quarter, const Sizes &sizes, Barriers &barriers,
                         Ring &ring, u32 stages, int half) {
    u64 *full = to_fill(barriers, ring, 4 * BOX);
    for (int i = 0; i < 4; i++) {
        int column = block.column + quarter * 64 + i / 2 * sizes.width, row = block.row + half * ROWS + i % 2 * 64;
        bring(stages + ring.stage * STAGE + i * BOX, values, column, row, 0, full);
    }
    step(ring);
}

// One thread of each multiprocessor brings the pieces of its blocks; in the backward pass also gate and up of the block
// before, a quarter at a time.
template <bool BACKWARD>
DEVICE void feed(const TensorMap &a, const TensorMap &b, const TensorMap &values, const Sizes &sizes, Barriers &barriers,
                 u32 stages, int half) {
    Ring ring = {0, 1};
    int last = (sizes.depth - 1) / DEPTH;
    bool pending = false;
    Block block, before;
    for (int n = blockIdx.x / 2; n < count_blocks<BACKWARD>(sizes); n += gridDim.x / 2) {
        block = block_of<BACKWARD>(n, sizes);
        for (int k = 0; k <= last; k++) {
            u64 *full = to_fill(barriers, ring, STAGE);
            u32 to = stages + ring.stage * STAGE;
#pragma unroll
            for (int i = 0; i < ROWS / 64; i++) {
                bring(to + i * BOX, a, k * DEPTH, block.row + half * ROWS + i * 64, 0, full);
            }
            to += ROWS / 64 * BOX;
#pragma unroll
            for (int i = 0; i < SIDE / 128; i++) {
                int j = half * (SIDE / 128) + i;
                if (BACKWARD) bring_both(to + j * BOX, b, block.column + j * 64, k * DEPTH, 0, full);
                else bring_both(to + j * BOX, b, k * DEPTH, block.column + half * sizes.width + i * 64, 0, full);
            }
            step(ring);
            for (int q = 0; BACKWARD && pending && q < 4; q++) {
                if (k == turn_of(q, last)) bring_values(values, before, q, sizes, barriers, ring, stages, half);
            }
        }
        pending = true;
        before = block;
    }
    for (int q = 0; BACKWARD && pending && q < 4; q++)
        bring_values(values, before, q, sizes, barriers, ring, stages, half);
}

// A result that has been rounded but is not yet what it is to be: pairs of columns from 8 g on, in a row and that eight
// below.
struct Pending {
    Block block;
    u32 pairs[64];
};

// To some 2^-22; 0 and 1 far out.
DEVICE float sigmoid_fast(float x) {
    float y, below = 1.0f + exp2_fast(-1.44269504f * x);
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(below));
    return y;
}

// Where this lane's row of four matrices of 8 x 8 lies in a box: the upper and lower rows of columns 8 i, and of the next
// eight.
DEVICE u32 place_of(const Group &group, int i) {
    int eight = group.lane / 8, line = group.lane % 8;
    return (group.warp * 16 + eight % 2 * 8 + line) * 128 + ((i + eight / 2 ^ line) << 4);
}

// The gate (0), what it gates (1) or the activation (2) of a block, to their tensors.
template <int PART>
DEVICE void put(const TensorMap &to, const Pending &p, const Sizes &sizes, const Group &group, int half) {
    if (threadIdx.x % 128 == 0) wait_sends();
    meet_group(group.index);
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
        u32 four[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 gate = p.pairs[2 * i + j], up = p.pairs[32 + 2 * i + j];
            u32 active = PART < 2 ? 0 : round_bf16x2(low(up) * (low(gate) * sigmoid_fast(low(gate))),
                                                    high(up) * (high(gate) * sigmoid_fast(high(gate))));
            four[j] = PART == 0 ? gate : PART == 1 ? up : active;
        }
        store_matrices<false>(group.out + i / 8 * BOX + place_of(group, i % 8), four);
    }
    show_products();
    meet_group(group.index);
    if (threadIdx.x % 128 != 0) return;
    for (int i = 0; i < 2; i++) {
        int column = p.block.column + (PART == 1 ? sizes.width : 0) + i * 64;
        send(to, column, p.block.row + half * ROWS + group.index * 64, 0, group.out + i * BOX);
    }
    close_sends();
}

// Gives back a stage from which results left, when they have been read.
DEVICE void let_go(Barriers &barriers, int half, int &held) {
    if (held < 0) return;
    if (threadIdx.x % 128 == 0) {
        wait_sends();
        barrier_arrive_at(&barriers.empty[held], half);
        barrier_arrive_at(&barriers.empty[held], 1 - half);
    }
    held = -1;
}

// A quarter of a block of the activation's gradient becomes that of the gate and of what it gates, in the place of those,
// and the activation is made again.
template <int QUARTER>
DEVICE void differentiate(const TensorMap &gradients, const TensorMap &active, const Pending &p, const Sizes &sizes,
                          const Group &group, int half, Barriers &barriers, Ring &ring, u32 stages, int &held) {
    let_go(barriers, half, held);
    barrier_wait(&barriers.full[ring.stage], ring.turn);
    u32 gates = stages + ring.stage * STAGE + group.index * BOX, ups = gates + 2 * BOX, again = gates + 4 * BOX;
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        u32 place = place_of(group, i), gate[4], up[4], y[4];
        load_matrices<false>(gate, gates + place);
        load_matrices<false>(up, ups + place);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 pair = p.pairs[2 * (QUARTER * 8 + i) + j];
            float result[3][2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float d = h ? high(pair) : low(pair);
                float g = h ? high(gate[j]) : low(gate[j]), u = h ? high(up[j]) : low(up[j]);
                float s = sigmoid_fast(g), gated = g * s;
                result[0][h] = u * d * s * (1.0f + (g - gated));
                result[1][h] = d * gated;
                result[2][h] = u * gated;
            }
            gate[j] = round_bf16x2(result[0][0], result[0][1]);
            up[j] = round_bf16x2(result[1][0], result[1][1]);
            y[j] = round_bf16x2(result[2][0], result[2][1]);
        }
        store_matrices<false>(gates + place, gate);
        store_matrices<false>(ups + place, up);
        store_matrices<false>(again + place, y);
    }
    show_products();
    meet_group(group.index);
    if (threadIdx.x % 128 == 0) {
        int column = p.block.column + QUARTER * 64, row = p.block.row + half * ROWS + group.index * 64;
        send(gradients, column, row, 0, gates);
        send(gradients, sizes.width + column, row, 0, ups);
        send(active, column, row, 0, again);
        close_sends();
    }
    held = ring.stage;
    step(ring);
}

// 64 rows of each block.
template <bool BACKWARD>
DEVICE void work(const TensorMap &values, const TensorMap &active, const Sizes &sizes, Barriers &barriers, u32 stages,
                 int half, int index) {
    Group group = {index, (int)threadIdx.x / 32 % 4, (int)threadIdx.x % 32, stages + STAGES * STAGE + index * OUT};
    Ring ring = {0, 0};
    int last = (sizes.depth - 1) / DEPTH, held = -1;
    bool pending = false;
    Pending result;
#define QUARTER(N) differentiate<N>(values, active, result, sizes, group, half, barriers, ring, stages, held)
    for (int n = blockIdx.x / 2; n < count_blocks<BACKWARD>(sizes); n += gridDim.x / 2) {
        float sum[32][4];
        int before = 0;
        for (int k = 0; k <= last; k++) {
            barrier_wait(&barriers.full[ring.stage], ring.turn);
            u32 a = stages + ring.stage * STAGE + index * BOX, b = stages + ring.stage * STAGE + ROWS / 64 * BOX;
            products_begin();
#pragma unroll
            for (int i = 0; i < DEPTH / 16; i++) {
                u32 along = i * (BACKWARD ? 16 * 128 : 32);
                multiply<32, 0, BACKWARD>(sum, factor_at(a + i * 32), factor_at(b + along, BOX), k + i);
            }
            products_end();
            // All but the newest group of products is done, and the newest is under way while results are made.
            products_wait<1>();
            if (k > 0) release(barriers, before);
            before = ring.stage;
            step(ring);
            if (BACKWARD) let_go(barriers, half, held);
            if (!pending) continue;
            if (BACKWARD) {
                if (k == turn_of(0, last)) QUARTER(0);
                if (k == turn_of(1, last)) QUARTER(1);
                if (k == turn_of(2, last)) QUARTER(2);
                if (k == turn_of(3, last)) QUARTER(3);
            } else {
                if (k == 0) put<0>(values, result, sizes, group, half);
                if (k == min(3, last)) put<1>(values, result, sizes, group, half);
                if (k == min(6, last)) put<2>(active, result, sizes, group, half);
            }
        }
        products_wait<0>();
        release(barriers, before);
        settle(sum);
#pragma unroll
        for (int i = 0; i < 64; i++) {
            const float *pair = sum[i / 2] + i % 2 * 2;
            result.pairs[i] = round_bf16x2(pair[0], pair[1]);
        }
        result.block = block_of<BACKWARD>(n, sizes);
        pending = true;
    }
    if (pending && BACKWARD) {
        QUARTER(0);
        QUARTER(1);
        QUARTER(2);
        QUARTER(3);
    } else if (pending) {
        put<0>(values, result, sizes, group, half);
        put<1>(values, result, sizes, group, half);
        put<2>(active, result, sizes, group, half);
    }
#undef QUARTER
    if (threadIdx.x % 128 == 0) wait_all_sends();
}

template <bool BACKWARD>
DEVICE void product(const TensorMap &a, const TensorMap &b, const TensorMap &values, const TensorMap &results,
                    const TensorMap &active, const Sizes &sizes) {
    extern __shared__ u8 memory[];
    __shared__ Barriers barriers;
    int half = blockIdx.x % 2;
    u32 stages = (shared_address(memory) + 1023) & ~1023u;
    open_barriers(barriers);
    if (threadIdx.x < 128) {
        give_registers();
        if (threadIdx.x == 0) feed<BACKWARD>(a, b, values, sizes, barriers, stages, half);
    } else {
        take_registers();
        work<BACKWARD>(results, active, sizes, barriers, stages, half, group_index());
    }
    meet_cluster(); // neither leaves while the other may still tell it something
}

#define BODY(BACKWARD, ...)                     \
    Sizes sizes = {rows, width, depth};         \
    product<BACKWARD>(__VA_ARGS__, sizes)
#else
#define BODY(...) __trap()
#endif

// values [R, 2 F] = x [R, K] w^T, w [2 F, K]: the gate and what it gates; active [R, F] = silu(gate) up. 256 divides F.
// Grid: an even number of blocks, all of which run at once.
extern "C" __global__ void CLUSTER feed_forward(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                                                const __grid_constant__ TensorMap values,
                                                const __grid_constant__ TensorMap active, int rows, int width, int depth) {
    BODY(false, x, w, values, values, active);
}

// The gradients of gate and up [R, 2 F] from that of active, dy [R, K] w, w [K, F]; and active once more. The same grid.
extern "C" __global__ void CLUSTER feed_forward_backward(const __grid_constant__ TensorMap dy,
                                                         const __grid_constant__ TensorMap w,
                                                         const __grid_constant__ TensorMap values,
                                                         const __grid_constant__ TensorMap dvalues,
                                                         const __grid_constant__ TensorMap active, int rows, int width,
                                                         int depth) {
    BODY(true, dy, w, values, dvalues, active);
}
