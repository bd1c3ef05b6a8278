// Connected components of equal voxels: the kernels. `cuda.py` says in which order they run.
//
// A union-find forest over the voxels, in the memory of the result: `labels` holds 1 + the index of another voxel of the
// component, or its own if it is a root, and 0 on the background. Trees are joined by an atomic minimum, so that a link
// always leads to a smaller index, and the root in the end is the component's first voxel in C order, in whatever order
// the threads come. A reader may see an old link: it leads to an ancestor all the same, and the atomic finds out.
//
// 1. label_tiles: each block labels a tile of 32 x 8 x 8 voxels in shared memory. A warp has a row of 32 voxels and
//    finds its runs by a ballot; a voxel begins as a child of the first voxel of its run, so nothing is joined along x.
//    Rows are joined with the rows before them once for each stretch over which neither changes.
// 2. join_tiles: the same for pairs of voxels that lie in two tiles, in global memory.
// 3. flatten: every voxel is linked to its root; roots are counted for each stretch of the volume.
// 4. scan_counts, number_roots: a root gets its number, 1..n in order, stored as a negative value.
// 5. write_labels: every voxel takes the number of its root. The root's own cell turns positive meanwhile: whoever
//    reads it takes the absolute value.
//
// Which rows are joined where: if a voxel equals the voxel beside it in another row, and so do their left neighbours
// with the same value, these have been joined already. If it does not, a corner neighbour at the left counts only where
// a run begins, and one at the right only where a run ends: else the way round has joined them.
//
// Source: block-based union-find, Komura, Comput. Phys. Commun. 194, 54 (2015); Playne and Hawick, IEEE Trans. Parallel
// Distrib. Syst. 29, 1217 (2018). Cost: the volume is read about one and a half times, the labels are read four times
// and written up to four. Memory: the result, and 8 bytes for each 4096 voxels.
// Not checked here: negative values.
#ifndef VALUE
#define VALUE unsigned char
#endif
#ifndef INDEX
#define INDEX int
#endif
#ifndef CONNECTIVITY
#define CONNECTIVITY 26
#endif

typedef long long Long;

#define SIDE_X 32
#define SIDE_Y 8
#define SIDE_Z 8
#define ROWS (SIDE_Y * SIDE_Z)
#define THREADS 256
#define WARPS (THREADS / 32)
#define STRETCH 4096
#define EVERY 0xFFFFFFFFu

struct Grid { INDEX n_z, n_y, n_x; };

// Earlier rows that touch a row: dz, dy of each, and whether voxels one apart along x touch there, too.
#if CONNECTIVITY == 6
#define N_NEAR 2
#else
#define N_NEAR 4
#endif
__device__ __forceinline__ int near_dz(int k) { return k == 0 ? 0 : -1; }
__device__ __forceinline__ int near_dy(int k) { return k == 0 ? -1 : k == 1 ? 0 : k == 2 ? -1 : 1; }
__device__ __forceinline__ bool near_corners(int k) {
    return CONNECTIVITY == 26 || (CONNECTIVITY == 18 && k < 2);
}

// The root of a voxel, and the union of two trees. Links are `parent[v] - OFFSET`: 0 in a tile, 1 in the result.
template <class Link, int OFFSET>
__device__ __forceinline__ Link root_of(const Link* parent, Link v) {
    for (Link above = parent[v] - OFFSET; above != v; above = parent[v] - OFFSET) v = above;
    return v;
}

template <class Link, int OFFSET>
__device__ __forceinline__ void unite(Link* parent, Link a, Link b) {
    for (;;) {
        a = root_of<Link, OFFSET>(parent, a), b = root_of<Link, OFFSET>(parent, b);
        if (a == b) return;
        if (a < b) { Link c = a; a = b, b = c; }
        Link above = atomicMin(&parent[a], (Link)(b + OFFSET)) - OFFSET;
        if (above == a) return;  // it was a root, and is linked now
        a = above;  // it was none any more: what it was linked to has to be joined
    }
}

__device__ __forceinline__ void tile_corner(Grid grid, INDEX& z, INDEX& y, INDEX& x) {
    INDEX tiles_x = (grid.n_x - 1) / SIDE_X + 1, tiles_y = (grid.n_y - 1) / SIDE_Y + 1;
    INDEX tile = blockIdx.x;
    x = tile % tiles_x * SIDE_X;
    y = tile / tiles_x % tiles_y * SIDE_Y;
    z = tile / tiles_x / tiles_y * SIDE_Z;
}

extern "C" __global__ void __launch_bounds__(THREADS)
label_tiles(const VALUE* volume, INDEX n_z, INDEX n_y, INDEX n_x, INDEX* labels) {
    __shared__ VALUE values[ROWS * SIDE_X];
    __shared__ int parent[ROWS * SIDE_X];
    INDEX z0, y0, x0;
    tile_corner({n_z, n_y, n_x}, z0, y0, x0);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int row = warp; row < ROWS; row += WARPS) {
        INDEX z = z0 + row / SIDE_Y, y = y0 + row % SIDE_Y, x = x0 + lane;
        VALUE value = z < n_z && y < n_y && lane < n_x - x0 ? volume[(z * n_y + y) * n_x + x] : 0;
        VALUE before = __shfl_up_sync(EVERY, value, 1);
        unsigned starts = __ballot_sync(EVERY, lane == 0 || value != before);
        int first = 31 - __clz(starts & (EVERY >> (31 - lane)));
        values[row * SIDE_X + lane] = value;
        parent[row * SIDE_X + lane] = row * SIDE_X + first;
    }
    __syncthreads();  // the whole tile is loaded before rows are compared

    for (int row = warp; row < ROWS; row += WARPS) {
        int at = row * SIDE_X + lane;
        VALUE value = values[at];
        if (value == 0) continue;
        bool left = lane > 0 && values[at - 1] == value, right = lane < 31 && values[at + 1] == value;
        for (int k = 0; k < N_NEAR; k++) {
            int y = row % SIDE_Y + near_dy(k), z = row / SIDE_Y + near_dz(k);
            if (y < 0 || y >= SIDE_Y || z < 0) continue;
            int near = (z * SIDE_Y + y) * SIDE_X + lane;
            if (values[near] == value) {
                if (!(left && values[near - 1] == value)) unite<int, 0>(parent, at, near);
            } else if (near_corners(k)) {
                if (lane > 0 && !left && values[near - 1] == value) unite<int, 0>(parent, at, near - 1);
                if (lane < 31 && !right && values[near + 1] == value) unite<int, 0>(parent, at, near + 1);
            }
        }
    }
    __syncthreads();  // all unions of the tile are made before roots are looked up

    for (int row = warp; row < ROWS; row += WARPS) {
        INDEX z = z0 + row / SIDE_Y, y = y0 + row % SIDE_Y, x = x0 + lane;
        if (z >= n_z || y >= n_y || lane >= n_x - x0) continue;
        int at = row * SIDE_X + lane, root = 0;
        if (values[at]) root = root_of<int, 0>(parent, at);
        int root_row = root / SIDE_X;
        INDEX root_at = ((z0 + root_row / SIDE_Y) * n_y + y0 + root_row % SIDE_Y) * n_x + x0 + root % SIDE_X;
        labels[(z * n_y + y) * n_x + x] = values[at] ? root_at + 1 : 0;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
join_tiles(const VALUE* volume, INDEX n_z, INDEX n_y, INDEX n_x, INDEX* labels) {
    INDEX z0, y0, x0;
    tile_corner({n_z, n_y, n_x}, z0, y0, x0);
    int lane = threadIdx.x % 32;
    if (lane >= n_x - x0) return;
    INDEX x = x0 + lane;
    for (int row = threadIdx.x / 32; row < ROWS; row += WARPS) {
        int z_in = row / SIDE_Y, y_in = row % SIDE_Y;
        INDEX z = z0 + z_in, y = y0 + y_in;
        if (z >= n_z || y >= n_y) continue;
        bool at_side = z_in == 0 || y_in == 0 || y_in == SIDE_Y - 1;
        if (!at_side && lane > 0 && lane < 31) continue;
        INDEX at = (z * n_y + y) * n_x + x;
        VALUE value = volume[at];
        if (value == 0) continue;
        bool left = x > 0 && volume[at - 1] == value, right = x + 1 < n_x && volume[at + 1] == value;
        if (lane == 0 && left) unite<INDEX, 1>(labels, at, at - 1);
        for (int k = 0; k < N_NEAR; k++) {
            INDEX y_near = y + near_dy(k), z_near = z + near_dz(k);
            if (y_near < 0 || y_near >= n_y || z_near < 0) continue;
            bool apart = z_near < z0 || y_near < y0 || y_near >= y0 + SIDE_Y;  // two tiles, whatever x
            INDEX near = (z_near * n_y + y_near) * n_x + x;
            if (volume[near] == value) {
                if (apart && !(left && volume[near - 1] == value)) unite<INDEX, 1>(labels, at, near);
            } else if (near_corners(k)) {
                if ((apart || lane == 0) && x > 0 && !left && volume[near - 1] == value)
                    unite<INDEX, 1>(labels, at, near - 1);
                if ((apart || lane == 31) && x + 1 < n_x && !right && volume[near + 1] == value)
                    unite<INDEX, 1>(labels, at, near + 1);
            }
        }
    }
}

// The sum over the block, in every thread; `sums` is (WARPS,) in shared memory.
__device__ __forceinline__ int sum_of_block(int value, int* sums) {
    for (int by = 16; by > 0; by /= 2) value += __shfl_xor_sync(EVERY, value, by);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();  // every warp has left its sum
    int total = 0;
    for (int w = 0; w < WARPS; w++) total += sums[w];
    __syncthreads();  // every thread has read them: they may be written again
    return total;
}

// counts : (stretches,), the roots of each; block i has stretch i
extern "C" __global__ void __launch_bounds__(THREADS)
flatten(INDEX* labels, INDEX size, Long* counts) {
    __shared__ int sums[WARPS];
    INDEX start = (INDEX)blockIdx.x * STRETCH;
    int roots = 0;
    for (int k = threadIdx.x; k < STRETCH && k < size - start; k += THREADS) {
        INDEX at = start + k, link = labels[at];
        if (link == 0) continue;
        INDEX root = root_of<INDEX, 1>(labels, at);
        if (root + 1 != link) labels[at] = root + 1;
        roots += root == at;
    }
    roots = sum_of_block(roots, sums);
    if (threadIdx.x == 0) counts[blockIdx.x] = roots;
}

// Replace counts (n,) by the sums of all before them; total (1,) is the sum of all. One block.
extern "C" __global__ void __launch_bounds__(THREADS)
scan_counts(Long* counts, Long n, Long* total) {
    __shared__ Long sums[WARPS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Long before = 0;
    for (Long start = 0; start < n; start += THREADS) {
        Long at = start + threadIdx.x, count = at < n ? counts[at] : 0, sum = count;
        for (int by = 1; by < 32; by *= 2) {
            Long other = __shfl_up_sync(EVERY, sum, by);
            if (lane >= by) sum += other;
        }
        if (lane == 31) sums[warp] = sum;
        __syncthreads();  // every warp has left its sum
        Long all = 0;
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) sum += sums[w];
            all += sums[w];
        }
        if (at < n) counts[at] = before + sum - count;
        before += all;
        __syncthreads();  // every thread has read the sums: they may be written again
    }
    if (threadIdx.x == 0) *total = before;
}

extern "C" __global__ void __launch_bounds__(THREADS)
number_roots(INDEX* labels, INDEX size, const Long* counts) {
    __shared__ int sums[WARPS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    INDEX start = (INDEX)blockIdx.x * STRETCH;
    Long before = counts[blockIdx.x];
    for (int k = threadIdx.x; k < STRETCH; k += THREADS) {
        bool root = k < size - start && labels[start + k] == start + k + 1;
        unsigned roots = __ballot_sync(EVERY, root);
        if (lane == 0) sums[warp] = __popc(roots);
        __syncthreads();  // every warp has left its count
        Long number = before + 1 + __popc(roots & ((1u << lane) - 1));
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) number += sums[w];
            before += sums[w];
        }
        if (root) labels[start + k] = (INDEX)-number;
        __syncthreads();  // every thread has read the counts: they may be written again
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
write_labels(INDEX* labels, INDEX size) {
    for (Long i = (Long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (Long)gridDim.x * THREADS) {
        INDEX link = labels[i];
        if (link == 0) continue;
        INDEX number = link < 0 ? link : labels[link - 1];
        labels[i] = number < 0 ? -number : number;
    }
}

// renamed = names[labels], for labels of slabs
#ifndef NAME
#define NAME int
#endif
extern "C" __global__ void __launch_bounds__(THREADS)
rename_labels(const INDEX* labels, Long size, const NAME* names, NAME* renamed) {
    for (Long i = (Long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (Long)gridDim.x * THREADS)
        renamed[i] = names[labels[i]];
}
