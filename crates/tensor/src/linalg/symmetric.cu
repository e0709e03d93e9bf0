// Symmetric products of batches of bf16 matrices on the tensor cores of an H100: blocks of 256 x 256 on and below the
// diagonal are computed, those above, where they are written, are their mirror images. Pairs of multiprocessors (clusters.cuh) take one block after
// the other, so that pieces of the next are on their way, and multiplied, while results leave. Of a block's rows one of the
// pair has the first and the last quarter, the other the two between, so that both leave out as much of a block on the
// diagonal: each quarter stops at its own 64 columns there.
#include "clusters.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// The block of a number, members one after the other, and of a member row by row.
struct Block {
    int row, column, member;
};
DEVICE Block block_of(int number, int blocks) {
    Block block = {0, number % blocks, number / blocks};
    while (block.column > block.row) block.column -= ++block.row;
    return block;
}

// The quarter of a block's rows that a group of warps has.
DEVICE int quarter_of(int half, int group) { return group ? 3 - half : half; }

// How factors lie: A and B^T in rows; A^T and B in rows; both symmetric, of which only the blocks on and below the diagonal
// are read, and for those above their mirror images.
enum Kind { IN_ROWS, TURNED, HALVES };

// Whether the piece of a factor that begins at k, and belongs to a row of blocks, lies turned.
template <Kind KIND> DEVICE bool lies_turned(int k, int block) {
    return KIND == TURNED || KIND == HALVES && k >= (block + 1) * SIDE;
}

struct Job {
    int rank, depth, members, back, half;
    float alpha, beta, diagonal;
    const float *by;
    int power;
};

// One thread of each multiprocessor brings the pieces of its blocks, after the summand as two more.
template <Kind KIND>
DEVICE void feed(const TensorMap &a, const TensorMap &b, const TensorMap &c, const Job &job, Barriers &barriers, u32 stages,
                 int half, int blocks) {
    Ring ring = {0, 1};
    for (int n = blockIdx.x / 2; n < blocks * job.members; n += gridDim.x / 2) {
        Block block = block_of(job.back ? blocks * job.members - 1 - n : n, blocks);
        int row = block.row * SIDE, column = block.column * SIDE;
        for (int part = 0; part < 2 && job.beta != 0.0f; part++, step(ring)) {
            u64 *full = to_fill(barriers, ring, 4 * BOX);
            for (int i = 0; i < 4; i++) {
                u32 to = stages + ring.stage * STAGE + i * BOX;
                bring(to, c, column + part * 128 + i % 2 * 64, row + quarter_of(half, i / 2) * 64, block.member, full);
            }
        }
        for (int k = 0; k < job.depth; k += DEPTH, step(ring)) {
            u64 *full = to_fill(barriers, ring, STAGE);
            u32 to = stages + ring.stage * STAGE;
            bool a_turned = lies_turned<KIND>(k, block.row), b_turned = lies_turned<KIND>(k, block.column);
#pragma unroll
            for (int i = 0; i < ROWS / 64; i++) {
                int side = row + quarter_of(half, i) * 64;
                bring(to + i * BOX, a, a_turned ? side : k, a_turned ? k : side, block.member, full);
            }
            to += ROWS / 64 * BOX;
#pragma unroll
            for (int i = 0; i < SIDE / 128; i++) {
                int j = half * (SIDE / 128) + i, side = column + j * 64;
                bring_both(to + j * BOX, b, b_turned ? side : k, b_turned ? k : side, block.member, full);
            }
        }
    }
}

// A result that has been rounded but not yet written: pairs of columns from 8 g on, in a row and that eight below.
struct Pending {
    Block block;
    int first;          // of its rows
    int wide, mirrored; // how many 64 columns have been computed, and have a mirror image
    u32 pairs[64];
};

// A part of what is to be done with a result: its left and right half to their rows, and their transposes to its
// columns, above the diagonal.
template <int PART> DEVICE void put(const TensorMap &d, const Pending &p, const Group &group) {
    constexpr bool MIRRORED = PART / 2;
    constexpr int FIRST = PART % 2 * 16;
    int boxes = min(2, (MIRRORED ? p.mirrored : p.wide) - FIRST / 8);
    if (boxes <= 0) return;
    int lane = group.lane, eight = lane / 8, line = lane % 8;
    if (threadIdx.x % 128 == 0) wait_sends();
    meet_group(group.index);
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
        const u32 *four = p.pairs + 2 * (FIRST + i);
        // Lanes name the lines of four matrices of 8 x 8: the upper and lower rows of columns 8 i, and of the next eight.
        if (MIRRORED) {
            u32 row = (i + eight / 2) * 8 + line, chunk = 2 * group.warp + eight % 2;
            store_matrices<true>(group.out + row * 128 + ((chunk ^ line) << 4), four);
        } else {
            u32 row = group.warp * 16 + eight % 2 * 8 + line, chunk = i % 8 + eight / 2;
            store_matrices<false>(group.out + i / 8 * BOX + row * 128 + ((chunk ^ line) << 4), four);
        }
    }
    show_products();
    meet_group(group.index);
    if (threadIdx.x % 128 != 0) return;
    for (int i = 0; i < boxes; i++) {
        int column = p.block.column * SIDE + FIRST * 8 + i * 64;
        send(d, MIRRORED ? p.first : column, MIRRORED ? column : p.first, p.block.member, group.out + i * BOX);
    }
    close_sends();
}

// A piece of the sums, 8 N columns of them.
template <int N, int A_TURNED, int B_TURNED> DEVICE void add_piece(float (&sum)[32][4], u32 a, u32 b, int keep) {
    products_begin();
#pragma unroll
    for (int i = 0; i < DEPTH / 16; i++) {
        u64 left = factor_at(a + i * (A_TURNED ? 16 * 128 : 32), BOX);
        u64 right = factor_at(b + i * (B_TURNED ? 16 * 128 : 32), BOX);
        multiply<N, A_TURNED, B_TURNED>(sum, left, right, keep + i);
    }
    products_end();
}

// The products of all pieces, 8 N columns of sums, while the last result leaves. Below the diagonal N is 32.
template <int N, Kind KIND>
DEVICE void sum_up(float (&sum)[32][4], const TensorMap &d, const Job &job, Barriers &barriers, Ring &ring, u32 stages,
                   const Group &group, const Block &block, bool pending, const Pending &result) {
    int k = 0, before = 0, last = (job.depth - 1) / DEPTH;
    // At least once, or the assembler would have each product wait for the one before.
    do {
        barrier_wait(&barriers.full[ring.stage], ring.turn);
        u32 a = stages + ring.stage * STAGE + group.index * BOX, b = stages + ring.stage * STAGE + ROWS / 64 * BOX;
        int keep = k > 0 || job.beta != 0.0f;
        bool a_turned = lies_turned<KIND>(k * DEPTH, block.row), b_turned = lies_turned<KIND>(k * DEPTH, block.column);
        if (KIND == HALVES && a_turned) add_piece<N, 1, 1>(sum, a, b, keep);
        else if (KIND == HALVES && N == 32 && b_turned) add_piece<N, 0, 1>(sum, a, b, keep);
        else add_piece<N, KIND == TURNED, KIND == TURNED>(sum, a, b, keep);
        // All but the newest group of products is done, and the newest is under way while results are written.
        products_wait<1>();
        if (k > 0) release(barriers, before);
        before = ring.stage;
        if (pending) {
            if (k == 0) put<0>(d, result, group);
            if (k == min(2, last)) put<1>(d, result, group);
            if (k == min(4, last)) put<2>(d, result, group);
            if (k == min(6, last)) put<3>(d, result, group);
        }
        step(ring);
    } while (++k <= last);
    products_wait<0>();
    release(barriers, before);
    settle(sum);
}

// 64 rows of each block. The result of a block leaves while the next is multiplied.
template <Kind KIND>
DEVICE void work(const TensorMap &d, const Job &job, Barriers &barriers, u32 stages, int half, int blocks,
                 int index) {
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    Group group = {index, warp, lane, stages + STAGES * STAGE + index * OUT};
    Ring ring = {0, 0};
    int quarter = quarter_of(half, index);
    bool pending = false;
    Pending result;
    for (int n = blockIdx.x / 2; n < blocks * job.members; n += gridDim.x / 2) {
        Block block = block_of(job.back ? blocks * job.members - 1 - n : n, blocks);
        bool diagonal = block.row == block.column;
        float sum[32][4];
        if (job.beta != 0.0f) { // sums start from the summand
            float ratio = job.beta / job.alpha;
#pragma unroll
            for (int part = 0; part < 2; part++, step(ring)) {
                barrier_wait(&barriers.full[ring.stage], ring.turn);
                u32 from = stages + ring.stage * STAGE + index * 2 * BOX + (warp * 16 + lane / 4) * 128 + lane % 4 * 4;
#pragma unroll
                for (int i = 0; i < 32; i++) {
                    int g = i / 2, h = i % 2;
                    u32 pair, place = from + g / 8 * BOX + h * 8 * 128 + ((g % 8 ^ lane / 4) << 4);
                    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(pair) : "r"(place));
                    float *to = sum[part * 16 + g] + 2 * h;
                    to[0] = ratio * low(pair);
                    to[1] = ratio * high(pair);
                }
                meet_group(index); // until all of it have read
                release(barriers, ring.stage);
            }
        }
        int wide = diagonal ? quarter + 1 : 4;
        if (wide == 4) sum_up<32, KIND>(sum, d, job, barriers, ring, stages, group, block, pending, result);
        else if (wide == 3) sum_up<24, KIND>(sum, d, job, barriers, ring, stages, group, block, pending, result);
        else if (wide == 2) sum_up<16, KIND>(sum, d, job, barriers, ring, stages, group, block, pending, result);
        else sum_up<8, KIND>(sum, d, job, barriers, ring, stages, group, block, pending, result);

        float factor = job.by ? job.by[block.member] : 1.0f;
        if (job.power == 2) factor *= factor;
        float alpha = factor * job.alpha, more = factor * job.diagonal;
#pragma unroll
        for (int i = 0; i < 128; i++) sum[i / 4][i % 4] *= alpha;
        if (diagonal && job.diagonal != 0.0f) {
            int row = quarter * 64 + warp * 16 + lane / 4, column = lane % 4 * 2;
#pragma unroll
            for (int i = 0; i < 128; i++) {
                if (row + i / 2 % 2 * 8 == i / 4 * 8 + column + i % 2) sum[i / 4][i % 4] += more;
            }
        }
#pragma unroll
        for (int i = 0; i < 64; i++) {
            const float *pair = sum[i / 2] + i % 2 * 2;
            result.pairs[i] = round_bf16x2(pair[0], pair[1]);
        }
        result.block = block;
        result.first = block.row * SIDE + quarter * 64;
        result.wide = wide;
        result.mirrored = diagonal ? quarter : job.half ? 0 : 4;
        pending = true;
    }
    if (pending) {
        put<0>(d, result, group);
        put<1>(d, result, group);
        put<2>(d, result, group);
        put<3>(d, result, group);
    }
    if (threadIdx.x % 128 == 0) wait_all_sends();
}

template <Kind KIND>
DEVICE void product(const TensorMap &a, const TensorMap &b, const TensorMap &c, const TensorMap &d, const Job &job) {
    extern __shared__ u8 memory[];
    __shared__ Barriers barriers;
    int side = job.rank / SIDE, blocks = side * (side + 1) / 2, half = blockIdx.x % 2;
    u32 stages = (shared_address(memory) + 1023) & ~1023u;
    open_barriers(barriers);
    if (threadIdx.x < 128) {
        give_registers();
        if (threadIdx.x == 0) feed<KIND>(a, b, c, job, barriers, stages, half, blocks);
    } else {
        take_registers();
        work<KIND>(d, job, barriers, stages, half, blocks, group_index());
    }
    meet_cluster(); // neither leaves while the other may still tell it something
}

#define BODY(KIND)                                                                 \
    Job job = {rank, depth, members, back, half, alpha, beta, diagonal, by, power}; \
    product<KIND>(a, b, c, d, job)
#else
#define BODY(KIND) __trap()
#endif

// D = by^power (alpha A B + beta C + diagonal I) for each of the members, all [rank, rank], A B and C symmetric. The kernels
// differ in how A and B lie (`Kind`), both [rank, rank] where they are symmetric. 256 divides rank; by may be null, and
// where beta is 0 C is not read, else alpha is not 0. `back`: from the last member to the first. `half`: blocks above the
// diagonal are not written. Grid: an even number of blocks, all of which run at once.
#define KERNEL(NAME, KIND)                                                                                              \
    extern "C" __global__ void CLUSTER NAME(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,  \
                                            const __grid_constant__ TensorMap c, const __grid_constant__ TensorMap d,  \
                                            int rank, int depth, int members, int back, int half, float alpha,         \
                                            float beta, float diagonal, const float *by, int power) {                  \
        BODY(KIND);                                                                                                    \
    }

KERNEL(symmetric, IN_ROWS)
KERNEL(symmetric_turned, TURNED)
KERNEL(symmetric_of_halves, HALVES)

// D = by^power (D + diagonal I) for each member, in place; where by is null the diagonal alone is touched. Grid (parts,
// members).
extern "C" __global__ void finish(elem *d, int rank, float diagonal, const float *by, int power) {
    d += blockIdx.y * (i64)rank * rank;
    int first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    if (!by) {
        for (int i = first; i < rank; i += step) d[i * (i64)(rank + 1)] = store(load(d[i * (i64)(rank + 1)]) + diagonal);
        return;
    }
    float factor = by[blockIdx.y];
    if (power == 2) factor *= factor;
    for (int i = first; i < rank * rank; i += step) d[i] = store((load(d[i]) + (i % (rank + 1) ? 0.0f : diagonal)) * factor);
}
