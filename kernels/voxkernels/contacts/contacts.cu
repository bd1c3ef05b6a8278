// What the surface of every label faces: the kernels. `cuda.py` says in which order they run, `cpu.py` what is counted
// and why: faces per axis, their weights in a window of 4 x 5 x 5 voxels, or rays in 13 directions.
//
// A block has a tile of 32 x 8 x 8 voxels. Rows of 32 go through its warps, which compare each voxel with the next one
// along x, y and z; where none differs, nothing more is done. The faces of the whole tile are put into one list, so that
// all threads have work when it is gone through, wherever in the tile the surface runs. For weights the tile is then
// loaded into shared memory with two voxels around it, beyond the ends of the volume the last voxel again, and a
// window is 100 reads there. For rays it is a tile with one voxel around it, and the list is of voxels that have another
// label among their 26 neighbours; if all of a tile is one label there is none.
//
// A contact, (label, target), is a key of 64 bits. It is counted in a hash table of the block in shared memory, where the
// few contacts of a tile meet; lanes of a warp that add to the same counter add once, all together. At its end the block
// empties its table into the global one, in which each key has one slot by compare-and-swap. What finds no place in the
// block's table goes straight to the global one; if that is too full it is reported (`state`), blocks that have not begun
// leave, and all is counted again with larger ones.
//
// The results are made on the device: every contact, and the second label of every pair, becomes a key of 64 bits in the
// order of the results; those are sorted; the places of labels and pairs are counted; each label's first key writes its
// row, each pair its own, areas as on the CPU by the same operations in the same order.
//
// Weights are integers (fixed point, 2^-30 of a face) as on the CPU, computed in double precision in the same order of
// operations without fusing any: all counts have the CPU's bits, in whatever order they are added. In shared memory a
// weight is added as two parts of 15 and 16 bits, since atomics on 32 bits are what shared memory does itself.
//
// Labels of 64 bits are entered into a hash table of their own first, and replaced by 1 + the number of their slot.
//
// Source: see cpu.py; hash tables by compare-and-swap, Alcantara et al., ACM Trans. Graph. 28, 154 (2009).
// Cost: labels are read about once; for weights tiles with a surface 2.5 times more, from cache; for rays 1.7 times. The
// phases beside faces are read. Memory: 8 bytes for each slot, and 8 for each of its 3 (faces), 6 or 13 counters.
// Not checked here: shapes, a core outside the array, phases below `mouth`; negative labels are reported by count_faces.
#ifndef LABEL
#define LABEL Long
#endif
#ifndef PHASE
#define PHASE unsigned char
#endif
#ifndef INDEX
#define INDEX int
#endif
#ifndef WEIGHTED
#define WEIGHTED 1
#endif
#ifndef LOCAL_SLOTS
#define LOCAL_SLOTS 128
#endif
#ifndef LOCAL_PROBES
#define LOCAL_PROBES 8
#endif
#ifndef PROBES
#define PROBES 256
#endif
#ifndef LANES_ADD  // whether the GPU has an instruction that adds over lanes
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define LANES_ADD 0
#else
#define LANES_ADD 1
#endif
#endif

typedef long long Long;
typedef unsigned long long Word;

#define SIDE_X 32
#define SIDE_Y 8
#define SIDE_Z 8
#define ROWS (SIDE_Y * SIDE_Z)
#define VOXELS (ROWS * SIDE_X)
#define THREADS 256
#define WARPS (THREADS / 32)
#define EVERY 0xFFFFFFFFu
#define FULL 1
#define NEGATIVE 2
#define N_RAYS 13
#define MOUTH 65536   // past every phase
#define BORDER 65537
#define ONE (1 << 30)  // the weight of a whole face
#define SPLIT 15
#define BESIDE_EDGE 9

struct Grid { INDEX n_z, n_y, n_x; };

// ---- tables ---------------------------------------------------------------------------------------------------------

// All on the device. state: what is in trouble, the rows in use, those that are pairs, the largest phase, the labels.
struct Table { Word* keys; Word* counts; Long slots; Word* state; int columns; };

// In shared memory.
struct Local { Word* keys; unsigned* counts; int columns; };

__device__ __forceinline__ Word key_of(int label, int target) { return (Word)(unsigned)label << 32 | (unsigned)target; }
__device__ __forceinline__ unsigned hash_of(Word key) { return (unsigned)((key * 0x9E3779B97F4A7C15ull) >> 32); }

// The row of a key, put in if need be; -1 if there is no room for it.
__device__ __forceinline__ Long row_of(Word key, const Table& table) {
    Long row = hash_of(key) & (table.slots - 1);
    for (int probe = 0; probe < PROBES; probe++, row = (row + 1) & (table.slots - 1)) {
        Word held = table.keys[row];  // a stale 0 is corrected by the swap, and no key ever changes
        if (held == 0) {
            held = atomicCAS(&table.keys[row], (Word)0, key);
            if (held == 0) {
                atomicAdd(&table.state[1], (Word)1);
                if ((int)(key & EVERY) > 0) atomicAdd(&table.state[2], (Word)1);
                return row;
            }
        }
        if (held == key) return row;
        if (probe % 16 == 15 && table.state[0]) return -1;  // others have found it full
    }
    atomicOr(&table.state[0], (Word)FULL);
    return -1;
}

__device__ __forceinline__ int local_slot(Word key, Word* keys) {
    int slot = hash_of(key) & (LOCAL_SLOTS - 1);
    for (int probe = 0; probe < LOCAL_PROBES; probe++, slot = (slot + 1) & (LOCAL_SLOTS - 1)) {
        Word held = keys[slot];  // a stale 0 is corrected by the swap, and no key ever changes
        if (held == 0) held = atomicCAS(&keys[slot], (Word)0, key);
        if (held == 0 || held == key) return slot;
    }
    return -1;
}

__device__ __forceinline__ void add_to_table(Word key, int column, Word amount, const Table& table) {
    Long row = row_of(key, table);
    if (row >= 0 && amount) atomicAdd(&table.counts[row * table.columns + column], amount);
}

__device__ __forceinline__ void clear_table(const Local& local) {
    for (int slot = threadIdx.x; slot < LOCAL_SLOTS; slot += THREADS) local.keys[slot] = 0;
    for (int k = threadIdx.x; k < LOCAL_SLOTS * local.columns; k += THREADS) local.counts[k] = 0;
}

__device__ __forceinline__ void empty_table(const Local& local, const Table& table) {
    for (int slot = threadIdx.x; slot < LOCAL_SLOTS; slot += THREADS) {
        if (local.keys[slot] == 0) continue;
        Long row = row_of(local.keys[slot], table);
        if (row < 0) continue;
        const unsigned* counts = local.counts + slot * local.columns;
        for (int column = 0; column < table.columns; column++) {
            Word amount = counts[column];
            if (local.columns > table.columns && column >= 3) amount += (Word)counts[column + 3] << SPLIT;
            if (amount) atomicAdd(&table.counts[row * table.columns + column], amount);
        }
    }
}

// The sum over the lanes of `peers`, in each of them.
__device__ __forceinline__ unsigned sum_of_peers(unsigned peers, unsigned value) {
#if LANES_ADD
    return __reduce_add_sync(peers, value);
#else
    unsigned total = 0;
    for (unsigned left = peers; left; left &= left - 1) total += __shfl_sync(peers, value, __ffs(left) - 1);
    return total;
#endif
}

// ---- places ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void tile_corner(Grid grid, INDEX first, INDEX& z, INDEX& y, INDEX& x) {
    INDEX tiles_x = (grid.n_x - 1) / SIDE_X + 1, tiles_y = (grid.n_y - 1) / SIDE_Y + 1;
    INDEX tile = blockIdx.x;
    x = tile % tiles_x * SIDE_X;
    y = tile / tiles_x % tiles_y * SIDE_Y;
    z = first + tile / tiles_x / tiles_y * SIDE_Z;
}

// Index i + by of an axis of n voxels; beyond its ends, the last voxel continues.
__device__ __forceinline__ INDEX clamp(INDEX i, int by, INDEX n) {
    if (by >= n - i) return n - 1;
    return i + by < 0 ? 0 : i + by;
}

// Load a tile and `rim` voxels around it.
__device__ __forceinline__ void load_tile(const int* labels, Grid grid, INDEX z0, INDEX y0, INDEX x0, int rim, int* tile) {
    int wide_x = SIDE_X + 2 * rim, wide_y = SIDE_Y + 2 * rim, wide_z = SIDE_Z + 2 * rim;
    for (int k = threadIdx.x; k < wide_z * wide_y * wide_x; k += THREADS) {
        INDEX z = clamp(z0, k / (wide_x * wide_y) - rim, grid.n_z), y = clamp(y0, k / wide_x % wide_y - rim, grid.n_y);
        tile[k] = labels[(z * grid.n_y + y) * grid.n_x + clamp(x0, k % wide_x - rim, grid.n_x)];
    }
}

// Count the ends of the volume behind a voxel.
__device__ __forceinline__ void count_ends(
    int label, Grid grid, INDEX z, INDEX y, INDEX x, const Local& local, const Table& table) {
    int ends[3] = {(z == 0) + (z == grid.n_z - 1), (y == 0) + (y == grid.n_y - 1), (x == 0) + (x == grid.n_x - 1)};
    if (ends[0] + ends[1] + ends[2] == 0) return;
    Word key = key_of(label, -1 - BORDER);
    int slot = local_slot(key, local.keys);
    for (int axis = 0; axis < 3; axis++) {
        if (!ends[axis]) continue;
        if (slot >= 0) atomicAdd(&local.counts[slot * local.columns + axis], (unsigned)ends[axis]);
        else add_to_table(key, axis, ends[axis], table);
    }
}

// ---- faces ----------------------------------------------------------------------------------------------------------

__device__ __forceinline__ bool beside_edge(int deep, int inner, int outer, int far) {
    return outer == 0 && far == 0 && (deep == inner || deep <= 25 - BESIDE_EDGE);
}

// 1 / |n|_1 of the unit normal in fixed point, for the face of label `own` between a voxel of the tile and the next one.
// here : the lower voxel; forward : whether it is the one with the label. along_a is the step to the next voxel, along_b
// and along_c the others; scales are 1 / spacing along them.
__device__ __forceinline__ unsigned face_weight(const int* here, int own, bool forward, int along_a, int along_b,
                                                int along_c, double scale_a, double scale_b, double scale_c) {
    const int along[5] = {1, 2, 3, 2, 1}, slope[5] = {3, 1, 0, -1, -3};
    int g_a = 0, g_b = 0, g_c = 0, one = 0, two = 0, three = 0, four = 0;  // voxels inside, by layers, in the end
#pragma unroll 1
    for (int i = 0; i < 4; i++) {
        int sum_along = 0, sum_b = 0, sum_c = 0, inside = 0;
        for (int b = 0; b < 5; b++) {
            const int* row = here + (i - 1) * along_a + (b - 2) * along_b;
            int packed = 0;  // of the voxels inside: their sum of slopes, how many, their sum of smoothing taps
            for (int c = 0; c < 5; c++)
                if (row[(c - 2) * along_c] == own) packed += slope[c] * 65536 + 256 + along[c];
            int taps = packed & 255;
            inside += packed >> 8 & 255;
            sum_along += along[b] * taps;
            sum_b += slope[b] * taps;
            sum_c += along[b] * (packed >> 16);
        }
        int depth = i == 1 || i == 2 ? 2 : 1;
        g_a += i < 2 ? 2 * sum_along : -2 * sum_along, g_b += depth * sum_b, g_c += depth * sum_c;
        one = two, two = three, three = four, four = inside;
    }
    int deep = forward ? one : four, inner = forward ? two : three, outer = forward ? three : two;
    int far = forward ? four : one;
    if (beside_edge(deep, inner, outer, far) || beside_edge(25 - far, 25 - outer, 25 - inner, 25 - deep)) g_b = g_c = 0;
    double n_a = abs(g_a) * scale_a, n_b = abs(g_b) * scale_b, n_c = abs(g_c) * scale_c;
    double total = __dadd_rn(__dadd_rn(n_a, n_b), n_c);
    if (total == 0.0) return ONE;
    double squares = __dadd_rn(__dadd_rn(__dmul_rn(n_a, n_a), __dmul_rn(n_b, n_b)), __dmul_rn(n_c, n_c));
    return (unsigned)__dadd_rn(__dmul_rn(ONE, sqrt(squares)) / total, 0.5);
}

#define RIM 2
#define WIDE_X (SIDE_X + 2 * RIM)
#define WIDE_Y (SIDE_Y + 2 * RIM)
#define WIDE_Z (SIDE_Z + 2 * RIM)
#define DEPTH 4
#define N_COUNTS (WEIGHTED ? 6 : 3)
#define N_LOCAL (WEIGHTED ? 9 : 3)

// labels (Z, Y, X), the faces of voxels in slices lo..hi-1; solid : of their shape where `masked`; s : 1 / spacing.
// keys (slots,), counts (slots, N_COUNTS), state: zero on entry. A target above 0 is the other label of a pair (the label
// is the lower one); -1 - p is phase p, MOUTH or BORDER. Columns: faces, then weights, per axis.
extern "C" __global__ void __launch_bounds__(THREADS, WEIGHTED ? 4 : 5)
count_faces(const int* labels, const PHASE* phases, const unsigned char* solid, int masked,
            INDEX n_z, INDEX n_y, INDEX n_x, INDEX lo, INDEX hi, double s_z, double s_y, double s_x,
            Word* keys, Word* counts, Long slots, Word* state) {
    __shared__ Word local_keys[LOCAL_SLOTS];
    __shared__ unsigned local_counts[LOCAL_SLOTS * N_LOCAL];
    __shared__ unsigned short faces[3 * VOXELS];  // axis, z, y, x in the tile: 2, 3, 3, 5 bits
    __shared__ int n_faces, stop;
    Grid grid = {n_z, n_y, n_x};
    Table table = {keys, counts, slots, state, N_COUNTS};
    Local local = {local_keys, local_counts, N_LOCAL};
    clear_table(local);
    if (threadIdx.x == 0) n_faces = 0, stop = state[0] != 0;
    __syncthreads();  // all is clear before anyone adds

    if (stop) return;  // the table is too small, or a label negative: all threads have read the same
    INDEX z0, y0, x0, step_z = n_y * n_x;
    tile_corner(grid, lo > 0 ? lo - 1 : 0, z0, y0, x0);  // the faces below the first slice have their upper side in it
    int lane = threadIdx.x % 32, row = threadIdx.x / 32;
    bool inside = row < n_y - y0 && lane < n_x - x0, last_y = row == n_y - y0 - 1, last_x = lane == n_x - x0 - 1;
    bool at_end = z0 == 0 || SIDE_Z >= n_z - z0 || y0 == 0 || SIDE_Y >= n_y - y0 || x0 == 0 || SIDE_X >= n_x - x0;
    INDEX at = inside ? (z0 * n_y + y0 + row) * n_x + x0 + lane : 0;
    int column[DEPTH + 1], beside[DEPTH], edge[DEPTH];  // of some slices, read ahead all at once
    column[0] = inside ? labels[at] : 0;
    for (int k0 = 0; k0 < SIDE_Z && k0 < hi - z0; k0 += DEPTH) {
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            bool there = inside && (INDEX)(k0 + i) < n_z - z0, above = inside && (INDEX)(k0 + i + 1) < n_z - z0;
            column[i + 1] = above ? labels[at + (i + 1) * step_z] : 0;
            beside[i] = there && !last_y ? labels[at + i * step_z + n_x] : 0;
            edge[i] = there && lane == 31 && !last_x ? labels[at + i * step_z + 1] : 0;
        }
        at += DEPTH * step_z;
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            int k = k0 + i, own = column[i], turned = __shfl_down_sync(EVERY, own, 1), next = lane == 31 ? edge[i] : turned;
            INDEX z = z0 + k;
            bool counted = inside && k < hi - z0 && z >= lo, below = inside && k < hi - z0 && z + 1 < n_z;
            if (own < 0 && counted) atomicOr(&state[0], (Word)NEGATIVE);
            if (at_end && own != 0 && counted) count_ends(own, grid, z, y0 + row, x0 + lane, local, table);
            bool counted_z = (own != 0 && column[i + 1] != 0) || (own != 0 ? z >= lo : z + 1 < hi);
            bool found[3] = {below && own != column[i + 1] && counted_z, counted && !last_y && own != beside[i],
                             counted && !last_x && own != next};
            unsigned lanes[3];
            for (int axis = 0; axis < 3; axis++) lanes[axis] = __ballot_sync(EVERY, found[axis]);
            int n = __popc(lanes[0]) + __popc(lanes[1]) + __popc(lanes[2]), to = 0;
            if (n == 0) continue;
            if (lane == 0) to = atomicAdd(&n_faces, n);
            to = __shfl_sync(EVERY, to, 0);
            for (int axis = 0; axis < 3; axis++) {
                if (found[axis])
                    faces[to + __popc(lanes[axis] & ((1u << lane) - 1))] =
                        (unsigned short)(axis << 11 | k << 8 | row << 5 | lane);
                to += __popc(lanes[axis]);
            }
        }
        column[0] = column[DEPTH];
    }
    __syncthreads();  // the list is complete
    int total = n_faces;
#if WEIGHTED
    __shared__ int tile[WIDE_Z * WIDE_Y * WIDE_X];
    if (total) load_tile(labels, grid, z0, y0, x0, RIM, tile);
    __syncthreads();  // the tile is loaded before windows are read
#endif

    for (int first = threadIdx.x - lane; first < total; first += THREADS) {  // whole warps: they add together
        unsigned mask = __ballot_sync(EVERY, first + lane < total);
        if (first + lane >= total) continue;
        int code = faces[first + lane], axis = code >> 11, z_in = code >> 8 & 7, y_in = code >> 5 & 7, x_in = code & 31;
        INDEX z = z0 + z_in, v = (z * n_y + y0 + y_in) * n_x + x0 + x_in;
        INDEX further = v + (axis == 0 ? step_z : axis == 1 ? n_x : 1);
        int lower = labels[v], upper = labels[further];
        bool pair = lower != 0 && upper != 0, lower_counts = z >= lo;
        Word key;
        if (pair) {
            key = lower < upper ? key_of(lower, upper) : key_of(upper, lower);
        } else {
            INDEX mine = lower != 0 ? v : further, facing = lower != 0 ? further : v;
            key = key_of(lower | upper, -1 - (masked && !solid[mine] ? MOUTH : (int)phases[facing]));
        }
        unsigned n = !pair || lower_counts, weight = 0;
#if WEIGHTED
        bool upper_counts = axis != 0 || z + 1 < hi;
        const int* here = tile + ((z_in + RIM) * WIDE_Y + y_in + RIM) * WIDE_X + x_in + RIM;
        int along_a = axis == 0 ? WIDE_Y * WIDE_X : axis == 1 ? WIDE_X : 1;
        int along_b = axis == 0 ? WIDE_X : WIDE_Y * WIDE_X, along_c = axis == 2 ? WIDE_X : 1;
        double s_a = axis == 0 ? s_z : axis == 1 ? s_y : s_x, s_b = axis == 0 ? s_y : s_z, s_c = axis == 2 ? s_y : s_x;
#pragma unroll 1
        for (int side = pair && !lower_counts; side < 1 + (pair && upper_counts); side++) {
            bool forward = lower != 0 && side == 0;
            weight += face_weight(here, forward ? lower : upper, forward, along_a, along_b, along_c, s_a, s_b, s_c);
        }
#else
        (void)s_z, (void)s_y, (void)s_x;
#endif
        int slot = local_slot(key, local_keys);
        unsigned peers = __match_any_sync(mask, slot < 0 ? -1 : slot * N_LOCAL + axis);
        unsigned n_peers = sum_of_peers(peers, n);
        unsigned low = WEIGHTED ? sum_of_peers(peers, weight & ((1u << SPLIT) - 1)) : 0;
        unsigned high = WEIGHTED ? sum_of_peers(peers, weight >> SPLIT) : 0;
        if (slot < 0) {
            add_to_table(key, axis, n, table);
            if (WEIGHTED) add_to_table(key, 3 + axis, weight, table);
        } else if (lane == __ffs(peers) - 1) {
            unsigned* to = local_counts + slot * N_LOCAL + axis;
            if (n_peers) atomicAdd(&to[0], n_peers);
            if (WEIGHTED) atomicAdd(&to[3], low), atomicAdd(&to[6], high);
        }
    }
    __syncthreads();  // all have added before the table is emptied
    empty_table(local, table);
}

// ---- rays -----------------------------------------------------------------------------------------------------------

// One of each pair of opposite directions to the 26-neighbours, the axes first, each + 1: z, y, x
__constant__ unsigned char DIRECTIONS[N_RAYS][3] = {{2, 1, 1}, {1, 2, 1}, {1, 1, 2}, {1, 2, 2}, {1, 2, 0}, {2, 1, 2},
    {2, 1, 0}, {2, 2, 1}, {2, 0, 1}, {2, 2, 2}, {2, 2, 0}, {2, 0, 2}, {2, 0, 0}};

#define RAY_X (SIDE_X + 2)
#define RAY_Y (SIDE_Y + 2)
#define RAY_Z (SIDE_Z + 2)

// As count_faces, but the rays from the voxels in slices lo..hi-1 to their 26 neighbours; counts (slots, N_RAYS): faces
// per axis, of a pair once, then rays along the diagonals, of a pair from either side.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
count_rays(const int* labels, const PHASE* phases, const unsigned char* solid, int masked,
           INDEX n_z, INDEX n_y, INDEX n_x, INDEX lo, INDEX hi,
           Word* keys, Word* counts, Long slots, Word* state) {
    __shared__ Word local_keys[LOCAL_SLOTS];
    __shared__ unsigned local_counts[LOCAL_SLOTS * N_RAYS];
    __shared__ int tile[RAY_Z * RAY_Y * RAY_X];
    __shared__ unsigned short surface[VOXELS];  // z, y, x in the tile: 3, 3, 5 bits
    __shared__ int n_surface, stop;
    Grid grid = {n_z, n_y, n_x};
    Table table = {keys, counts, slots, state, N_RAYS};
    Local local = {local_keys, local_counts, N_RAYS};
    INDEX z0, y0, x0;
    tile_corner(grid, lo, z0, y0, x0);
    clear_table(local);
    if (threadIdx.x == 0) n_surface = 0, stop = state[0] != 0;
    load_tile(labels, grid, z0, y0, x0, 1, tile);
    __syncthreads();  // all is clear and loaded
    if (stop) return;  // the table is too small, or a label negative: all threads have read the same
    int differs = 0;
    for (int k = threadIdx.x; k < RAY_Z * RAY_Y * RAY_X; k += THREADS) {
        if (tile[k] < 0) atomicOr(&state[0], (Word)NEGATIVE);
        differs |= tile[k] != tile[0];
    }
    differs = __syncthreads_or(differs);  // whether there is more than one label in the tile

    int lane = threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < ROWS; row += WARPS) {
        int z_in = row / SIDE_Y, y_in = row % SIDE_Y;
        const int* here = tile + ((z_in + 1) * RAY_Y + y_in + 1) * RAY_X + lane + 1;
        if (!(z_in < hi - z0 && y_in < n_y - y0 && lane < n_x - x0) || *here == 0) continue;
        count_ends(*here, grid, z0 + z_in, y0 + y_in, x0 + lane, local, table);
        bool found = false;
        if (differs)
            for (int k = 0; k < 27; k++)
                found |= here[((k / 9 - 1) * RAY_Y + k / 3 % 3 - 1) * RAY_X + k % 3 - 1] != *here;
        if (found) surface[atomicAdd(&n_surface, 1)] = (unsigned short)(row << 5 | lane);
    }
    __syncthreads();  // the list is complete
    int total = n_surface;

    for (int first = threadIdx.x - lane; first < total; first += THREADS) {  // whole warps: they add together
        unsigned mask = __ballot_sync(EVERY, first + lane < total);
        if (first + lane >= total) continue;
        int code = surface[first + lane], z_in = code >> 8, y_in = code >> 5 & 7, x_in = code & 31;
        const int* here = tile + ((z_in + 1) * RAY_Y + y_in + 1) * RAY_X + x_in + 1;
        INDEX z = z0 + z_in, y = y0 + y_in, x = x0 + x_in;
        int own = *here;
        bool open = masked && !solid[(z * n_y + y) * n_x + x];
        Word last = 0;
        int slot = -1;
#pragma unroll 1
        for (int k = 0; k < 2 * N_RAYS; k++) {
            int ray = k >> 1, sign = k & 1 ? 1 : -1;
            int dz = (DIRECTIONS[ray][0] - 1) * sign, dy = (DIRECTIONS[ray][1] - 1) * sign;
            int dx = (DIRECTIONS[ray][2] - 1) * sign;
            int facing = here[(dz * RAY_Y + dy) * RAY_X + dx];
            if (!__any_sync(mask, facing != own)) continue;
            int counter = -1;
            if (facing != own) {
                Word key;
                if (facing != 0) {
                    key = facing < own ? key_of(facing, own) : key_of(own, facing);
                } else {
                    INDEX there = (clamp(z, dz, n_z) * n_y + clamp(y, dy, n_y)) * n_x + clamp(x, dx, n_x);
                    key = key_of(own, -1 - (open ? MOUTH : (int)phases[there]));
                }
                if (key != last) slot = local_slot(key, local_keys), last = key;
                bool counted = facing == 0 || sign > 0 || ray >= 3;
                if (slot < 0) add_to_table(key, ray, counted, table);
                else if (counted) counter = slot * N_RAYS + ray;
            }
            unsigned peers = __match_any_sync(mask, counter);
            if (counter >= 0 && lane == __ffs(peers) - 1) atomicAdd(&local_counts[counter], (unsigned)__popc(peers));
        }
    }
    __syncthreads();  // all have added before the table is emptied
    empty_table(local, table);
}

// ---- results --------------------------------------------------------------------------------------------------------

// Find the largest phase, which no label can hide: state[3], zero on entry.
extern "C" __global__ void __launch_bounds__(THREADS)
find_largest(const PHASE* phases, Long size, Word* state) {
    const int phases_of_word = sizeof(Word) / sizeof(PHASE), bits = 8 * sizeof(PHASE);
    Long thread = (Long)blockIdx.x * THREADS + threadIdx.x, step = (Long)gridDim.x * THREADS;
    Long words = (Word)phases % sizeof(Word) == 0 ? size / phases_of_word : 0;
    unsigned largest = 0;
#pragma unroll 4
    for (Long k = thread; k < words; k += step) {
        Word word = ((const Word*)phases)[k];
        for (int i = 0; i < phases_of_word; i++) {
            unsigned phase = (unsigned)(word >> i * bits) & (EVERY >> (32 - bits));
            largest = phase > largest ? phase : largest;
        }
    }
    for (Long k = words * phases_of_word + thread; k < size; k += step)
        largest = (unsigned)phases[k] > largest ? (unsigned)phases[k] : largest;
    for (int by = 16; by > 0; by /= 2) {
        unsigned other = __shfl_xor_sync(EVERY, largest, by);
        largest = other > largest ? other : largest;
    }
    if (threadIdx.x % 32 == 0 && largest > state[3]) atomicMax(&state[3], (Word)largest);
}

// Labels ascending, of each its targets: phases, mouth and border, then pairs, then what only says that it is there.
__device__ __forceinline__ Word in_order(unsigned label, int target) {
    return (Word)label << 32 | ((unsigned)target ^ 0x80000000u);
}

// Write the key in order, and the slot, of every row in use, and of every second label of a pair: keys, slot_of (rows +
// pairs,), in no order. ranks (of each number of a label) or, if not `named`, labels are compared. next (1,): zero.
extern "C" __global__ void __launch_bounds__(THREADS)
list_contacts(const Word* table, Long slots, const int* ranks, int named, Word* keys, int* slot_of, Word* next) {
    for (Long slot = (Long)blockIdx.x * THREADS + threadIdx.x; slot < slots; slot += (Long)gridDim.x * THREADS) {
        if (table[slot] == 0) continue;
        int label = (int)(table[slot] >> 32), target = (int)(table[slot] & EVERY);
        bool pair = target > 0;
        if (named) label = ranks[label - 1], target = pair ? ranks[target - 1] : target;
        if (pair && target < label) {
            int lower = target;
            target = label, label = lower;
        }
        Long to = (Long)atomicAdd(next, (Word)(1 + pair));
        keys[to] = in_order(label, target), slot_of[to] = (int)slot;
        if (pair) keys[to + 1] = in_order(target, 0x7FFFFFFF), slot_of[to + 1] = (int)slot;
    }
}

// A key in its place, and what it begins.
struct Entry { Word key; int slot; bool begins_label, is_pair; };

__device__ __forceinline__ Entry entry_at(Long i, Long n, const Word* keys, const int* slot_of, const Long* order) {
    if (i >= n) return {0, 0, false, false};
    Word key = keys[order[i]];
    int target = (int)((unsigned)key ^ 0x80000000u);
    return {key, slot_of[order[i]], i == 0 || keys[order[i - 1]] >> 32 != key >> 32, target > 0 && target < 0x7FFFFFFF};
}

// begun (blocks, 2): the labels and the pairs that each block's keys begin; state[4], zero on entry: all labels.
extern "C" __global__ void __launch_bounds__(THREADS)
count_begun(const Word* keys, const int* slot_of, const Long* order, Long n, int* begun, Word* state) {
    Entry entry = entry_at((Long)blockIdx.x * THREADS + threadIdx.x, n, keys, slot_of, order);
    int labels = __syncthreads_count(entry.begins_label);  // of the whole block
    int pairs = __syncthreads_count(entry.is_pair);  // of the whole block
    if (threadIdx.x != 0) return;
    begun[2 * blockIdx.x] = labels, begun[2 * blockIdx.x + 1] = pairs;
    if (labels) atomicAdd(&state[4], (Word)labels);
}

// How many threads of all blocks before have `begins`, and of this before this thread. Threads and blocks: see `begun`.
// of_warp (WARPS,), before (1,): in shared memory.
__device__ __forceinline__ Long place_of(bool begins, const int* begun, int* of_warp, int* before) {
    unsigned mask = __ballot_sync(EVERY, begins);
    int lane = threadIdx.x % 32, sum = 0;
    if (lane == 0) of_warp[threadIdx.x / 32] = __popc(mask);
    if (threadIdx.x == 0) *before = 0;
    __syncthreads();  // the counts of all warps are known
    for (int block = threadIdx.x; block < (int)blockIdx.x; block += THREADS) sum += begun[2 * block];
    if (sum) atomicAdd(before, sum);
    __syncthreads();  // the blocks before this are added up
    Long place = *before + __popc(mask & ((1u << lane) - 1));
    for (int warp = 0; warp < (int)threadIdx.x / 32; warp++) place += of_warp[warp];
    return place;
}

// The area behind counts, summed in the order of the columns.
__device__ __forceinline__ double area_of(const Word* counts, const double* factors, int columns) {
    double area = __dmul_rn((double)(Long)counts[0], factors[0]);
    for (int column = 1; column < columns; column++)
        area = __dadd_rn(area, __dmul_rn((double)(Long)counts[column], factors[column]));
    return area;
}

// The results, of L labels, P phases and K pairs: label (L,), area (L, P), border, mouth (L,), faces (3, L, P), pairs
// (K, 2), pair_area (K,), pair_faces (3, K). names : the label of each rank, if `named`. factors (2 * columns + 3,): the
// area of a count towards a phase, the same for a pair, and of a voxel face.
extern "C" __global__ void __launch_bounds__(THREADS)
assemble(const Word* keys, const int* slot_of, const Long* order, Long n, const int* begun, const Word* counts,
         int columns, const Long* names, int named, const double* factors, Long n_labels, int n_phases, Long n_pairs,
         Long* label, double* area, double* border, double* mouth, Long* faces, Long* pairs, double* pair_area,
         Long* pair_faces) {
    __shared__ int of_warp[2][WARPS], before[2];
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    Entry entry = entry_at(i, n, keys, slot_of, order);
    Long row = place_of(entry.begins_label, begun, of_warp[0], &before[0]);
    Long pair = place_of(entry.is_pair, begun + 1, of_warp[1], &before[1]);
    unsigned own = (unsigned)(entry.key >> 32), other = (unsigned)entry.key ^ 0x80000000u;
    if (entry.is_pair) {
        const Word* found = counts + (Long)entry.slot * columns;
        pairs[2 * pair] = named ? names[own] : (Long)own, pairs[2 * pair + 1] = named ? names[other] : (Long)other;
        pair_area[pair] = area_of(found, factors + columns, columns);
        for (int axis = 0; axis < 3; axis++) pair_faces[axis * n_pairs + pair] = (Long)found[axis];
    }
    if (!entry.begins_label) return;
    label[row] = named ? names[own] : (Long)own;
    border[row] = mouth[row] = 0;
    for (int phase = 0; phase < n_phases; phase++) {
        area[row * n_phases + phase] = 0;
        for (int axis = 0; axis < 3; axis++) faces[(axis * n_labels + row) * n_phases + phase] = 0;
    }
    for (; i < n && keys[order[i]] >> 32 == own; i++) {
        int phase = -1 - (int)((unsigned)keys[order[i]] ^ 0x80000000u);
        if (phase < 0) break;
        const Word* found = counts + (Long)slot_of[order[i]] * columns;
        if (phase == BORDER) {
            border[row] = area_of(found, factors + 2 * columns, 3);
        } else if (phase == MOUTH) {
            mouth[row] = area_of(found, factors, columns);
        } else {
            area[row * n_phases + phase] = area_of(found, factors, columns);
            for (int axis = 0; axis < 3; axis++) faces[(axis * n_labels + row) * n_phases + phase] = (Long)found[axis];
        }
    }
}

// Replace every label by 1 + its slot in `names` (slots,), zero on entry; 0 stays 0. trouble is FULL if one has no room.
extern "C" __global__ void __launch_bounds__(THREADS)
number_labels(const LABEL* labels, Long size, Word* names, Long slots, int* numbers, int* trouble) {
    for (Long i = (Long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (Long)gridDim.x * THREADS) {
        Word label = (Word)labels[i];
        Long slot = hash_of(label) & (slots - 1);
        int probe = 0;
        for (; label != 0 && probe < PROBES; probe++, slot = (slot + 1) & (slots - 1)) {
            Word held = names[slot];
            if (held == 0) held = atomicCAS(&names[slot], (Word)0, label);
            if (held == 0 || held == label) break;
        }
        if (probe == PROBES) atomicOr(trouble, FULL);
        numbers[i] = label == 0 ? 0 : (int)(slot + 1);
    }
}
