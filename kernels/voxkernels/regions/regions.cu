// Sums over every label of a volume: the kernels. `cuda.py` says in which order they run.
//
// A block has a tile of 32 x 8 x 8 voxels, a warp a row of 32 of them at a time. Lanes with equal labels side by side
// are a run; its first lane adds for all: count, sums of positions and of their products in closed form, extent. It
// adds to a table of its block in shared memory, where the few labels of a tile meet; positions count from the corner
// of the tile, so that 32 bits do. At its end the block shifts its sums to the origin of the volume and adds them to
// the rows of their labels in global memory, modulo 2^64 as on the CPU (see cpu.py): integers, exact in any order.
//
// Grey values take a second pass, since they are summed as deviations from the value of their region's first voxel in
// C order, which the first pass finds (shifted data: Chan, Golub and LeVeque, Am. Stat. 37 (1983) 242). A run is added
// up by shuffles, runs by atomics in double precision: exact, thus the same bits always, for integer images while sums
// stay below 2^53; for others the order of runs shows in the last digits. Extremes are compared as integers that are in
// the same order as the numbers; nan takes no part in them.
//
// A label's row is the label itself or, where labels are sparse, found in a hash table. All arrays begin as zeros:
// what is a minimum is stored as a maximum of FAR minus it.
//
// Cost: one read of the labels, with an image one more of both. Memory: 176 bytes for each row of the sums.
// Not checked here: labels >= 0, every label has a row, the image has the shape of the labels.
#ifndef LABEL
#define LABEL int
#endif
#ifndef IMAGE
#define IMAGE float
#endif
#ifndef INDEX
#define INDEX int
#endif
#ifndef SLOTS
#define SLOTS 128
#endif
#ifndef PROBES
#define PROBES 256
#endif

typedef long long Long;
typedef unsigned long long Word;

#define SIDE_X 32
#define SIDE_Y 8
#define SIDE_Z 8
#define ROWS (SIDE_Y * SIDE_Z)
#define THREADS 256
#define WARPS (THREADS / 32)
#define EVERY 0xFFFFFFFFu
#define FAR (1ll << 62)
#define FULL 1
#define N_SUMS 10
#define LOCAL_PROBES 8

struct Grid { INDEX n_z, n_y, n_x; };

__device__ __forceinline__ Long slot_of_label(Long label, Long slots) {
    return (Long)(((Word)label * 0x9E3779B97F4A7C15ull) >> 32) & (slots - 1);
}

// keys : (slots,) Word, zero on entry; every label of the volume is put in, or trouble is FULL
extern "C" __global__ void __launch_bounds__(THREADS)
collect_labels(const LABEL* labels, Long size, Word* keys, Long slots, int* trouble) {
    int lane = threadIdx.x % 32;
    // The loop ends for whole warps only, since its shuffle needs all lanes.
    for (Long start = (Long)blockIdx.x * THREADS + threadIdx.x - lane; start < size; start += (Long)gridDim.x * THREADS) {
        LABEL label = start + lane < size ? labels[start + lane] : 0;
        LABEL before = __shfl_up_sync(EVERY, label, 1);
        if (label == 0 || (lane > 0 && before == label)) continue;
        Long slot = slot_of_label(label, slots);
        int probe = 0;
        for (; probe < PROBES; probe++, slot = (slot + 1) & (slots - 1)) {
            Word held = keys[slot];
            if (held == 0) held = atomicCAS(&keys[slot], (Word)0, (Word)label);
            if (held == 0 || held == (Word)label) break;
        }
        if (probe == PROBES) atomicOr(trouble, FULL);
    }
}

// The row of a label: itself if there is no table of keys.
__device__ __forceinline__ int row_of(LABEL label, const Word* keys, const int* rows, Long slots) {
    if (slots == 0) return (int)label;
    Long slot = slot_of_label(label, slots);
    while (keys[slot] != (Word)label) slot = (slot + 1) & (slots - 1);
    return rows[slot];
}

__device__ __forceinline__ void tile_corner(Grid grid, INDEX& z, INDEX& y, INDEX& x) {
    INDEX tiles_x = (grid.n_x - 1) / SIDE_X + 1, tiles_y = (grid.n_y - 1) / SIDE_Y + 1;
    INDEX tile = blockIdx.x;
    x = tile % tiles_x * SIDE_X;
    y = tile / tiles_x % tiles_y * SIDE_Y;
    z = tile / tiles_x / tiles_y * SIDE_Z;
}

// The slot of a row in the table of a block, -1 where it is too full.
__device__ __forceinline__ int local_slot(int row, int* local_rows) {
    int slot = row & (SLOTS - 1);
    for (int probe = 0; probe < LOCAL_PROBES; probe++) {
        int held = atomicCAS(&local_rows[slot], -1, row);
        if (held == -1 || held == row) return slot;
        slot = (slot + 1) & (SLOTS - 1);
    }
    return -1;
}

// What a run, or all runs of a label in a tile, add to its row. Positions from the corner of the tile.
struct Part { unsigned sums[N_SUMS]; int low[3], high[3]; unsigned first; };

// sums (N, 10): count, z, y, x, zz, zy, zx, yy, yx, xx; box (N, 6): FAR - z0, y0, x0, then z1, y1, x1;
// first (N,): FAR - index of the first voxel. All zero on entry.
__device__ __forceinline__ void add_to_row(
    const Part& part, int row, const INDEX* corner, Grid grid, Word* sums, Long* box, Long* first) {
    Word n = part.sums[0];
    Word c[3] = {(Word)corner[0], (Word)corner[1], (Word)corner[2]};
    Word* to = sums + (Long)row * N_SUMS;
    atomicAdd(&to[0], n);
    int at = 4;
    for (int a = 0; a < 3; a++) {
        atomicAdd(&to[1 + a], part.sums[1 + a] + n * c[a]);
        for (int b = a; b < 3; b++, at++)
            atomicAdd(&to[at], part.sums[at] + c[a] * part.sums[1 + b] + c[b] * part.sums[1 + a] + n * c[a] * c[b]);
        atomicMax(&box[(Long)row * 6 + a], FAR - ((Long)corner[a] + part.low[a]));
        atomicMax(&box[(Long)row * 6 + 3 + a], (Long)corner[a] + part.high[a]);
    }
    INDEX z = corner[0] + (INDEX)(part.first / (SIDE_Y * SIDE_X)), y = corner[1] + (INDEX)(part.first / SIDE_X % SIDE_Y);
    INDEX x = corner[2] + (INDEX)(part.first % SIDE_X);
    atomicMax(&first[row], FAR - (Long)((z * grid.n_y + y) * grid.n_x + x));
}

__device__ __forceinline__ unsigned squares_below(unsigned n) { return n == 0 ? 0 : (n - 1) * n * (2 * n - 1) / 6; }

extern "C" __global__ void __launch_bounds__(THREADS)
sum_positions(const LABEL* labels, INDEX n_z, INDEX n_y, INDEX n_x, const Word* keys, const int* rows, Long slots,
              Word* sums, Long* box, Long* first) {
    __shared__ int local_rows[SLOTS];
    __shared__ Part parts[SLOTS];
    for (int slot = threadIdx.x; slot < SLOTS; slot += THREADS) {
        local_rows[slot] = -1;
        Part& part = parts[slot];
        for (int k = 0; k < N_SUMS; k++) part.sums[k] = 0;
        for (int a = 0; a < 3; a++) part.low[a] = SIDE_X, part.high[a] = 0;
        part.first = ROWS * SIDE_X;
    }
    __syncthreads();  // the table is clear before anyone adds

    INDEX corner[3];
    tile_corner({n_z, n_y, n_x}, corner[0], corner[1], corner[2]);
    int lane = threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < ROWS; row += WARPS) {
        unsigned z = row / SIDE_Y, y = row % SIDE_Y, x = lane;
        bool inside = (INDEX)z < n_z - corner[0] && (INDEX)y < n_y - corner[1] && lane < n_x - corner[2];
        LABEL label = inside ? labels[((corner[0] + (INDEX)z) * n_y + corner[1] + (INDEX)y) * n_x + corner[2] + lane] : 0;
        LABEL before = __shfl_up_sync(EVERY, label, 1);
        bool starts = lane == 0 || before != label;
        unsigned later = __ballot_sync(EVERY, starts) >> lane >> 1;
        if (!starts || label == 0) continue;
        unsigned n = later ? __ffs(later) : 32 - lane, stop = x + n;
        unsigned sum_x = n * (x + stop - 1) / 2;
        Part run = {{n, n * z, n * y, sum_x, n * z * z, n * z * y, z * sum_x, n * y * y, y * sum_x,
                     squares_below(stop) - squares_below(x)},
                    {(int)z, (int)y, (int)x}, {(int)z + 1, (int)y + 1, (int)stop}, (unsigned)row * SIDE_X + x};
        int to = row_of(label, keys, rows, slots);
        int slot = local_slot(to, local_rows);
        if (slot < 0) {
            add_to_row(run, to, corner, {n_z, n_y, n_x}, sums, box, first);
            continue;
        }
        Part& part = parts[slot];
        for (int k = 0; k < N_SUMS; k++) atomicAdd(&part.sums[k], run.sums[k]);
        for (int a = 0; a < 3; a++) atomicMin(&part.low[a], run.low[a]), atomicMax(&part.high[a], run.high[a]);
        atomicMin(&part.first, run.first);
    }
    __syncthreads();  // all have added before the table is emptied
    for (int slot = threadIdx.x; slot < SLOTS; slot += THREADS)
        if (local_rows[slot] >= 0) add_to_row(parts[slot], local_rows[slot], corner, {n_z, n_y, n_x}, sums, box, first);
}

// Integers in the order of the numbers; 0 stands for nan, and for nothing.
__device__ __forceinline__ Word ordered(double value) {
    if (value != value) return 0;
    union { double number; Word bits; } both;
    both.number = value;
    return both.bits >> 63 ? ~both.bits : both.bits | 1ull << 63;
}

// deviations (N, 2): sums of deviations from the value of the voxel `first`, and of their squares; extremes (N, 2): the
// largest `ordered` value, and the largest complement of one; reference (N,): the value of the voxel. Zero on entry.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_grey(const LABEL* labels, const IMAGE* image, INDEX n_z, INDEX n_y, INDEX n_x, const Word* keys, const int* rows,
         Long slots, const Long* first, double* deviations, Word* extremes, double* reference) {
    __shared__ int local_rows[SLOTS];
    __shared__ double local_deviations[SLOTS][2];
    __shared__ Word local_extremes[SLOTS][2];
    for (int slot = threadIdx.x; slot < SLOTS; slot += THREADS) {
        local_rows[slot] = -1;
        for (int k = 0; k < 2; k++) local_deviations[slot][k] = 0, local_extremes[slot][k] = 0;
    }
    __syncthreads();  // the table is clear before anyone adds

    INDEX z0, y0, x0;
    tile_corner({n_z, n_y, n_x}, z0, y0, x0);
    int lane = threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < ROWS; row += WARPS) {
        INDEX z = row / SIDE_Y, y = row % SIDE_Y;
        bool inside = z < n_z - z0 && y < n_y - y0 && lane < n_x - x0;
        INDEX at = inside ? ((z0 + z) * n_y + y0 + y) * n_x + x0 + lane : 0;
        LABEL label = inside ? labels[at] : 0;
        double value = inside ? (double)image[at] : 0.0, d = 0.0;
        int to = 0;
        if (label) {
            to = row_of(label, keys, rows, slots);
            Long begin = FAR - first[to];
            d = value - (double)image[begin];
            if (begin == (Long)at) reference[to] = value;
        }
        LABEL before = __shfl_up_sync(EVERY, label, 1);
        bool starts = lane == 0 || before != label;
        unsigned later = __ballot_sync(EVERY, starts) >> lane >> 1;
        int stop = later ? lane + __ffs(later) : 32;
        double squares = d * d;
        Word high = ordered(value), low = high ? ~high : 0;
        for (int by = 1; by < 32; by *= 2) {  // each lane has the sum of those from it to the end of its run, at last
            double more = __shfl_down_sync(EVERY, d, by), more_squares = __shfl_down_sync(EVERY, squares, by);
            Word higher = __shfl_down_sync(EVERY, high, by), lower = __shfl_down_sync(EVERY, low, by);
            if (lane + by >= stop) continue;
            d += more, squares += more_squares;
            high = higher > high ? higher : high, low = lower > low ? lower : low;
        }
        if (!starts || label == 0) continue;
        int slot = local_slot(to, local_rows);
        double* sums = slot < 0 ? deviations + 2 * (Long)to : local_deviations[slot];
        Word* ends = slot < 0 ? extremes + 2 * (Long)to : local_extremes[slot];
        atomicAdd(&sums[0], d), atomicAdd(&sums[1], squares);
        atomicMax(&ends[0], high), atomicMax(&ends[1], low);
    }
    __syncthreads();  // all have added before the table is emptied
    for (int slot = threadIdx.x; slot < SLOTS; slot += THREADS) {
        if (local_rows[slot] < 0) continue;
        for (int k = 0; k < 2; k++) {
            atomicAdd(&deviations[2 * (Long)local_rows[slot] + k], local_deviations[slot][k]);
            atomicMax(&extremes[2 * (Long)local_rows[slot] + k], local_extremes[slot][k]);
        }
    }
}
