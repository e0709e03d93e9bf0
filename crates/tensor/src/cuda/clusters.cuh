// Products by pairs of multiprocessors of an H100, clusters of two: of 256 x 256 elements of the result each has 128 rows.
// One warp of each brings pieces of the factors to a ring of stages in shared memory by TMA, those of B to both; two groups
// of four warps multiply them (wgmma), 64 rows each. Arrivals at barriers are ordered within a block of threads only, as
// wgmma and TMA need no more: at the cluster's scope each would wait for all that the thread has ever written.
#pragma once
#include "warpgroup.cuh"

// What the driver's cuTensorMapEncodeTiled makes.
struct __align__(64) TensorMap {
    u64 words[16];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Side of a block of the result; of those, rows of a multiprocessor; elements of the sums in a piece; pieces at a time.
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
// Until it is there, which it has to be before the kernel ends.
DEVICE void wait_all_sends() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

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

// The barrier of the next stage, once that may be filled: with so many bytes.
DEVICE u64 *to_fill(Barriers &barriers, const Ring &ring, int bytes) {
    barrier_wait(&barriers.empty[ring.stage], ring.turn);
    barrier_expect(&barriers.full[ring.stage], bytes);
    return &barriers.full[ring.stage];
}

// Tells both that a stage has been read by this group: its own no later than the other, which fills such a stage again, or
// arrives here once more, only after a copy from memory.
DEVICE void release(Barriers &barriers, int stage) {
    if (threadIdx.x % 128 < 2) barrier_arrive_at(&barriers.empty[stage], threadIdx.x % 128);
}

// Which of the groups that multiply this thread is in; the assembler is shown that it is one for all of a warp.
DEVICE int group_index() { return __shfl_sync(~0u, (int)threadIdx.x / 128 - 1, 0); }

// A group of four warps.
struct Group {
    int index, warp, lane;
    u32 out; // half of its result on its way out
};

// The start of a kernel: barriers that every multiprocessor of the cluster may use.
DEVICE void open_barriers(Barriers &barriers) {
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(&barriers.full[s], 1);
            barrier_init(&barriers.empty[s], 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    meet_cluster();
}

// Registers that the warps of the copies have to spare, for those that multiply.
DEVICE void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 40;"); }
DEVICE void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 232;"); }

#define CLUSTER __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
#else
#define CLUSTER
#endif
