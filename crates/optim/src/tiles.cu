// Tiles of matrices, gathered into a bank of their own and scattered back. Grid (tiles, parts of a tile).
#include "common.cuh"

struct Place {
    i64 bank, tile;
};

// Where element e of tile blockIdx.x lies.
DEVICE Place place(i64 e, int m, int n, int row, int column, int height, int width, int down, int across) {
    i64 tile = blockIdx.x, each = (i64)down * across;
    i64 member = tile / each, at = tile % each;
    i64 y = row + at / across * height + e / width, x = column + at % across * width + e % width;
    return {(member * m + y) * n + x, tile * height * width + e};
}

#define EACH_ELEMENT(e) \
    for (i64 e = blockIdx.y * (i64)blockDim.x + threadIdx.x; e < (i64)height * width; e += (i64)gridDim.y * blockDim.x)

extern "C" __global__ void gather(const elem *bank, elem *tiles, int m, int n, int row, int column, int height,
                                  int width, int down, int across) {
    EACH_ELEMENT(e) {
        Place p = place(e, m, n, row, column, height, width, down, across);
        tiles[p.tile] = bank[p.bank];
    }
}

extern "C" __global__ void scatter(float *bank, const elem *tiles, int m, int n, int row, int column, int height,
                                   int width, int down, int across, float scale) {
    EACH_ELEMENT(e) {
        Place p = place(e, m, n, row, column, height, width, down, across);
        bank[p.bank] = scale * load(tiles[p.tile]);
    }
}

extern "C" __global__ void scatter_add(float *bank, const elem *tiles, int m, int n, int row, int column, int height,
                                       int width, int down, int across) {
    EACH_ELEMENT(e) {
        Place p = place(e, m, n, row, column, height, width, down, across);
        bank[p.bank] += load(tiles[p.tile]);
    }
}
