// Sums over every label of a volume: the kernels. `cuda.py` says in which order they run.
//
// A block goes through eight slices of a tile of 128 x 16 voxels. Of each slice
// 1. its warps read rows of 128 voxels, four in each lane, the next slice's while they look at this one's, and put the runs
//    of equal labels into one list: a run is found by comparing neighbours, its end by the ballots of where runs begin;
// 2. its threads take a run each and add it to the slice's part of its label in a table of the block, in shared memory:
//    count, sums of y, x and of their products in closed form, extent. Positions count from the corner of the tile, so
//    that 32 bits do, for count and the sum of y together;
// 3. each part in use is folded into the label's total with z, and cleared.
// At its end the block shifts its totals to the origin of the volume and adds them to the rows of their labels in global
// memory, modulo 2^64 as on the CPU (see cpu.py): integers, exact in any order.
//
// Grey values take a second pass. The CPU sums their deviations from the value of their region's first voxel in C order
// (shifted data: Chan, Golub and LeVeque, Am. Stat. 37 (1983) 242). Integers are summed as they are, with their squares,
// and shifted in the end, exactly, modulo 2^64. Other numbers are shifted as they are read, since the first pass has
// found the first voxels; a run is added up by shuffles, runs by atomics in double precision, whose order shows in the
// last digits. Extremes are compared as integers that are in the same order as the numbers; nan takes no part in them.
//
// A label's row is the label itself or, where labels are sparse, found in a hash table; a label without a row, and a
// negative one, is reported. All arrays begin as zeros: what is a minimum is stored as a maximum of FAR minus it. The
// rows in use become the results, in the order of their labels: centroid and inertia with the CPU's bits, by the same
// operations in the same order.
//
// Cost: one read of the labels, with an image one more of both. Memory: 136 bytes for each row, with an image 168, and
// the results. Not checked here: every label has a slot in the hash table, the image has the shape of the labels.
#ifndef LABEL
#define LABEL int
#endif
#ifndef IMAGE
#define IMAGE float
#endif
#ifndef INDEX
#define INDEX int
#endif
#ifndef PROBES
#define PROBES 256
#endif
#ifndef LANES_ADD  // whether the GPU has instructions that add, and compare, over lanes
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define LANES_ADD 0
#else
#define LANES_ADD 1
#endif
#endif

typedef long long Long;
typedef unsigned long long Word;

#define SIDE_X 128
#define SIDE_Y 16
#define SIDE_Z 8
#define AREA (SIDE_Y * SIDE_X)
#define THREADS 256
#define WARPS (THREADS / 32)
#define ROWS (SIDE_Y / WARPS)  // of each warp
#define PIECES (SIDE_X / 32)
#define EVERY 0xFFFFFFFFu
#define FAR (1ll << 62)
#define FULL 1
#define LOCAL_PROBES 8
#define SLOTS ((int)(sizeof(LABEL) == 8 ? 128 : 256))  // what fits beside the list of runs

#define AT_ONCE (sizeof(LABEL) == 8 ? 3 : 5)  // blocks of a processor, for which registers are rationed

struct Grid { INDEX n_z, n_y, n_x; };

// ---- rows of labels -------------------------------------------------------------------------------------------------

// A row: count, sums of z, y, x, zz, zy, zx, yy, yx, xx; FAR - z0, y0, x0, then z1, y1, x1; FAR - index of the first
// voxel; with an image, sums of its values (of deviations if they are no integers) and of squares, the largest `ordered`
// value, the largest complement of one, the value of the first voxel.
#define N_SUMS 10
#define BOX 10
#define FIRST 16
#define GREY 17
#define EXTREMES 19
#define REFERENCE 21

// keys, rows : (slots,) a hash table, of no slots where a label is its own row, one of n. state : the largest label
// without a row, as an unsigned number, then the rows in use.
struct Table { const Word* keys; const int* rows; Long slots, n; Word* state; };

__device__ __forceinline__ Long slot_of_label(Long label, Long slots) {
    return (Long)(((Word)label * 0x9E3779B97F4A7C15ull) >> 32) & (slots - 1);
}

// The row of a label, -1 if it has none.
__device__ __forceinline__ Long row_of(LABEL label, const Table& table) {
    if (table.slots == 0) return label > 0 && label < table.n ? (Long)label : -1;
    Long slot = slot_of_label(label, table.slots);
    while (table.keys[slot] != (Word)label) slot = (slot + 1) & (table.slots - 1);
    return table.rows[slot];
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

// ---- places ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void tile_corner(Grid grid, INDEX& z, INDEX& y, INDEX& x) {
    INDEX tiles_x = (grid.n_x - 1) / SIDE_X + 1, tiles_y = (grid.n_y - 1) / SIDE_Y + 1;
    INDEX tile = blockIdx.x;
    x = tile % tiles_x * SIDE_X;
    y = tile / tiles_x % tiles_y * SIDE_Y;
    z = tile / tiles_x / tiles_y * SIDE_Z;
}

__device__ __forceinline__ int put_first(int* at, int label) { return atomicCAS(at, 0, label); }
__device__ __forceinline__ Long put_first(Long* at, Long label) { return (Long)atomicCAS((Word*)at, (Word)0, (Word)label); }

// The slot of a label in the table of a block, entered into the list of those in use; -1 where the table is too full.
__device__ __forceinline__ int local_slot(LABEL label, LABEL* held, unsigned short* used, int* n_used) {
    int slot = (unsigned)((unsigned)label * 2654435769u) >> 16 & (SLOTS - 1);
    for (int probe = 0; probe < LOCAL_PROBES; probe++, slot = (slot + 1) & (SLOTS - 1)) {
        LABEL there = held[slot];  // a stale 0 is corrected by the swap, and no label ever changes
        if (there == label) return slot;
        if (there != 0) continue;
        there = put_first(&held[slot], label);
        if (there == 0) used[atomicAdd(n_used, 1)] = (unsigned short)slot;
        if (there == 0 || there == label) return slot;
    }
    return -1;
}

// ---- positions ------------------------------------------------------------------------------------------------------

// What a run, or all runs of a label in a tile, add to its row. Positions from the corner of the tile.
struct Part { unsigned sums[N_SUMS], low[3], high[3], first; };

__device__ __forceinline__ void add_to_row(
    const Part& part, LABEL label, const INDEX* corner, Grid grid, Word* rows, int width, const Table& table) {
    Long row = row_of(label, table);
    if (row < 0) {
        if (table.state[0] < (Word)label) atomicMax(&table.state[0], (Word)label);
        return;
    }
    Word n = part.sums[0];
    Word c[3] = {(Word)corner[0], (Word)corner[1], (Word)corner[2]};
    Word* to = rows + row * width;
    atomicAdd(&to[0], n);
    int at = 4;
    for (int a = 0; a < 3; a++) {
        atomicAdd(&to[1 + a], part.sums[1 + a] + n * c[a]);
        for (int b = a; b < 3; b++, at++)
            atomicAdd(&to[at], part.sums[at] + c[a] * part.sums[1 + b] + c[b] * part.sums[1 + a] + n * c[a] * c[b]);
        atomicMax(&to[BOX + a], (Word)(FAR - ((Long)corner[a] + part.low[a])));
        atomicMax(&to[BOX + 3 + a], c[a] + part.high[a]);
    }
    INDEX z = corner[0] + (INDEX)(part.first / AREA), y = corner[1] + (INDEX)(part.first / SIDE_X % SIDE_Y);
    INDEX x = corner[2] + (INDEX)(part.first % SIDE_X);
    atomicMax(&to[FIRST], (Word)(FAR - (Long)((z * grid.n_y + y) * grid.n_x + x)));
}

__device__ __forceinline__ unsigned squares_below(unsigned n) { return n == 0 ? 0 : (n - 1) * n * (2 * n - 1) / 6; }

// Four voxels side by side, in one read where they lie well.
struct alignas(16) Four { LABEL of[4]; };

// The rows of a warp in a slice of the tile, four voxels in each lane; 0 outside. aligned : in every row of the volume they
// lie at multiples of 16 bytes, all or none of four inside.
__device__ __forceinline__ void load_rows(
    const LABEL* labels, Grid grid, const INDEX* corner, int z, bool aligned, Four (&found)[ROWS]) {
    int first = threadIdx.x / 32 * ROWS;
    INDEX x = 4 * (threadIdx.x % 32), left = grid.n_x - corner[2];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        bool inside = z < SIDE_Z && (INDEX)z < grid.n_z - corner[0] && (INDEX)(first + r) < grid.n_y - corner[1] && x < left;
        INDEX at = inside ? ((corner[0] + z) * grid.n_y + corner[1] + first + r) * grid.n_x + corner[2] + x : 0;
        if (aligned) {
            found[r] = inside ? *(const Four*)(labels + at) : Four{{0, 0, 0, 0}};
        } else {
#pragma unroll
            for (int k = 0; k < 4; k++) found[r].of[k] = inside && x + k < left ? labels[at + k] : (LABEL)0;
        }
    }
}

// Put the runs of row y into the list: label, and y << 14 | x << 7 | length - 1.
__device__ __forceinline__ void list_runs(const Four& row, int y, LABEL* run_labels, unsigned* runs, int* n_runs) {
    int lane = threadIdx.x % 32, n = 0;
    unsigned begins[4], of_labels[4];  // the lanes in whose k-th voxel a run begins; those of no background
    LABEL before = __shfl_up_sync(EVERY, row.of[3], 1);
    if (lane == 0) before = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        begins[k] = __ballot_sync(EVERY, row.of[k] != before);
        of_labels[k] = __ballot_sync(EVERY, row.of[k] != before && row.of[k] != 0);
        n += __popc(of_labels[k]);
        before = row.of[k];
    }
    if (n == 0) return;
    int to = 0;
    if (lane == 0) to = atomicAdd(n_runs, n);
    to = __shfl_sync(EVERY, to, 0);
    unsigned below = (1u << lane) - 1, later = (begins[0] | begins[1] | begins[2] | begins[3]) & ~below & ~(1u << lane);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        if (of_labels[k] == 0) continue;
        if (of_labels[k] >> lane & 1) {
            int stop = SIDE_X;  // where the next run begins: in a lane further on, or in this one
            if (later) {
                int other = __ffs(later) - 1;
                stop = 4 * other
                    + (begins[0] >> other & 1 ? 0 : begins[1] >> other & 1 ? 1 : begins[2] >> other & 1 ? 2 : 3);
            }
#pragma unroll
            for (int i = 3; i > k; i--)
                if (begins[i] >> lane & 1) stop = 4 * lane + i;
            int x = 4 * lane + k, place = to + __popc(of_labels[k] & below);
            run_labels[place] = row.of[k];
            runs[place] = (unsigned)y << 14 | (unsigned)x << 7 | (unsigned)(stop - x - 1);
        }
        to += __popc(of_labels[k]);
    }
}

// Of a slice: count | sum of y << 16, sums of x, yy, yx, xx; the first voxel, the last row, the lowest and highest x.
#define N_PARTS 9
// Of a tile: the sums of a row, the first voxel, the end in z, and the box in y and x: low y | high y << 8 | ...
#define N_TOTALS 13

__device__ __forceinline__ void clear_part(unsigned (*parts)[SLOTS], int slot) {
    for (int k = 0; k < N_PARTS; k++) parts[k][slot] = k == 5 || k == 7 ? EVERY : 0;
}

// rows (n, width): of labels, zero on entry.
extern "C" __global__ void __launch_bounds__(THREADS, AT_ONCE)
sum_positions(const LABEL* labels, INDEX n_z, INDEX n_y, INDEX n_x, const Word* keys, const int* rows_of, Long slots,
              Word* rows, Long n, int width, Word* state) {
    __shared__ LABEL held[SLOTS];
    __shared__ unsigned short used[SLOTS];
    __shared__ unsigned parts[N_PARTS][SLOTS], totals[N_TOTALS][SLOTS];
    __shared__ LABEL run_labels[AREA];
    __shared__ unsigned runs[AREA];
    __shared__ int n_runs[2], n_used;  // runs of this slice and of the next, in turns
    for (int slot = threadIdx.x; slot < SLOTS; slot += THREADS) {
        held[slot] = 0;
        clear_part(parts, slot);
        for (int k = 0; k < N_TOTALS; k++) totals[k][slot] = k == 10 ? EVERY : k == 12 ? 0x00FF00FFu : 0;
    }
    if (threadIdx.x == 0) n_runs[0] = n_used = 0;

    Grid grid = {n_z, n_y, n_x};
    Table table = {keys, rows_of, slots, n, state};
    INDEX corner[3];
    tile_corner(grid, corner[0], corner[1], corner[2]);
    bool aligned = (Word)labels % 16 == 0 && n_x % 4 == 0;
    Four row[ROWS], next[ROWS];
    load_rows(labels, grid, corner, 0, aligned, row);
    __syncthreads();  // all is clear before anyone adds
    for (int z = 0; z < SIDE_Z && (INDEX)z < n_z - corner[0]; z++) {
        load_rows(labels, grid, corner, z + 1, aligned, next);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            list_runs(row[r], threadIdx.x / 32 * ROWS + r, run_labels, runs, &n_runs[z & 1]);
        __syncthreads();  // the list is complete, and all parts are folded
        int total = n_runs[z & 1];
        if (threadIdx.x == 0) n_runs[(z + 1) & 1] = 0;
        for (int k = threadIdx.x; k < total; k += THREADS) {
            LABEL label = run_labels[k];
            unsigned y = runs[k] >> 14, x = runs[k] >> 7 & 127, count = (runs[k] & 127) + 1, stop = x + count;
            unsigned sum_x = count * (x + stop - 1) / 2, sum_xx = squares_below(stop) - squares_below(x);
            int slot = local_slot(label, held, used, &n_used);
            if (slot < 0) {
                unsigned zz = z;
                Part run = {{count, count * zz, count * y, sum_x, count * zz * zz, count * zz * y, zz * sum_x,
                             count * y * y, y * sum_x, sum_xx},
                            {zz, y, x}, {zz + 1, y + 1, stop}, zz * AREA + y * SIDE_X + x};
                add_to_row(run, label, corner, grid, rows, width, table);
                continue;
            }
            atomicAdd(&parts[0][slot], count | count * y << 16);
            atomicAdd(&parts[1][slot], sum_x);
            atomicAdd(&parts[2][slot], count * y * y);
            atomicAdd(&parts[3][slot], y * sum_x);
            atomicAdd(&parts[4][slot], sum_xx);
            // most runs lie within what others have found; what is read here may be stale, never too far
            if (y * SIDE_X + x < parts[5][slot]) atomicMin(&parts[5][slot], y * SIDE_X + x);
            if (y > parts[6][slot]) atomicMax(&parts[6][slot], y);
            if (x < parts[7][slot]) atomicMin(&parts[7][slot], x);
            if (stop > parts[8][slot]) atomicMax(&parts[8][slot], stop);
        }
        __syncthreads();  // the slice is added, and its list read
        for (int k = threadIdx.x; k < n_used; k += THREADS) {
            int slot = used[k];
            unsigned count = parts[0][slot] & 0xFFFF, sum_y = parts[0][slot] >> 16, sum_x = parts[1][slot];
            if (count == 0) continue;
            unsigned zz = z, of_slice[N_SUMS] = {count, zz * count, sum_y, sum_x, zz * zz * count, zz * sum_y, zz * sum_x,
                                                parts[2][slot], parts[3][slot], parts[4][slot]};
            for (int i = 0; i < N_SUMS; i++) totals[i][slot] += of_slice[i];
            if (totals[10][slot] == EVERY) totals[10][slot] = zz * AREA + parts[5][slot];
            totals[11][slot] = zz + 1;
            unsigned box = totals[12][slot], low_y = parts[5][slot] / SIDE_X, high_y = parts[6][slot] + 1;
            unsigned low_x = parts[7][slot], high_x = parts[8][slot];
            low_y = low_y < (box & 255) ? low_y : box & 255, low_x = low_x < (box >> 16 & 255) ? low_x : box >> 16 & 255;
            high_y = high_y > (box >> 8 & 255) ? high_y : box >> 8 & 255, high_x = high_x > box >> 24 ? high_x : box >> 24;
            totals[12][slot] = low_y | high_y << 8 | low_x << 16 | high_x << 24;
            clear_part(parts, slot);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) row[r] = next[r];
    }
    for (int k = threadIdx.x; k < n_used; k += THREADS) {  // by the thread that has folded it
        int slot = used[k];
        unsigned box = totals[12][slot], first = totals[10][slot];
        Part part = {{}, {first / AREA, box & 255, box >> 16 & 255}, {totals[11][slot], box >> 8 & 255, box >> 24}, first};
        for (int i = 0; i < N_SUMS; i++) part.sums[i] = totals[i][slot];
        add_to_row(part, held[slot], corner, grid, rows, width, table);
    }
}

// ---- grey values ----------------------------------------------------------------------------------------------------

__device__ __forceinline__ Word bits_of(double number) {
    union { double number; Word bits; } both;
    both.number = number;
    return both.bits;
}

__device__ __forceinline__ double number_of(Word bits) {
    union { double number; Word bits; } both;
    both.bits = bits;
    return both.number;
}

// Integers in the order of the numbers; 0 stands for nan, and for nothing.
__device__ __forceinline__ Word ordered(double value) {
    if (value != value) return 0;
    Word bits = bits_of(value);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}

__device__ __forceinline__ double number_in_order(Word ordered) {
    return number_of(ordered >> 63 ? ordered ^ 1ull << 63 : ~ordered);
}

__device__ __forceinline__ unsigned sum_of_peers(unsigned peers, unsigned value) {
#if LANES_ADD
    return __reduce_add_sync(peers, value);
#else
    unsigned total = 0;
    for (unsigned left = peers; left; left &= left - 1) total += __shfl_sync(peers, value, __ffs(left) - 1);
    return total;
#endif
}

__device__ __forceinline__ unsigned most_of_peers(unsigned peers, unsigned value) {
#if LANES_ADD
    return __reduce_max_sync(peers, value);
#else
    unsigned most = 0;
    for (unsigned left = peers; left; left &= left - 1) {
        unsigned other = __shfl_sync(peers, value, __ffs(left) - 1);
        most = other > most ? other : most;
    }
    return most;
#endif
}

__device__ __forceinline__ Word most_of_peers(unsigned peers, Word value) {
    unsigned high = most_of_peers(peers, (unsigned)(value >> 32));
    unsigned low = most_of_peers(peers, high == (unsigned)(value >> 32) ? (unsigned)value : 0u);
    return (Word)high << 32 | low;
}

// The lanes of the run of a lane, from the lanes at which runs begin.
__device__ __forceinline__ unsigned run_of(unsigned begins, int lane) {
    unsigned later = begins & EVERY << lane << 1, earlier = begins & EVERY >> (31 - lane);
    return EVERY << (31 - __clz(earlier)) & (later ? (later & -later) - 1 : EVERY);
}

// A line of a tile and its grey values, a piece of it in each lane; 0 outside.
__device__ __forceinline__ void load_line(const LABEL* labels, const IMAGE* image, Grid grid, const INDEX* corner,
                                          int line, LABEL (&label)[PIECES], IMAGE (&value)[PIECES]) {
    INDEX z = line / SIDE_Y, y = line % SIDE_Y, x = threadIdx.x % 32;
    bool inside = line < SIDE_Z * SIDE_Y && z < grid.n_z - corner[0] && y < grid.n_y - corner[1];
    INDEX at = inside ? ((corner[0] + z) * grid.n_y + corner[1] + y) * grid.n_x + corner[2] + x : 0;
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        bool there = inside && 32 * k + x < grid.n_x - corner[2];
        label[k] = there ? labels[at + 32 * k] : (LABEL)0;
        value[k] = there ? image[at + 32 * k] : (IMAGE)0;
    }
}

__device__ __forceinline__ void add_integers(
    Word sum, Word squares, unsigned most, unsigned most_left, LABEL label, Word* rows, int width, const Table& table) {
    Long row = row_of(label, table);
    if (row < 0) return;
    Word* to = rows + row * width;
    atomicAdd(&to[GREY], sum), atomicAdd(&to[GREY + 1], squares);
    atomicMax(&to[EXTREMES], ordered(most)), atomicMax(&to[EXTREMES + 1], ~ordered(0xFFFF - most_left));
}

// Images of 8 or 16 bits. most_left is the largest 0xFFFF - value.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_integers(const LABEL* labels, const IMAGE* image, INDEX n_z, INDEX n_y, INDEX n_x, const Word* keys,
             const int* rows_of, Long slots, Word* rows, Long n, int width, Word* state) {
    __shared__ LABEL held[SLOTS];
    __shared__ unsigned short used[SLOTS];
    __shared__ unsigned sums[SLOTS], squares[2][SLOTS], most[SLOTS], most_left[SLOTS];  // squares: low and high 16 bits
    __shared__ int n_used;
    for (int slot = threadIdx.x; slot < SLOTS; slot += THREADS)
        held[slot] = 0, sums[slot] = squares[0][slot] = squares[1][slot] = most[slot] = most_left[slot] = 0;
    if (threadIdx.x == 0) n_used = 0;
    __syncthreads();  // the table is clear before anyone adds

    Table table = {keys, rows_of, slots, n, state};
    Grid grid = {n_z, n_y, n_x};
    INDEX corner[3];
    tile_corner(grid, corner[0], corner[1], corner[2]);
    int lane = threadIdx.x % 32;
    LABEL label[PIECES], next_label[PIECES];
    IMAGE value[PIECES], next_value[PIECES];
    load_line(labels, image, grid, corner, threadIdx.x / 32, label, value);
    for (int line = threadIdx.x / 32; line < SIDE_Z * SIDE_Y; line += WARPS) {
        load_line(labels, image, grid, corner, line + WARPS, next_label, next_value);
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            LABEL before = __shfl_up_sync(EVERY, label[k], 1);
            unsigned begins = __ballot_sync(EVERY, lane == 0 || before != label[k]), peers = run_of(begins, lane);
            if (label[k] != 0) {
                unsigned v = (unsigned)value[k], sum = sum_of_peers(peers, v), low = sum_of_peers(peers, v * v & 0xFFFF);
                unsigned high = sizeof(IMAGE) > 1 ? sum_of_peers(peers, v * v >> 16) : 0;
                unsigned top = most_of_peers(peers, v), left = most_of_peers(peers, 0xFFFF - v);
                if (begins >> lane & 1) {
                    int slot = local_slot(label[k], held, used, &n_used);
                    if (slot < 0) {
                        add_integers(sum, low + ((Word)high << 16), top, left, label[k], rows, width, table);
                    } else {
                        atomicAdd(&sums[slot], sum), atomicAdd(&squares[0][slot], low);
                        if (sizeof(IMAGE) > 1) atomicAdd(&squares[1][slot], high);
                        if (top > most[slot]) atomicMax(&most[slot], top);
                        if (left > most_left[slot]) atomicMax(&most_left[slot], left);
                    }
                }
            }
            label[k] = next_label[k], value[k] = next_value[k];
        }
    }
    __syncthreads();  // all have added before the table is emptied
    for (int k = threadIdx.x; k < n_used; k += THREADS) {
        int slot = used[k];
        Word total = squares[0][slot] + ((Word)squares[1][slot] << 16);
        add_integers(sums[slot], total, most[slot], most_left[slot], held[slot], rows, width, table);
    }
}

// Write the value of the first voxel of every label into its row.
extern "C" __global__ void __launch_bounds__(THREADS)
look_up_first(const IMAGE* image, Word* rows, Long n, int width) {
    Long row = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (row >= n || rows[row * width] == 0) return;
    rows[row * width + REFERENCE] = bits_of((double)image[FAR - (Long)rows[row * width + FIRST]]);
}

// Images of other types: deviations from the value of the first voxel.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
sum_reals(const LABEL* labels, const IMAGE* image, INDEX n_z, INDEX n_y, INDEX n_x, const Word* keys,
          const int* rows_of, Long slots, Word* rows, Long n, int width, Word* state) {
    __shared__ LABEL held[SLOTS];
    __shared__ unsigned short used[SLOTS];
    __shared__ double sums[2][SLOTS];
    __shared__ Word extremes[2][SLOTS];
    __shared__ int n_used;
    for (int slot = threadIdx.x; slot < SLOTS; slot += THREADS) {
        held[slot] = 0;
        for (int i = 0; i < 2; i++) sums[i][slot] = 0, extremes[i][slot] = 0;
    }
    if (threadIdx.x == 0) n_used = 0;
    __syncthreads();  // the table is clear before anyone adds

    Table table = {keys, rows_of, slots, n, state};
    Grid grid = {n_z, n_y, n_x};
    INDEX corner[3];
    tile_corner(grid, corner[0], corner[1], corner[2]);
    int lane = threadIdx.x % 32;
    LABEL label[PIECES], next_label[PIECES];
    IMAGE value[PIECES], next_value[PIECES];
    load_line(labels, image, grid, corner, threadIdx.x / 32, label, value);
    for (int line = threadIdx.x / 32; line < SIDE_Z * SIDE_Y; line += WARPS) {
        load_line(labels, image, grid, corner, line + WARPS, next_label, next_value);
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            LABEL before = __shfl_up_sync(EVERY, label[k], 1);
            unsigned begins = __ballot_sync(EVERY, lane == 0 || before != label[k]), peers = run_of(begins, lane);
            Long row = label[k] != 0 ? row_of(label[k], table) : -1;
            if (row >= 0) {
                double d = __dadd_rn((double)value[k], -number_of(rows[row * width + REFERENCE])), squares = __dmul_rn(d, d);
                for (int by = 1; by < 32; by *= 2) {  // each lane has the sum of those from it to the end of its run, at last
                    double more = __shfl_down_sync(peers, d, by), more_squares = __shfl_down_sync(peers, squares, by);
                    if (lane + by < 32 && peers >> (lane + by) & 1) d += more, squares += more_squares;
                }
                Word high = ordered((double)value[k]), low = high ? ~high : 0;
                high = most_of_peers(peers, high), low = most_of_peers(peers, low);
                if (begins >> lane & 1) {
                    int slot = local_slot(label[k], held, used, &n_used);
                    Word* to = rows + row * width;
                    atomicAdd(slot < 0 ? (double*)&to[GREY] : &sums[0][slot], d);
                    atomicAdd(slot < 0 ? (double*)&to[GREY + 1] : &sums[1][slot], squares);
                    atomicMax(slot < 0 ? &to[EXTREMES] : &extremes[0][slot], high);
                    atomicMax(slot < 0 ? &to[EXTREMES + 1] : &extremes[1][slot], low);
                }
            }
            label[k] = next_label[k], value[k] = next_value[k];
        }
    }
    __syncthreads();  // all have added before the table is emptied
    for (int k = threadIdx.x; k < n_used; k += THREADS) {
        int slot = used[k];
        Word* to = rows + row_of(held[slot], table) * width;
        for (int i = 0; i < 2; i++) {
            atomicAdd((double*)&to[GREY + i], sums[i][slot]);
            atomicMax(&to[EXTREMES + i], extremes[i][slot]);
        }
    }
}

// ---- results --------------------------------------------------------------------------------------------------------

// in_use (blocks,): how many of the rows of each block are in use; state[1], zero on entry, of all.
extern "C" __global__ void __launch_bounds__(THREADS)
count_rows(const Word* rows, Long n, int width, int* in_use, Word* state) {
    Long row = (Long)blockIdx.x * THREADS + threadIdx.x;
    int found = __syncthreads_count(row < n && rows[row * width] != 0);  // in the whole block
    if (threadIdx.x != 0) return;
    in_use[blockIdx.x] = found;
    if (found) atomicAdd(&state[1], (Word)found);
}

// The place of a row in use among all, from `in_use`. of_warp, before : in shared memory.
__device__ __forceinline__ Long place_of(bool is_in_use, const int* in_use, int* of_warp, int* before) {
    if (threadIdx.x == 0) *before = 0;
    unsigned mask = __ballot_sync(EVERY, is_in_use);
    int lane = threadIdx.x % 32, sum = 0;
    if (lane == 0) of_warp[threadIdx.x / 32] = __popc(mask);
    __syncthreads();  // the counts of all warps are known
    for (int block = threadIdx.x; block < (int)blockIdx.x; block += THREADS) sum += in_use[block];
    if (sum) atomicAdd(before, sum);
    __syncthreads();  // the rows of all blocks before this are added up
    Long place = *before + __popc(mask & ((1u << lane) - 1));
    for (int warp = 0; warp < (int)threadIdx.x / 32; warp++) place += of_warp[warp];
    return place;
}

// The results of the first `room` rows in use, in order. names (n,) : their labels where they are not the rows themselves. grey : 0
// without an image, 1 for sums of integers, 2 for sums of deviations. s, o : spacing and origin.
// label, count (N,); bbox (N, 6); moments (N, 9); centroid (N, 3); inertia (N, 9); mean, std, low, high (N,).
extern "C" __global__ void __launch_bounds__(THREADS)
derive(const Word* rows, Long n, int width, const int* in_use, Long room, const Long* names, int named, int grey,
       double s_z, double s_y, double s_x, Long o_z, Long o_y, Long o_x, Long* label, Long* count, Long* bbox,
       Long* moments, double* centroid, double* inertia, double* mean, double* std, double* low, double* high) {
    Long row = (Long)blockIdx.x * THREADS + threadIdx.x;
    bool is_in_use = row < n && rows[row * width] != 0;
    __shared__ int of_warp[WARPS], before;
    Long at = place_of(is_in_use, in_use, of_warp, &before);
    if (!is_in_use || at >= room) return;
    const Word* from = rows + row * width;
    double s[3] = {s_z, s_y, s_x}, rest[3];
    Long o[3] = {o_z, o_y, o_x}, middle[3];
    Word n_voxels = from[0], corner[3], sums[9], about[9];
    double voxels = (double)(Long)n_voxels;
    label[at] = named ? names[row] : row;
    count[at] = (Long)n_voxels;
    for (int a = 0; a < 3; a++) {
        corner[a] = (Word)(FAR - (Long)from[BOX + a]);
        bbox[6 * at + a] = (Long)corner[a] + o[a];
        bbox[6 * at + 3 + a] = (Long)from[BOX + 3 + a] + o[a];
        sums[a] = from[1 + a] - n_voxels * corner[a];
        middle[a] = ((Long)(2 * sums[a] + n_voxels)) / (Long)(2 * n_voxels);
        about[a] = sums[a] - n_voxels * (Word)middle[a];
        rest[a] = (double)(Long)about[a] / voxels;
        centroid[3 * at + a] = __dmul_rn(__dadd_rn((double)(bbox[6 * at + a] + middle[a]), rest[a]), s[a]);
    }
    for (int a = 0, k = 3; a < 3; a++)
        for (int b = a; b < 3; b++, k++) {
            sums[k] = from[1 + k] - corner[a] * from[1 + b] - corner[b] * from[1 + a] + n_voxels * corner[a] * corner[b];
            about[k] = sums[k] - (Word)middle[a] * sums[b] - (Word)middle[b] * sums[a]
                + n_voxels * (Word)middle[a] * (Word)middle[b];
            double covariance = __dadd_rn((double)(Long)about[k] / voxels, -__dmul_rn(rest[a], rest[b]));
            inertia[9 * at + 3 * a + b] = inertia[9 * at + 3 * b + a] = __dmul_rn(covariance, __dmul_rn(s[a], s[b]));
        }
    for (int k = 0; k < 9; k++) moments[9 * at + k] = (Long)sums[k];
    if (!grey) return;
    double first = number_of(from[REFERENCE]), sum = number_of(from[GREY]), squares = number_of(from[GREY + 1]);
    if (grey == 1) {
        Word shift = (Word)(Long)first;
        sum = (double)(Long)(from[GREY] - n_voxels * shift);
        squares = (double)(Long)(from[GREY + 1] - 2 * shift * from[GREY] + n_voxels * shift * shift);
    }
    double about_first = sum / voxels;
    double variance = __dadd_rn(squares / voxels, -__dmul_rn(about_first, about_first));
    mean[at] = __dadd_rn(first, about_first);
    std[at] = sqrt(variance < 0 ? 0 : variance);
    high[at] = number_in_order(from[EXTREMES]);
    low[at] = number_in_order(~from[EXTREMES + 1]);
}
