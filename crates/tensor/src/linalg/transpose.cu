// Transposes by way of a tile in shared memory, so that both sides are read and written in whole lines.
#include "common.cuh"

constexpr int TILE = 32;

// y [l, n, m] = x [l, m, n]. Blocks of 32 x 8 threads, a tile each; grid (columns, rows, members) of tiles.
extern "C" __global__ void __launch_bounds__(256)
transpose(const float *__restrict__ x, float *__restrict__ y, i64 l, i64 m, i64 n) {
    __shared__ float tile[TILE][TILE + 1];
    i64 col = (i64)blockIdx.x * TILE;
    for (i64 member = blockIdx.z; member < l; member += gridDim.z) {
        const float *from = x + member * m * n;
        float *to = y + member * m * n;
        for (i64 row = (i64)blockIdx.y * TILE; row < m; row += (i64)gridDim.y * TILE) {
            __syncthreads(); // the tile before may still be read
            for (int i = threadIdx.y; i < TILE; i += 8) {
                if (row + i < m && col + threadIdx.x < n) tile[i][threadIdx.x] = from[(row + i) * n + col + threadIdx.x];
            }
            __syncthreads();
            for (int i = threadIdx.y; i < TILE; i += 8) {
                if (col + i < n && row + threadIdx.x < m) to[(col + i) * m + row + threadIdx.x] = tile[threadIdx.x][i];
            }
        }
    }
}

// The block of rows [0, half) and columns [half, 2 half) of each member of c [l, 2 half, 2 half] becomes the transpose of
// the one below the diagonal. Blocks of 32 x 8 threads, a tile each; grid (columns, rows, members); 32 divides half.
extern "C" __global__ void __launch_bounds__(256) mirror(elem *c, int half) {
    __shared__ elem tile[TILE][TILE + 2];
    c += (i64)blockIdx.z * 4 * half * half;
    int row = blockIdx.y * TILE, col = blockIdx.x * TILE;
    for (int i = threadIdx.y; i < TILE; i += 8) {
        tile[i][threadIdx.x] = c[(i64)(half + row + i) * 2 * half + col + threadIdx.x];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < TILE; i += 8) {
        c[(i64)(col + i) * 2 * half + half + row + threadIdx.x] = tile[threadIdx.x][i];
    }
}
