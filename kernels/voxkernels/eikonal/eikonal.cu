// Travel time on a GPU: the kernels. `cuda.py` says in which order they run; the equation is that of `cpu.py`.
//
// The volume is cut into tiles of 8^3 voxels. A tile is worked on by one block, in shared memory, with what lies around
// it; lists of the tiles that have something to do are made on the device, and rounds follow one another until one
// finds nothing to do (block fast iterative method: Jeong and Whitaker, SIAM J. Sci. Comput. 30, 2512 (2008)). All
// labels and particles are solved at once: a byte for each voxel tells which of its neighbours have its label, and
// nothing passes to others.
//
// 1. prepare: that byte; times at the sources, inf elsewhere in the domain, nan outside.
// 2. list_tiles: the tiles with a time to start from; for order 2 a copy of the times.
// 3. march, in rounds: order 1, the upwind differences of Rouy and Tourin (1992). A thread has two voxels side by side
//    along x, one of each colour of a checkerboard, and the colours take turns: what is read is not written meanwhile.
//    A voxel is solved again only if a time that it looks at has changed. When nothing changes, or after so many turns,
//    new times are written; a neighbour tile is listed if one of its voxels is later than a new time beside it, the tile
//    itself if it was not done. Times only fall, so a tile that was read too early is listed again by who wrote too
//    late; the end is the one fixed point, to the bit, that the CPU finds.
// 4. wait_for_second: order 2 takes its voxels in the order of their order-1 arrival. Those whose straight-line time
//    stays are done, others wait (a time of -1).
// 5. second, in rounds: a waiting voxel is solved once, when all that it looks at are done. It looks only at voxels that
//    arrive earlier in order 1 by a margin, so nobody waits for each other. A tile is listed when a voxel close to it
//    is done, as long as voxels of its own wait.
// 6. cut: what is later than the latest time asked for becomes inf.
//
// All is computed in double precision, in the CPU's order of operations, and rounded to single precision where the CPU
// rounds. Cost: order 1 about 8 times through the tiles of the domain, order 2 as much again, each with some 8 solutions
// of the equation for a voxel and one. Memory: see `cuda.py`.
// Not checked here: positive steps and speeds, labels >= 0.
#ifndef LABEL
#define LABEL unsigned char
#endif
#ifndef INDEX
#define INDEX int
#endif
#ifndef TURNS
#define TURNS 8
#endif

typedef long long Long;

#define SIDE 8
#define TILE (SIDE * SIDE * SIDE)
#define THREADS 256
#define OWN (TILE / THREADS)
#define WITHIN 64
#define AGAIN 64
#define WAITS (-1.0f)
#define EARLIER 1e-3  // by which part of a step a neighbour has to be earlier to be upwind in order 2

struct Grid { INDEX n_z, n_y, n_x; };
struct Work { int round; int* counts; const int* list; int* next; int* listed; };  // what a round has, and hands on

__device__ __forceinline__ float from_bits(int bits) {
    union { int bits; float number; } both;
    both.bits = bits;
    return both.number;
}
#define NEVER from_bits(0x7F800000)
#define NOWHERE from_bits(0x7FC00000)

__device__ __forceinline__ double speed_at(const float* speed, int varies, INDEX at) { return varies ? speed[at] : 1.0; }

__device__ __forceinline__ void tile_corner(int tile, Grid grid, INDEX& z, INDEX& y, INDEX& x) {
    INDEX tiles_x = (grid.n_x - 1) / SIDE + 1, tiles_y = (grid.n_y - 1) / SIDE + 1;
    x = tile % tiles_x * SIDE;
    y = tile / tiles_x % tiles_y * SIDE;
    z = tile / tiles_x / tiles_y * SIDE;
}

// The tile so many tiles away along each axis.
__device__ __forceinline__ int tile_beside(int tile, Grid grid, int z, int y, int x) {
    INDEX tiles_x = (grid.n_x - 1) / SIDE + 1, tiles_y = (grid.n_y - 1) / SIDE + 1;
    return tile + (int)((z * tiles_y + y) * tiles_x + x);
}

// Copy a tile and `rim` voxels around it; NEVER outside the volume.
__device__ __forceinline__ void load_tile(const float* times, Grid grid, INDEX z0, INDEX y0, INDEX x0, int rim, float* t) {
    int edge = SIDE + 2 * rim;
    for (int k = threadIdx.x; k < edge * edge * edge; k += THREADS) {
        INDEX z = z0 + k / edge / edge - rim, y = y0 + k / edge % edge - rim, x = x0 + k % edge - rim;
        bool inside = z >= 0 && z < grid.n_z && y >= 0 && y < grid.n_y && x >= 0 && x < grid.n_x;
        t[k] = inside ? times[(z * grid.n_y + y) * grid.n_x + x] : NEVER;
    }
}

// Put a tile in the list of the next round, once.
__device__ __forceinline__ void list_tile(int tile, Work work) {
    int round = work.round + 1;
    if (atomicExch(&work.listed[tile], round) != round) work.next[atomicAdd(&work.counts[round % 3], 1)] = tile;
}

// ---- before the first round -----------------------------------------------------------------------------------------

// links : bits 0 to 5: the neighbour towards -z, +z, -y, +y, -x, +x has the same label; WITHIN in the domain.
// centres : whether what touches a source starts here, half a voxel away from it.
extern "C" __global__ void __launch_bounds__(THREADS)
prepare(const LABEL* labels, const unsigned char* source, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
        double h_z, double h_y, double h_x, int interfaces, int centres, float* times, unsigned char* links) {
    INDEX size = n_z * n_y * n_x;
    for (Long i = (Long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (Long)gridDim.x * THREADS) {
        INDEX at = (INDEX)i, x = at % n_x, y = at / n_x % n_y, z = at / n_x / n_y;
        LABEL label = labels[at];
        unsigned found = label ? WITHIN : 0;
        double t = NEVER;
        for (int side = 0; side < 6 && label; side++) {
            int axis = side / 2, up = side % 2;
            INDEX place = axis == 0 ? z : axis == 1 ? y : x, n = axis == 0 ? n_z : axis == 1 ? n_y : n_x;
            if (up ? place + 1 == n : place == 0) continue;
            INDEX step = axis == 0 ? n_y * n_x : axis == 1 ? n_x : 1, beside = up ? at + step : at - step;
            LABEL other = labels[beside];
            if (other == label) found |= 1u << side;
            else if (other ? interfaces : source[beside]) t = min(t, 0.5 * (axis == 0 ? h_z : axis == 1 ? h_y : h_x));
        }
        if (label && source[at]) t = 0.0;
        links[at] = (unsigned char)found;
        times[at] = label == 0 ? NOWHERE : centres ? (float)(t / speed_at(speed, varies, at)) : NEVER;
    }
}

// List the tiles with times to start from, in a first round; first : for order 2 a copy of the times, or `times` itself.
extern "C" __global__ void __launch_bounds__(THREADS)
list_tiles(const float* times, INDEX n_z, INDEX n_y, INDEX n_x, float* first, int order,
           int round, int* counts, int* list, int* listed) {
    Grid grid = {n_z, n_y, n_x};
    INDEX z0, y0, x0;
    tile_corner(blockIdx.x, grid, z0, y0, x0);
    int started = 0;
    for (int k = threadIdx.x; k < TILE; k += THREADS) {
        INDEX z = z0 + k / (SIDE * SIDE), y = y0 + k / SIDE % SIDE, x = x0 + k % SIDE;
        if (z >= n_z || y >= n_y || x >= n_x) continue;
        INDEX at = (z * n_y + y) * n_x + x;
        float t = times[at];
        if (order == 2) first[at] = t;
        started |= t < NEVER;
    }
    started = __syncthreads_or(started);  // whether any thread of the block has seen one
    if (started && threadIdx.x == 0) list_tile(blockIdx.x, {round - 1, counts, 0, list, listed});
}

// ---- the difference equation ----------------------------------------------------------------------------------------

// The t with a1 (t-b1)+^2 + a2 (t-b2)+^2 + a3 (t-b3)+^2 = rhs, (.)+ the positive part; inf if all b are inf.
template <class Base>
__device__ __forceinline__ double upwind_root(double a1, Base b1, double a2, Base b2, double a3, Base b3, double rhs) {
    if (b2 < b1) { double a = a1; Base b = b1; a1 = a2, b1 = b2, a2 = a, b2 = b; }
    if (b3 < b2) { double a = a2; Base b = b2; a2 = a3, b2 = b3, a3 = a, b3 = b; }
    if (b2 < b1) { double a = a1; Base b = b1; a1 = a2, b1 = b2, a2 = a, b2 = b; }
    double d2 = (double)b2 - (double)b1, d3 = (double)b3 - (double)b1, s = a1, m = 0.0, r = -rhs;
    if (a1 * d2 * d2 < rhs) {
        s += a2, m = a2 * d2, r = a2 * d2 * d2 - rhs;
        if (s * d3 * d3 - 2.0 * m * d3 + r < 0.0) s += a3, m += a3 * d3, r += a3 * d3 * d3;
    }
    double rest = m * m - s * r;
    return (double)b1 + (m + sqrt(rest > 0.0 ? rest : 0.0)) / s;
}

// The earlier of two opposite neighbours, of those with the same label.
__device__ __forceinline__ float earlier(const float* t, int at, int step, unsigned links) {
    float below = links & 1 ? t[at - step] : NEVER, above = links & 2 ? t[at + step] : NEVER;
    return above < below ? above : below;
}

#define EDGE (SIDE + 2)

extern "C" __global__ void __launch_bounds__(THREADS)
march(float* times, const unsigned char* links, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
      double w_z, double w_y, double w_x, double latest, int round, int* counts, const int* list, int* next, int* listed) {
    __shared__ float t[EDGE * EDGE * EDGE];
    __shared__ unsigned woken;  // bits 0 to 5: the tile beside; AGAIN: this one
    Grid grid = {n_z, n_y, n_x};
    Work work = {round, counts, list, next, listed};
    if (blockIdx.x == 0 && threadIdx.x == 0) counts[(round + 2) % 3] = 0;
    int n_jobs = counts[round % 3];
    int z = threadIdx.x / (SIDE * SIDE / 2), y = threadIdx.x / (SIDE / 2) % SIDE;
    for (int job = blockIdx.x; job < n_jobs; job += gridDim.x) {
        int tile = list[job];
        INDEX z0, y0, x0;
        tile_corner(tile, grid, z0, y0, x0);
        load_tile(times, grid, z0, y0, x0, 1, t);
        if (threadIdx.x == 0) woken = 0;
        INDEX there[OWN];
        int here[OWN];
        unsigned near[OWN];
        double rhs[OWN];
        float seen[OWN][3];
        for (int colour = 0; colour < OWN; colour++) {
            int x = threadIdx.x % (SIDE / 2) * 2 + ((z + y + colour) & 1);
            bool inside = z < n_z - z0 && y < n_y - y0 && x < n_x - x0;
            there[colour] = inside ? ((z0 + z) * n_y + y0 + y) * n_x + x0 + x : 0;
            here[colour] = ((z + 1) * EDGE + y + 1) * EDGE + x + 1;
            near[colour] = inside ? links[there[colour]] : 0;
            double v = near[colour] ? speed_at(speed, varies, there[colour]) : 1.0;
            rhs[colour] = 1.0 / (v * v);
            for (int axis = 0; axis < 3; axis++) seen[colour][axis] = NOWHERE;  // equal to nothing
        }
        __syncthreads();  // the tile is loaded before it is read
        float before[OWN];
        for (int colour = 0; colour < OWN; colour++) before[colour] = t[here[colour]];

        int changed = 1;
        for (int turn = 0; turn < TURNS && changed; turn++) {
            changed = 0;
            for (int colour = 0; colour < OWN; colour++) {
                int at = here[colour];
                float b_z = earlier(t, at, EDGE * EDGE, near[colour]), b_y = earlier(t, at, EDGE, near[colour] >> 2);
                float b_x = earlier(t, at, 1, near[colour] >> 4);
                bool news = b_z != seen[colour][0] || b_y != seen[colour][1] || b_x != seen[colour][2];
                if (news && (b_z < t[at] || b_y < t[at] || b_x < t[at])) {
                    float found = (float)upwind_root(w_z, b_z, w_y, b_y, w_x, b_x, rhs[colour]);
                    if (found < t[at] && found <= latest) t[at] = found, changed = 1;
                }
                seen[colour][0] = b_z, seen[colour][1] = b_y, seen[colour][2] = b_x;
                if (colour == 0) __syncthreads();  // one colour is written before the other reads it
            }
            changed = __syncthreads_or(changed);  // and back again; all leave the loop together
        }

        unsigned wakes = changed ? AGAIN : 0;
        for (int colour = 0; colour < OWN; colour++) {
            int at = here[colour], x = (at - 1) % EDGE;
            if (!(t[at] < before[colour])) continue;
            times[there[colour]] = t[at];
            unsigned faces = (z == 0) | (z == SIDE - 1) << 1 | (y == 0) << 2 | (y == SIDE - 1) << 3 | (x == 0) << 4
                | (x == SIDE - 1) << 5;
            faces &= near[colour];
            if ((faces & 1) && t[at - EDGE * EDGE] > t[at]) wakes |= 1;
            if ((faces & 2) && t[at + EDGE * EDGE] > t[at]) wakes |= 2;
            if ((faces & 4) && t[at - EDGE] > t[at]) wakes |= 4;
            if ((faces & 8) && t[at + EDGE] > t[at]) wakes |= 8;
            if ((faces & 16) && t[at - 1] > t[at]) wakes |= 16;
            if ((faces & 32) && t[at + 1] > t[at]) wakes |= 32;
        }
        if (wakes) atomicOr(&woken, wakes);
        __syncthreads();  // all wishes are known
        if (threadIdx.x < 7 && (woken >> threadIdx.x & 1)) {
            int side = threadIdx.x, way = side % 2 * 2 - 1;
            bool z_way = side / 2 == 0, y_way = side / 2 == 1, x_way = side / 2 == 2;
            list_tile(tile_beside(tile, grid, z_way * way, y_way * way, x_way * way), work);
        }
        __syncthreads();  // all have read what the next tile overwrites
    }
}

// ---- second order ---------------------------------------------------------------------------------------------------

// Times that order 1 does not beat stay; the others of the domain wait. left : (tiles,) how many wait in each.
extern "C" __global__ void __launch_bounds__(THREADS)
wait_for_second(float* times, const float* first, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
                double keep, int* left, int round, int* counts, int* list, int* listed) {
    Grid grid = {n_z, n_y, n_x};
    INDEX z0, y0, x0;
    tile_corner(blockIdx.x, grid, z0, y0, x0);
    int waiting[OWN];
    for (int k = 0; k < OWN; k++) {
        int e = threadIdx.x + k * THREADS;
        INDEX z = z0 + e / (SIDE * SIDE), y = y0 + e / SIDE % SIDE, x = x0 + e % SIDE;
        waiting[k] = 0;
        if (z >= n_z || y >= n_y || x >= n_x) continue;
        INDEX at = (z * n_y + y) * n_x + x;
        float arrival = first[at];
        if (!(arrival < NEVER)) continue;
        double start = times[at];
        if (arrival < start - keep / speed_at(speed, varies, at)) waiting[k] = 1, times[at] = WAITS;
    }
    int total = 0;
    for (int k = 0; k < OWN; k++) total += __syncthreads_count(waiting[k]);  // the sum over the block
    if (threadIdx.x == 0) {
        left[blockIdx.x] = total;
        if (total) list_tile(blockIdx.x, {round - 1, counts, 0, list, listed});
    }
}

// Weight and base of the difference along one axis, base inf if no neighbour is upwind; false if it has to wait.
// looks : bits 0 and 1: the voxels below and above are upwind; bits 6 and 7: those behind them, too.
__device__ __forceinline__ bool second_difference(
    const float* t, int at, int step, unsigned looks, double& weight, double& base) {
    float below = looks & 1 ? t[at - step] : NEVER, above = looks & 2 ? t[at + step] : NEVER;
    if (below == WAITS || above == WAITS) return false;
    bool up = above < below;
    float near = up ? above : below;
    base = near;
    if (looks >> (up ? 7 : 6) & 1) {
        float far = t[up ? at + 2 * step : at - 2 * step];
        if (far == WAITS) return false;
        if (far < near) weight *= 2.25, base += ((double)near - (double)far) / 3.0;
    }
    return true;
}

#define REACH 2
#define WIDE (SIDE + 2 * REACH)

extern "C" __global__ void __launch_bounds__(THREADS)
second(float* times, const float* first, const unsigned char* links, const float* speed, int varies,
       INDEX n_z, INDEX n_y, INDEX n_x, double h_z, double h_y, double h_x, int* left,
       int round, int* counts, const int* list, int* next, int* listed) {
    __shared__ float t[WIDE * WIDE * WIDE], arrival[WIDE * WIDE * WIDE];
    __shared__ unsigned woken;  // bit 9 z + 3 y + x + 13: the tile so many tiles away
    Grid grid = {n_z, n_y, n_x};
    Work work = {round, counts, list, next, listed};
    if (blockIdx.x == 0 && threadIdx.x == 0) counts[(round + 2) % 3] = 0;
    int n_jobs = counts[round % 3];
    double w_z = 1.0 / (h_z * h_z), w_y = 1.0 / (h_y * h_y), w_x = 1.0 / (h_x * h_x);
    for (int job = blockIdx.x; job < n_jobs; job += gridDim.x) {
        int tile = list[job];
        INDEX z0, y0, x0;
        tile_corner(tile, grid, z0, y0, x0);
        load_tile(times, grid, z0, y0, x0, REACH, t);
        load_tile(first, grid, z0, y0, x0, REACH, arrival);
        if (threadIdx.x == 0) woken = 0;
        __syncthreads();  // the tile is loaded before it is read

        int here[OWN];
        INDEX there[OWN];
        unsigned looks[OWN];  // see second_difference; two bits for each axis
        double slowness[OWN];
        bool waits[OWN];
        for (int k = 0; k < OWN; k++) {
            int e = threadIdx.x + k * THREADS, z = e / (SIDE * SIDE), y = e / SIDE % SIDE, x = e % SIDE;
            int at = here[k] = ((z + REACH) * WIDE + y + REACH) * WIDE + x + REACH;
            there[k] = ((z0 + z) * n_y + y0 + y) * n_x + x0 + x;
            waits[k] = t[at] == WAITS;
            looks[k] = 0, slowness[k] = 1.0;
            if (!waits[k]) continue;
            slowness[k] = 1.0 / speed_at(speed, varies, there[k]);
            unsigned near = links[there[k]];
            for (int side = 0; side < 6; side++) {
                int axis = side / 2, step = axis == 0 ? WIDE * WIDE : axis == 1 ? WIDE : 1;
                INDEX stride = axis == 0 ? n_y * n_x : axis == 1 ? n_x : 1;
                if (side % 2 == 0) step = -step, stride = -stride;
                double margin = EARLIER * slowness[k] * (axis == 0 ? h_z : axis == 1 ? h_y : h_x);
                if (!(near >> side & 1) || !(arrival[at + step] < arrival[at] - margin)) continue;
                looks[k] |= 1u << side;
                bool reaches = links[there[k] + stride] >> side & 1;
                if (reaches && arrival[at + 2 * step] < arrival[at + step] - margin) looks[k] |= 64u << side;
            }
        }

        unsigned wakes = 0;
        for (int moved = 1; moved;) {
            float found[OWN];
            for (int k = 0; k < OWN; k++) {
                found[k] = WAITS;
                if (!waits[k]) continue;
                int at = here[k];
                double a_z = w_z, a_y = w_y, a_x = w_x, b_z, b_y, b_x;
                if (!second_difference(t, at, WIDE * WIDE, looks[k], a_z, b_z)) continue;
                if (!second_difference(t, at, WIDE, looks[k] >> 2, a_y, b_y)) continue;
                if (!second_difference(t, at, 1, looks[k] >> 4, a_x, b_x)) continue;
                double time = arrival[at];  // where rounding hides who is earlier
                if (looks[k] & 63) time = upwind_root(a_z, b_z, a_y, b_y, a_x, b_x, slowness[k] * slowness[k]);
                found[k] = (float)time;
            }
            __syncthreads();  // all have read before one writes
            moved = 0;
            for (int k = 0; k < OWN; k++) {
                if (found[k] == WAITS) continue;
                t[here[k]] = times[there[k]] = found[k];
                waits[k] = false, moved = 1;
                int e = threadIdx.x + k * THREADS, z = e / (SIDE * SIDE), y = e / SIDE % SIDE, x = e % SIDE;
                if (z < REACH) wakes |= 1u << 4;
                if (z >= SIDE - REACH) wakes |= 1u << 22;
                if (y < REACH) wakes |= 1u << 10;
                if (y >= SIDE - REACH) wakes |= 1u << 16;
                if (x < REACH) wakes |= 1u << 12;
                if (x >= SIDE - REACH) wakes |= 1u << 14;
            }
            moved = __syncthreads_or(moved);  // all is written before it is read; all leave the loop together
        }
        if (wakes) atomicOr(&woken, wakes);
        int total = 0;
        for (int k = 0; k < OWN; k++) total += __syncthreads_count(waits[k]);  // the sum over the block; wishes are known
        if (threadIdx.x == 0) left[tile] = total;
        if (threadIdx.x < 27 && (woken >> threadIdx.x & 1)) {
            int z = threadIdx.x / 9 - 1, y = threadIdx.x / 3 % 3 - 1, x = threadIdx.x % 3 - 1;
            bool inside = z0 + z * SIDE >= 0 && z0 + z * SIDE < n_z && y0 + y * SIDE >= 0 && y0 + y * SIDE < n_y;
            inside &= x0 + x * SIDE >= 0 && x0 + x * SIDE < n_x;
            int beside = inside ? tile_beside(tile, grid, z, y, x) : tile;
            if (inside && left[beside] > 0) list_tile(beside, work);
        }
        __syncthreads();  // all have read what the next tile overwrites
    }
}

// ---- at the end -----------------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS)
cut(float* times, Long size, double latest) {
    for (Long i = (Long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (Long)gridDim.x * THREADS)
        if (times[i] > latest) times[i] = NEVER;
}

// ---- paths ---------------------------------------------------------------------------------------------------------
//
// One thread follows one path, as cpu_paths.py does: steepest descent on T in midpoint steps, along a wall where it
// meets one, and from voxel centre to voxel centre where a step does not lower the time by enough. That file says why.
// Every operation is in double precision and rounds for itself (`Real`), so a path has the bits of the CPU's.
//
// Each path is traced twice: once to count its points, then into its part of one array.
//
// Cost: about 100 reads of T a step, from cache mostly; threads of a warp whose paths end early wait for the longest.
// Memory: 24 bytes for each point, 40 for each start.
// Not checked here: spacing > 0, starts inside the volume on voxels that can be used.

#define PATH_THREADS 64
#define LAST 1.0
#define SHORTEST 0.3
#define GAIN 0.3
#define FARTHEST 1e300
#define LATEST 3.402823466e+38f
#define TOO_LONG -1

// A number whose products and sums are never fused: each rounds for itself, as on the CPU.
struct Real {
    double v;
    Real() = default;
    __device__ __forceinline__ Real(double value) : v(value) {}
};
__device__ __forceinline__ Real operator+(Real a, Real b) { return __dadd_rn(a.v, b.v); }
__device__ __forceinline__ Real operator-(Real a, Real b) { return __dadd_rn(a.v, -b.v); }
__device__ __forceinline__ Real operator*(Real a, Real b) { return __dmul_rn(a.v, b.v); }
__device__ __forceinline__ Real operator/(Real a, Real b) { return a.v / b.v; }
__device__ __forceinline__ bool operator<(Real a, Real b) { return a.v < b.v; }
__device__ __forceinline__ bool operator>(Real a, Real b) { return a.v > b.v; }
__device__ __forceinline__ Real root(Real a) { return sqrt(a.v); }
__device__ __forceinline__ Real lower_of(Real a, Real b) { return b.v < a.v ? b.v : a.v; }

struct Point { Real at[3]; };

// What a path may go through, seen from its start; h is the spacing.
struct Ways {
    const float* T;
    const LABEL* labels;
    bool labelled;
    LABEL mine;
    INDEX n[3];
    Real h[3];
};

__device__ __forceinline__ float time_of(const Ways& w, INDEX z, INDEX y, INDEX x) {
    return w.T[(z * w.n[1] + y) * w.n[2] + x];
}

__device__ __forceinline__ bool usable(const Ways& w, INDEX z, INDEX y, INDEX x) {
    if (z < 0 || z >= w.n[0] || y < 0 || y >= w.n[1] || x < 0 || x >= w.n[2]) return false;
    INDEX at = (z * w.n[1] + y) * w.n[2] + x;
    return w.T[at] <= LATEST && (!w.labelled || w.labels[at] == w.mine);
}

__device__ __forceinline__ bool at_point(const Ways& w, const Point& p) {
    double c[3];
    for (int d = 0; d < 3; d++) {
        c[d] = floor((p.at[d] + 0.5).v);
        if (!(c[d] >= 0 && c[d] < w.n[d])) return false;
    }
    return usable(w, (INDEX)c[0], (INDEX)c[1], (INDEX)c[2]);
}

// Whether the straight line between two points less than two voxels apart stays in voxels that can be used.
__device__ __forceinline__ bool free_way(const Ways& w, const Point& p, const Point& q) {
#pragma unroll 1
    for (int i = 1; i < 9; i++) {
        Point r;
        for (int d = 0; d < 3; d++) r.at[d] = p.at[d] + (q.at[d] - p.at[d]) * (double)i / 8.0;
        if (!at_point(w, r)) return false;
    }
    return true;
}

// Derivative of T at a voxel centre along one axis. Where two fronts have met, the way goes to the steeper side.
__device__ __forceinline__ Real slope(const Ways& w, const INDEX* c, int axis) {
    float v = time_of(w, c[0], c[1], c[2]);
    Real total = 0.0, steepest = 0.0;
    int count = 0, lower = 0;
    for (int side = -1; side < 2; side += 2) {
        INDEX z = c[0] + (axis == 0 ? side : 0), y = c[1] + (axis == 1 ? side : 0), x = c[2] + (axis == 2 ? side : 0);
        if (!usable(w, z, y, x)) continue;
        float there = time_of(w, z, y, x);
        Real rate = (double)side * (double)(there - v) / w.h[axis].v;
        total = total + rate;
        count++;
        if (there < v) {
            lower++;
            if (fabs(rate.v) > fabs(steepest.v)) steepest = rate;
        }
    }
    if (lower == 2) return steepest;
    return count ? total / (double)count : Real(0.0);
}

// Time at a point, and its gradient (written): linear from each corner that can be used, trilinear weights.
__device__ __forceinline__ Real sample(const Ways& w, const Point& p, Point& gradient) {
    Real total = 0.0, value = 0.0;
    Point sum;
    for (int d = 0; d < 3; d++) sum.at[d] = 0.0;
#pragma unroll 1
    for (int corner = 0; corner < 8; corner++) {
        Real weight = 1.0;
        INDEX c[3];
        for (int d = 0; d < 3; d++) {
            double low = floor(p.at[d].v);
            bool up = corner >> d & 1;
            c[d] = (INDEX)low + up;
            weight = weight * (up ? p.at[d] - low : Real(1.0) - p.at[d] + low);
        }
        if (!(weight > 0.0) || !usable(w, c[0], c[1], c[2])) continue;
        Real here = (double)time_of(w, c[0], c[1], c[2]);
        for (int d = 0; d < 3; d++) {
            Real g = slope(w, c, d);
            here = here + g * (p.at[d] - (double)c[d]) * w.h[d];
            sum.at[d] = sum.at[d] + weight * g;
        }
        value = value + weight * here;
        total = total + weight;
    }
    for (int d = 0; d < 3; d++) gradient.at[d] = sum.at[d] / total;
    value = value / total;
    return value > 0.0 ? value : Real(0.0);
}

__device__ __forceinline__ Real length_of(const Point& g) {
    return root(g.at[0] * g.at[0] + g.at[1] * g.at[1] + g.at[2] * g.at[2]);
}

// The next voxel centre downhill, in q; the centre of p's own voxel if the way is not free. False if there is none.
__device__ __forceinline__ bool best_neighbour(const Ways& w, const Point& p, Point& q) {
    Point c;
    for (int d = 0; d < 3; d++) c.at[d] = floor((p.at[d] + 0.5).v);
    INDEX z = (INDEX)c.at[0].v, y = (INDEX)c.at[1].v, x = (INDEX)c.at[2].v;
    float here = time_of(w, z, y, x);
    Real steepest = 0.0;
#pragma unroll 1
    for (int n = 0; n < 27; n++) {
        int step[3] = {n / 9 - 1, n / 3 % 3 - 1, n % 3 - 1};
        if (!usable(w, z + step[0], y + step[1], x + step[2])) continue;
        float there = time_of(w, z + step[0], y + step[1], x + step[2]);
        if (!(there < here)) continue;
        Point r, far;
        for (int d = 0; d < 3; d++) {
            r.at[d] = c.at[d] + (double)step[d];
            far.at[d] = w.h[d] * (double)step[d];
        }
        Real rate = Real((double)(here - there)) / length_of(far);
        if (rate > steepest && free_way(w, c, r)) steepest = rate, q = r;
    }
    if (steepest > 0.0 && !free_way(w, p, q)) q = c;
    return steepest > 0.0;
}

// One step of second order against the gradient g at p, to q, or along the wall that it meets. False if it does not
// lower the time by enough.
__device__ __forceinline__ bool midpoint_step(const Ways& w, const Point& p, Real value, Real stride, const Point& g,
                                              Point& q) {
    Real rate = length_of(g);
    if (!(rate > 0.0)) return false;
    Point r, turned = g;
    for (int d = 0; d < 3; d++) r.at[d] = p.at[d] - stride * 0.5 * g.at[d] / rate / w.h[d];
    if (at_point(w, r)) sample(w, r, turned);
    Real turn = length_of(turned);
    if (!(turn > 0.0)) return false;
    Real lowest = FARTHEST;
#pragma unroll 1
    for (int dropped = 0; dropped < 7; dropped++) {  // axes left out: none, one, two
        Real moved = 0.0;
        for (int d = 0; d < 3; d++) {
            r.at[d] = p.at[d];
            if (dropped >> d & 1) continue;
            Real by = stride * turned.at[d] / turn;
            r.at[d] = r.at[d] - by / w.h[d];
            moved = moved + by * by;
        }
        Real shortest = stride * SHORTEST;
        if (!(moved > shortest * shortest) || !free_way(w, p, r)) continue;
        Point unused;
        Real there = sample(w, r, unused);
        if (there < lower_of(lowest, value - root(moved) * GAIN * rate)) {
            lowest = there, q = r;
            if (dropped == 0) break;
        }
    }
    return lowest < FARTHEST;
}

// Trace one path into `path` (room, 3), as far as it has room. The number of its points, or TOO_LONG.
__device__ __forceinline__ Long trace(const Ways& w, Point p, Real stride, Long max_steps, double* path, Long room) {
    Real widest = w.h[0] > w.h[1] ? w.h[0] : w.h[1];
    widest = w.h[2] > widest ? w.h[2] : widest;
    Real level = FARTHEST;  // the time at which a step failed last: below it the path may leave the voxel centres again
    for (Long n = 0; n < max_steps; n++) {
        if (n < room)
            for (int d = 0; d < 3; d++) path[3 * n + d] = p.at[d].v;
        Point q, g;
        Real value = sample(w, p, g), rate = length_of(g);
        if (!(value > 0.0)) return n + 1;
        bool moved = false;
        if (value > stride * rate) {
            moved = value < level && midpoint_step(w, p, value, stride, g, q);
            if (!moved && value > widest * LAST * rate) {
                level = lower_of(level, value);
                moved = best_neighbour(w, p, q);
            }
        }
        if (moved) {
            p = q;
            continue;
        }
        if (!(rate > 0.0)) return n + 1;
        Real square = rate * rate;
        if (square < 1e-300) square = 1e-300;
#pragma unroll 1
        for (int tenth = 10; tenth > 0; tenth--) {  // the rest of the way, as far as the last voxel goes
            for (int d = 0; d < 3; d++)
                q.at[d] = p.at[d] - Real(0.0999999) * (double)tenth * value * g.at[d] / square / w.h[d];
            if (!free_way(w, p, q)) continue;
            if (n + 1 < room)
                for (int d = 0; d < 3; d++) path[3 * (n + 1) + d] = q.at[d].v;
            return n + 2;
        }
        return n + 1;
    }
    return TOO_LONG;
}

// starts (N, 3), first (N + 1,): path i has rows first[i]..first[i + 1] - 1 of `points`; count (N,) its points, or
// TOO_LONG. labels (Z, Y, X) where `labelled`.
extern "C" __global__ void __launch_bounds__(PATH_THREADS, 1)
trace_paths(const float* T, const LABEL* labels, int labelled, INDEX n_z, INDEX n_y, INDEX n_x, const double* starts,
            Long n_starts, double dz, double dy, double dx, double stride, Long max_steps, const Long* first,
            double* points, Long* count) {
    Long i = (Long)blockIdx.x * PATH_THREADS + threadIdx.x;
    if (i >= n_starts) return;
    Ways w = {T, labels, labelled != 0, 0, {n_z, n_y, n_x}, {dz, dy, dx}};
    Point p;
    for (int d = 0; d < 3; d++) p.at[d] = starts[3 * i + d];
    if (labelled) {
        INDEX z = (INDEX)floor((p.at[0] + 0.5).v), y = (INDEX)floor((p.at[1] + 0.5).v);
        w.mine = labels[(z * n_y + y) * n_x + (INDEX)floor((p.at[2] + 0.5).v)];
    }
    count[i] = trace(w, p, stride, max_steps, points + 3 * first[i], first[i + 1] - first[i]);
}

// found[i] = T[at[i]], for `at` (N,) flat indices
extern "C" __global__ void __launch_bounds__(PATH_THREADS)
read_times(const float* T, const Long* at, Long n, float* found) {
    Long i = (Long)blockIdx.x * PATH_THREADS + threadIdx.x;
    if (i < n) found[i] = T[at[i]];
}
