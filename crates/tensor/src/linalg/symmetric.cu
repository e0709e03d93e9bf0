// Symmetric products of batches of bf16 matrices on the tensor cores of an H100: blocks of 256 x 256 on and below the
// diagonal are computed, those above are their mirror images. Two multiprocessors, a cluster, share such a block, 128 rows
// each: one warp of each brings pieces of the factors to shared memory by TMA, those of B to both, and two groups of four
// warps multiply them (wgmma), 64 rows each. They take one block after the other, so that pieces of the next are on their
// way, and multiplied, while results leave. Arrivals at barriers are ordered within a block of threads only, as wgmma and
// TMA need no more: at the cluster's scope each would wait for all that the thread has ever written.
#include "warpgroup.cuh"

// What the driver's cuTensorMapEncodeTiled makes.
struct __align__(64) TensorMap {
    u64 words[16];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Rows of a block of the result; of those, rows of a multiprocessor; elements of the sums in a piece; pieces at a time.
constexpr int SIDE = 256, ROWS = 128, DEPTH = 64, STAGES = 4;
// Bytes of 64 x 64 elements, and of the pieces of both factors.
constexpr int BOX = 64 * 64 * 2, STAGE = (ROWS + SIDE) / 64 * BOX;
// Bytes of half of what a group of warps has to write, 64 x 128 elements.
constexpr int OUT = 2 * BOX;

DEVICE void barrier_init(u64 *barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count));
}

// Arrives at the barrier of a multiprocessor of the cluster.
DEVICE void barrier_arrive_at(u64 *barrier, int rank) {
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(rank)
                 : "memory");
}

DEVICE void barrier_expect(u64 *barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

DEVICE void barrier_wait(u64 *barrier, int parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

// A box of 64 x 64 of a tensor [members, rows, columns], from (column, row) on.
DEVICE void bring(u32 to, const TensorMap &map, int column, int row, int member, u64 *barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
                 "[%2];" ::"r"(to),
                 "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row), "r"(member)
                 : "memory");
}

// The same for both multiprocessors, to the same place and barrier of each.
DEVICE void bring_both(u32 to, const TensorMap &map, int column, int row, int member, u64 *barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
                 "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
                 "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row), "r"(member), "h"((u16)3)
                 : "memory");
}

// A box from shared memory to a tensor.
DEVICE void send(const TensorMap &map, int column, int row, int member, u32 from) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map), "r"(from),
                 "r"(column), "r"(row), "r"(member)
                 : "memory");
}

DEVICE void meet_group(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory"); }
DEVICE void meet_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
DEVICE void close_sends() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until what is on its way to the tensor has been read.
DEVICE void wait_sends() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

struct Barriers {
    u64 full[STAGES], empty[STAGES];
};

// A place in the ring of stages, and how often it has been passed.
struct Ring {
    int stage, turn;
};
DEVICE void step(Ring &ring) {
    if (++ring.stage == STAGES) {
        ring.stage = 0;
        ring.turn ^= 1;
    }
}

// The block of a number, members one after the other, and of a member row by row.
struct Block {
    int row, column, member;
};
DEVICE Block block_of(int number, int blocks) {
    Block block = {0, number % blocks, number / blocks};
    while (block.column > block.row) block.column -= ++block.row;
    return block;
}

struct Job {
    int rank, depth, members;
    float alpha, beta, diagonal;
    const float *by;
    int power;
};

// One thread of each multiprocessor brings the pieces of its blocks, and the summand as two more.
template <int TURNED>
DEVICE void feed(const TensorMap &a, const TensorMap &b, const TensorMap &c, const Job &job, Barriers &barriers, u32 stages,
                 int half, int blocks) {
    Ring ring = {0, 1};
    for (int n = blockIdx.x / 2; n < blocks * job.members; n += gridDim.x / 2) {
        Block block = block_of(n, blocks);
        int row = block.row * SIDE + half * ROWS, column = block.column * SIDE;
        for (int k = 0; k < job.depth; k += DEPTH, step(ring)) {
            u64 *full = &barriers.full[ring.stage];
            u32 to = stages + ring.stage * STAGE;
            barrier_wait(&barriers.empty[ring.stage], ring.turn);
            barrier_expect(full, STAGE);
#pragma unroll
            for (int i = 0; i < ROWS / 64; i++) {
                int side = row + i * 64;
                bring(to + i * BOX, a, TURNED ? side : k, TURNED ? k : side, block.member, full);
            }
            to += ROWS / 64 * BOX;
#pragma unroll
            for (int i = 0; i < SIDE / 128; i++) {
                int j = half * (SIDE / 128) + i, side = column + j * 64;
                bring_both(to + j * BOX, b, TURNED ? side : k, TURNED ? k : side, block.member, full);
            }
        }
        for (int part = 0; part < 2 && job.beta != 0.0f; part++, step(ring)) {
            u64 *full = &barriers.full[ring.stage];
            barrier_wait(&barriers.empty[ring.stage], ring.turn);
            barrier_expect(full, 4 * BOX);
            for (int i = 0; i < 4; i++) {
                u32 to = stages + ring.stage * STAGE + i * BOX;
                bring(to, c, column + part * 128 + i % 2 * 64, row + i / 2 * 64, block.member, full);
            }
        }
    }
}

// Tells both that a stage has been read by this group.
DEVICE void release(Barriers &barriers, int stage) {
    if (threadIdx.x % 128 < 2) barrier_arrive_at(&barriers.empty[stage], threadIdx.x % 128);
}

// A group of four warps.
struct Group {
    int index, warp, lane;
    u32 out; // half of its result on its way out
};

// A result that has been rounded but not yet written: pairs of columns from 8 g on, in a row and that eight below.
struct Pending {
    Block block;
    int first; // of its rows
    u32 pairs[64];
};

// A quarter of what is to be done with a result: its left and right half to their rows, and their transposes to its
// columns, above the diagonal.
template <int QUARTER> DEVICE void put(const TensorMap &d, const Pending &p, const Group &group) {
    constexpr bool MIRRORED = QUARTER / 2;
    constexpr int FIRST = QUARTER % 2 * 16;
    if (MIRRORED && p.block.row == p.block.column) return;
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
    for (int i = 0; i < 2; i++) {
        int column = p.block.column * SIDE + FIRST * 8 + i * 64;
        send(d, MIRRORED ? p.first : column, MIRRORED ? column : p.first, p.block.member, group.out + i * BOX);
    }
    close_sends();
}

// 64 rows of each block. The result of a block leaves while the next is multiplied.
template <int TURNED>
DEVICE void work(const TensorMap &d, const Job &job, Barriers &barriers, u32 stages, int half, int blocks,
                 int index) {
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    Group group = {index, warp, lane, stages + STAGES * STAGE + index * OUT};
    Ring ring = {0, 0};
    int last = (job.depth - 1) / DEPTH;
    bool pending = false;
    Pending result;
    for (int n = blockIdx.x / 2; n < blocks * job.members; n += gridDim.x / 2) {
        Block block = block_of(n, blocks);
        int first = block.row * SIDE + half * ROWS + index * 64;
        float sum[32][4];
        int before = 0;
        for (int k = 0; k <= last; k++, step(ring)) {
            barrier_wait(&barriers.full[ring.stage], ring.turn);
            u32 a = stages + ring.stage * STAGE + index * BOX, b = stages + ring.stage * STAGE + ROWS / 64 * BOX;
            products_begin();
#pragma unroll
            for (int i = 0; i < DEPTH / 16; i++) {
                int along = i * (TURNED ? 16 * 128 : 32);
                multiply<TURNED>(sum, factor_at(a + along, BOX), factor_at(b + along, BOX), k + i);
            }
            products_end();
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
        }
        products_wait<0>();
        release(barriers, before);
        settle(sum);

        float factor = job.by ? job.by[block.member] : 1.0f;
        if (job.power == 2) factor *= factor;
        float alpha = factor * job.alpha, beta = factor * job.beta, diagonal = factor * job.diagonal;
#pragma unroll
        for (int i = 0; i < 128; i++) sum[i / 4][i % 4] *= alpha;
        if (job.beta != 0.0f) {
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
                    to[0] += beta * __uint_as_float(pair << 16);
                    to[1] += beta * __uint_as_float(pair & 0xffff0000u);
                }
                meet_group(index); // until all of it have read
                release(barriers, ring.stage);
            }
        }
        if (block.row == block.column && job.diagonal != 0.0f) {
            int row = half * ROWS + index * 64 + warp * 16 + lane / 4, column = lane % 4 * 2;
#pragma unroll
            for (int i = 0; i < 128; i++) {
                if (row + i / 2 % 2 * 8 == i / 4 * 8 + column + i % 2) sum[i / 4][i % 4] += diagonal;
            }
        }
#pragma unroll
        for (int i = 0; i < 64; i++) {
            const float *pair = sum[i / 2] + i % 2 * 2;
            result.pairs[i] = round_bf16x2(pair[0], pair[1]);
        }
        result.block = block;
        result.first = first;
        pending = true;
    }
    if (pending) {
        put<0>(d, result, group);
        put<1>(d, result, group);
        put<2>(d, result, group);
        put<3>(d, result, group);
    }
    // What is on its way has to be read before the shared memory goes.
    if (threadIdx.x % 128 == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

template <int TURNED>
DEVICE void product(const TensorMap &a, const TensorMap &b, const TensorMap &c, const TensorMap &d, const Job &job) {
    extern __shared__ u8 memory[];
    __shared__ Barriers barriers;
    int side = job.rank / SIDE, blocks = side * (side + 1) / 2, half = blockIdx.x % 2;
    u32 stages = (shared_address(memory) + 1023) & ~1023u;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(&barriers.full[s], 1);
            barrier_init(&barriers.empty[s], 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    meet_cluster();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) feed<TURNED>(a, b, c, job, barriers, stages, half, blocks);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        work<TURNED>(d, job, barriers, stages, half, blocks, threadIdx.x / 128 - 1);
    }
    meet_cluster(); // neither leaves while the other may still tell it something
}

#define CLUSTER __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
#define BODY(TURNED)                                                                                                   \
    Job job = {rank, depth, members, alpha, beta, diagonal, by, power};                                                \
    product<TURNED>(a, b, c, d, job)
#else
#define CLUSTER
#define BODY(TURNED) __trap()
#endif

// D = by^power (alpha A B + beta C + diagonal I) for each of the members, all [rank, rank], A B and C symmetric. A and B^T
// [rank, depth] lie in rows, or where they are turned A^T and B [depth, rank] do. 256 divides rank; by may be null, and
// where beta is 0 C is not read. Grid: an even number of blocks, all of which run at once.
#define KERNEL(NAME, TURNED)                                                                                            \
    extern "C" __global__ void CLUSTER NAME(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,  \
                                            const __grid_constant__ TensorMap c, const __grid_constant__ TensorMap d,  \
                                            int rank, int depth, int members, float alpha, float beta, float diagonal, \
                                            const float *by, int power) {                                              \
        BODY(TURNED);                                                                                                  \
    }

KERNEL(symmetric, 0)
KERNEL(symmetric_turned, 1)

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
