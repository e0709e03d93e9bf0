// Odd quintics on matrices of at most 128 x 128, tiles of larger ones, in one pass on an H100: a block has a tile in shared
// memory and registers from its entries to the result of the last step. Two groups of four warps have 64 rows each; what the
// first two products of a step leave is the left factor of the next as it is (warpgroup.cuh). Smaller tiles are filled up
// with zeros, which stay.
#ifdef ELEM_BF16
#include "warpgroup.cuh"

constexpr int MOST = 10; // steps

// a, b and c of each step.
struct __align__(64) Quintics {
    float of[MOST][3], unused[2];
};

// Tiles of the matrices of a bank, as in tiles.cu.
struct Lattice {
    int m, n, row, column, height, width, down, across;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr int SIDE = 128, ROWS = 64, PAIRS = SIDE / 16;
// Pieces of 8 elements of a row; threads, rows that they copy at a time, and pieces that each copies.
constexpr int PIECES = SIDE / 8, THREADS = 256, STEP = THREADS / PIECES, EACH = SIDE / STEP;
// Bytes of the left or right half of a matrix, whose rows of 128 bytes are turned as products want them; and of all of it.
constexpr int HALF = SIDE * 128, MATRIX = 2 * HALF;

// Where the piece of 8 elements of a row lies.
DEVICE u32 piece(int row, int place) { return place / 8 * HALF + row * 128 + ((place ^ row) % 8 << 4); }

// Where a thread's first piece of the tile lies in the bank. Not kept from the start to the end, where it is wanted again:
// registers are dear between.
DEVICE i64 offset_of(const Lattice &lattice) {
    u32 tile;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(tile));
    u32 each = lattice.down * lattice.across, member = tile / each, at = tile % each;
    int row = lattice.row + at / lattice.across * lattice.height + threadIdx.x / PIECES;
    return ((i64)member * lattice.m + row) * lattice.n + lattice.column + at % lattice.across * lattice.width +
           threadIdx.x % PIECES * 8;
}

// The rows of a group as left factors: of the 16 columns from 16 k on.
typedef u32 Left[PAIRS][4];

// Where this lane's row of the four matrices of 8 x 8 of 16 columns lies.
DEVICE u32 place_of(int first, int k) {
    int lane = threadIdx.x % 32;
    return piece(first + lane % 16, 2 * k + lane / 16);
}
DEVICE void put(u32 matrix, int first, const Left &x) {
#pragma unroll
    for (int k = 0; k < PAIRS; k++) store_matrices<false>(matrix + place_of(first, k), x[k]);
    show_products();
}

// Columns 16 k + 8 (i / 2) and on of rows lane / 4 + 8 (i % 2).
DEVICE float *sums_of(float (&sum)[16][4], int k, int i) { return sum[2 * k + i / 2] + i % 2 * 2; }
DEVICE float rounded(float x) { return low(round_bf16x2(x, 0.0f)); }

// Divides the tile by its norm, rounded, as torch.optim.Muon does. Its largest entry comes to 1 to 4 before that, so that
// no square leaves the range of a float.
DEVICE void normalize(uint4 (&x)[EACH]) {
    float most = 0.0f;
    u32 *words = reinterpret_cast<u32 *>(x);
#pragma unroll
    for (int i = 0; i < 4 * EACH; i++) most = fmaxf(most, fmaxf(fabsf(low(words[i])), fabsf(high(words[i]))));
    most = block_max(most);
    float scale = __uint_as_float((u32)(254 - min((int)(__float_as_uint(most) >> 23), 253)) << 23), sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 4 * EACH; i++) {
        float a = scale * low(words[i]), b = scale * high(words[i]);
        sum += a * a + b * b;
    }
    float norm = rounded(sqrtf(block_sum(sum)));
#pragma unroll
    for (int i = 0; i < 4 * EACH; i++) {
        float a = scale * low(words[i]), b = scale * high(words[i]);
        words[i] = norm == 0.0f ? 0 : round_bf16x2(a / norm, b / norm);
    }
}

// sum = X X^T for the rows of a group.
DEVICE void square(float (&sum)[16][4], u32 x, int first) {
    products_begin();
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        u32 along = k / 4 * HALF + k % 4 * 32;
        multiply<16>(sum, factor_at(x + first * 128 + along), factor_at(x + along), k);
    }
    products_end();
    products_wait<0>();
    settle(sum);
}

// sum = left B, and B is symmetric or lies turned.
template <int TURNED> DEVICE void multiply_all(float (&sum)[16][4], Left &left, u32 b) {
    settle(left);
    products_begin();
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        u32 along = TURNED ? k * 16 * 128 : k / 4 * HALF + k % 4 * 32;
        multiply_kept<TURNED>(sum, left[k], factor_at(b + along, HALF), k);
    }
    products_end();
    products_wait<0>();
    settle(sum);
    settle(left);
}
#endif

// x <- a x + (b A + c A^2) x with A = x x^T, `steps` times from x / norm(x), for each tile. Rounded to bf16 once for each
// product, a I being part of the second factor; `published`: after every product and every sum. Grid: tiles.
template <bool PUBLISHED>
DEVICE void iterate(bf16 *to, const bf16 *from, const Lattice &lattice, const Quintics &quintics, int steps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) u8 memory[];
    int lane = threadIdx.x % 32, first = threadIdx.x / 128 * ROWS, own = first + threadIdx.x / 32 % 4 * 16;
    int row = threadIdx.x / PIECES, place = threadIdx.x % PIECES;
    u32 x = shared_address(memory), next = x + MATRIX, a = x + 2 * MATRIX;
    {
        uint4 pieces[EACH];
        const bf16 *tile = from + offset_of(lattice);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            bool live = row + i * STEP < lattice.height && place * 8 < lattice.width;
            pieces[i] = live ? *reinterpret_cast<const uint4 *>(tile + (i64)i * STEP * lattice.n) : make_uint4(0, 0, 0, 0);
        }
        normalize(pieces);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            *reinterpret_cast<uint4 *>(memory + piece(row + i * STEP, place)) = pieces[i];
    }
    show_products();
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        float of_x = quintics.of[step][0], of_a = quintics.of[step][1], of_square = quintics.of[step][2];
        float sum[16][4];
        Left left;
        square(sum, x, first);
        as_left(left, sum);
        put(a, own, left);
        __syncthreads(); // A is there for all
        if (PUBLISHED) {
#pragma unroll
            for (int k = 0; k < PAIRS; k++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    left[k][i] = round_bf16x2(of_square * low(left[k][i]), of_square * high(left[k][i]));
        }
        multiply_all<0>(sum, left, a);
#pragma unroll
        for (int k = 0; k < PAIRS; k++) {
            u32 again[4];
            load_matrices<false>(again, a + place_of(own, k));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *s = sums_of(sum, k, i);
                float p[2];
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float value = h ? high(again[i]) : low(again[i]);
                    if (PUBLISHED) p[h] = rounded(of_a * value) + rounded(s[h]);
                    else p[h] = of_square * s[h] + of_a * value;
                    bool diagonal = own + lane / 4 + i % 2 * 8 == 16 * k + i / 2 * 8 + lane % 4 * 2 + h;
                    if (!PUBLISHED && diagonal) p[h] += of_x;
                }
                left[k][i] = round_bf16x2(p[0], p[1]);
            }
        }
        multiply_all<1>(sum, left, x);
#pragma unroll
        for (int k = 0; k < PAIRS; k++) {
            u32 again[4];
            if (PUBLISHED) load_matrices<false>(again, x + place_of(own, k));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float s[2] = {sums_of(sum, k, i)[0], sums_of(sum, k, i)[1]};
                if (PUBLISHED) {
                    s[0] = rounded(of_x * low(again[i])) + rounded(s[0]);
                    s[1] = rounded(of_x * high(again[i])) + rounded(s[1]);
                }
                left[k][i] = round_bf16x2(s[0], s[1]);
            }
        }
        put(next, own, left);
        __syncthreads(); // the new x is there for all, and no one reads A or the old x any more
        u32 old = x;
        x = next, next = old;
    }
    const u8 *result = memory + (x - shared_address(memory));
    bf16 *tile = to + offset_of(lattice);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int line = row + i * STEP;
        if (line < lattice.height && place * 8 < lattice.width)
            *reinterpret_cast<uint4 *>(tile + (i64)i * STEP * lattice.n) =
                *reinterpret_cast<const uint4 *>(result + piece(line, place));
    }
#else
    __trap();
#endif
}

#define KERNEL(NAME, PUBLISHED)                                                                                       \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                             \
        NAME(bf16 *to, const bf16 *from, int m, int n, int row, int column, int height, int width, int down, int across, \
             const __grid_constant__ Quintics quintics, int steps) {                                                 \
        Lattice lattice = {m, n, row, column, height, width, down, across};                                          \
        iterate<PUBLISHED>(to, from, lattice, quintics, steps);                                                      \
    }

KERNEL(fused_quintics, false)
KERNEL(fused_quintics_published, true)
#endif
