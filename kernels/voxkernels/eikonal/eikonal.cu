// Travel time on a GPU: the kernels. `cuda.py` says in which order they run; the equation is that of `cpu.py`.
//
// The volume is cut into tiles of 8^3 voxels. A tile is worked on by one block, in shared memory, with what lies around
// it; lists of the tiles that have something to do are made on the device, and rounds follow one another until one
// finds nothing to do (block fast iterative method: Jeong and Whitaker, SIAM J. Sci. Comput. 30, 2512 (2008)). All
// labels and particles are solved at once: a byte for each voxel tells which of its neighbours have its label, and
// nothing passes to others.
//
// 1. prepare: that byte; times at what touches a source (start "centres"), else inf in the domain, nan outside.
// 2. For the other starts: flatten, join_pieces, flatten number the pieces, the 6-connected components of equal label,
//    by a union-find forest over the voxels (as in `components`: Playne and Hawick, IEEE Trans. Parallel Distrib. Syst.
//    29, 1217 (2018)); a voxel is linked to its neighbour before it to begin with, and the trees are joined by an atomic
//    minimum. start_lines finds the disc of surface behind each contact face and gives the voxels in sight of it their
//    straight-line times, by an atomic minimum, too. What faces look at lies in shared memory, and a warp looks for one.
// 3. list_tiles: the tiles with a time to start from; for order 2 a copy of the times.
// 4. march, in rounds: order 1, the upwind differences of Rouy and Tourin (1992). A thread has two voxels side by side
//    along x, one of each colour of a checkerboard, and the colours take turns: what is read is not written meanwhile.
//    A voxel is solved again only if a time that it looks at has changed. When nothing changes, or after so many turns,
//    new times are written; a neighbour tile is listed if one of its voxels is later than a new time beside it, the tile
//    itself if it was not done. Times only fall, so a tile that was read too early is listed again by who wrote too
//    late; the end is the one fixed point that fast marching finds.
// 5. wait_for_second: order 2 takes its voxels in the order of their order-1 arrival. Those whose straight-line time
//    stays are done, others wait (a time of -1). draw_lines: along which straight lines each of those at a wall is to
//    look, as bits: that depends on order 1 and on what is in sight alone.
// 6. second, in rounds: a waiting voxel is solved once, when all that it looks at are done. It looks only at voxels that
//    arrive earlier in order 1 by a margin, so nobody waits for each other. A tile is listed when a voxel close to it is
//    done, as long as its own wait.
// 7. hurry, on all tiles and then in rounds: what is later than a neighbour by more than a step becomes earlier. (Order 2
//    works in the order of order 1, in which a neighbour that comes out much earlier may have had no say.)
// 8. cut: what is later than the latest time asked for becomes inf.
//
// Order 1 is computed in double precision and stored in single, so that the order of updates does not show; second
// solves a voxel once, in single precision as the CPU does. What depends on what is decided by margins that are far above
// the rounding of both. Cost: a tile of the domain is read once for each layer of tiles that a front crosses around it;
// each time order 1 solves the equation a few times for each voxel, order 2 once in all. Memory: see `cuda.py`.
//
// The floor: some 30 bytes a voxel pass through memory, 1 ms for 512^3 on an H200. Reached there (28 % domain): order 1
// 14 ms, of which march 11; order 2 with the start from a surface 81 ms, of which start_lines 15, draw_lines 6, march 11
// and second 43 (in double precision; in single, as it is, the whole was measured at 256^3 only: 11.3 ms, before 12.5).
// Blocks wait for their own barriers and for tiles that wait for one another, not for memory.
// Without hurry, which is younger than these figures and reads the volume once where it finds nothing to do.
// Tried: one thread for a face's disc, all it looks at read from the volume: start_lines 128 ms. Lines looked along by a
// warp for each voxel that is ready, not drawn beforehand: second 73 ms; on one block a multiprocessor 111 ms.
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
#define EVERY 0xFFFFFFFFu
#define WITHIN 64    // links: in the domain
#define STARTS 128   // links: touches a source, or is one
#define LOOKS 128    // links, once all have started: looks along lines
#define SECOND 64    // links, once all have started, in the place of WITHIN: order 2 computes it
#define AGAIN 64     // wishes of a tile: to be listed itself
#define SOURCE (-1)  // pieces: a source outside the domain
#define NOTHING (-2)
#define FITTED 32    // discs in shared memory at once, one for each thread of a warp
#define START_BLOCKS (sizeof(INDEX) == 4 ? 3 : 2)  // at once on a multiprocessor, as their shared memory allows
#define TOO_FAR 9
#define STEEP 2.0    // squared slope above which another axis sees the surface better
#define STIFF 4.0    // weight of the sum of a rim's faces against their scatter, in squared voxels
#define DISC 0.4     // radius of a disc, in voxels along the face
#define SHIFT 0.2    // how far a disc moves towards a rim that its source does not touch
#define EVEN 1e-6    // by which part one has to be more than another: between equals rounding does not choose
#define WIDEN 0.15   // and how much it grows
#define WAITS (-1.0f)
#define EARLIER 1e-3  // by which part of a step a neighbour has to be earlier to be upwind in order 2
#define SLACK 5e-5    // by which part of a step one may be longer than a step: rounding does not make a voxel earlier
#define TIE 1e-4      // by which part of a step one of two upwind neighbours has to be earlier to be taken

struct Grid { INDEX n_z, n_y, n_x; };
struct Steps { double z, y, x; };
struct Work { int round; int* counts; const int* list; int* next; int* listed; };  // what a round has, and hands on

__device__ __forceinline__ float from_bits(int bits) {
    union { int bits; float number; } both;
    both.bits = bits;
    return both.number;
}
#define NEVER from_bits(0x7F800000)
#define NOWHERE from_bits(0x7FC00000)

__device__ __forceinline__ int bits_of(float number) {
    union { int bits; float number; } both;
    both.number = number;
    return both.bits;
}

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

// Copy what a volume holds in a tile and `rim` voxels around it; `nothing` outside the volume.
template <class Number>
__device__ __forceinline__ void load_tile(
    const Number* volume, Number nothing, Grid grid, INDEX z0, INDEX y0, INDEX x0, int rim, Number* near) {
    int edge = SIDE + 2 * rim;
    for (int k = threadIdx.x; k < edge * edge * edge; k += blockDim.x) {
        INDEX z = z0 + k / edge / edge - rim, y = y0 + k / edge % edge - rim, x = x0 + k % edge - rim;
        bool inside = z >= 0 && z < grid.n_z && y >= 0 && y < grid.n_y && x >= 0 && x < grid.n_x;
        near[k] = inside ? volume[(z * grid.n_y + y) * grid.n_x + x] : nothing;
    }
}

// Put a tile in the list of the next round, once.
__device__ __forceinline__ void list_tile(int tile, Work work) {
    int round = work.round + 1;
    if (atomicExch(&work.listed[tile], round) != round) work.next[atomicAdd(&work.counts[round % 3], 1)] = tile;
}

// ---- before the first round -----------------------------------------------------------------------------------------

// Half a step to the nearest source outside that a voxel touches, NEVER if to none; adds to `links` who has its label.
__device__ __forceinline__ double half_step(
    const LABEL* labels, const unsigned char* source, Grid grid, INDEX at, Steps h, int interfaces, unsigned& links) {
    INDEX x = at % grid.n_x, y = at / grid.n_x % grid.n_y, z = at / grid.n_x / grid.n_y;
    LABEL label = labels[at];
    double nearest = NEVER;
    for (int side = 0; side < 6; side++) {
        int axis = side / 2, up = side % 2;
        INDEX place = axis == 0 ? z : axis == 1 ? y : x, n = axis == 0 ? grid.n_z : axis == 1 ? grid.n_y : grid.n_x;
        if (up ? place + 1 == n : place == 0) continue;
        INDEX step = axis == 0 ? grid.n_y * grid.n_x : axis == 1 ? grid.n_x : 1, beside = up ? at + step : at - step;
        LABEL other = labels[beside];
        if (other == label) links |= 1u << side;
        else if (other ? interfaces : source[beside]) nearest = min(nearest, 0.5 * (axis == 0 ? h.z : axis == 1 ? h.y : h.x));
    }
    return nearest;
}

// links : bits 0 to 5: the neighbour towards -z, +z, -y, +y, -x, +x has the same label; WITHIN; STARTS.
// centres : whether what touches a source starts here, half a step away from it. If not:
// pieces : a first forest over the voxels of each piece, see join_pieces; SOURCE or NOTHING outside the domain.
extern "C" __global__ void __launch_bounds__(THREADS)
prepare(const LABEL* labels, const unsigned char* source, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
        double h_z, double h_y, double h_x, int interfaces, int centres, float* times, unsigned char* links,
        INDEX* pieces) {
    INDEX size = n_z * n_y * n_x;
    for (Long i = (Long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (Long)gridDim.x * THREADS) {
        INDEX at = (INDEX)i, piece = at;
        unsigned near = 0;
        float t = NOWHERE;
        if (labels[at]) {
            near = WITHIN;
            double touch = half_step(labels, source, {n_z, n_y, n_x}, at, {h_z, h_y, h_x}, interfaces, near);
            if (source[at]) touch = 0.0;
            if (touch < NEVER) near |= STARTS;
            t = centres ? (float)(touch / speed_at(speed, varies, at)) : NEVER;
            piece = near & 1 ? at - n_y * n_x : near & 4 ? at - n_x : near & 16 ? at - 1 : at;
        } else {
            piece = source[at] ? SOURCE : NOTHING;
        }
        links[at] = (unsigned char)near;
        times[at] = t;
        if (!centres) pieces[at] = piece;
    }
}

__device__ __forceinline__ INDEX root_of(const INDEX* pieces, INDEX v) {
    for (INDEX above = pieces[v]; above != v; above = pieces[v]) v = above;
    return v;
}

// Link every voxel to the root of its tree.
extern "C" __global__ void __launch_bounds__(THREADS)
flatten(INDEX* pieces, INDEX size) {
    for (Long i = (Long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (Long)gridDim.x * THREADS) {
        INDEX piece = pieces[i];
        if (piece < 0) continue;
        INDEX root = root_of(pieces, piece);
        if (root != piece) pieces[i] = root;
    }
}

__device__ __forceinline__ void unite(INDEX* pieces, INDEX a, INDEX b) {
    for (;;) {
        a = root_of(pieces, a), b = root_of(pieces, b);
        if (a == b) return;
        if (a < b) { INDEX c = a; a = b, b = c; }
        INDEX above = atomicMin(&pieces[a], b);
        if (above == a) return;  // it was a root, and is linked now
        a = above;  // it was none any more: what it was linked to has to be joined
    }
}

// Join each voxel to those before it, unless two that lie diagonally before it have been joined the other way round.
extern "C" __global__ void __launch_bounds__(THREADS)
join_pieces(const unsigned char* links, INDEX n_z, INDEX n_y, INDEX n_x, INDEX* pieces) {
    INDEX size = n_z * n_y * n_x, up = n_y * n_x;
    for (Long i = (Long)blockIdx.x * THREADS + threadIdx.x; i < size; i += (Long)gridDim.x * THREADS) {
        INDEX at = (INDEX)i;
        unsigned z = links[at] & 1, y = links[at] & 4, x = links[at] & 16;
        if (z && y && !((links[at - up] & 4) && (links[at - n_x] & 1))) unite(pieces, at, at - n_x);
        if (z && x && !((links[at - up] & 16) && (links[at - 1] & 1))) unite(pieces, at, at - 1);
        else if (!z && y && x && !((links[at - n_x] & 16) && (links[at - 1] & 4))) unite(pieces, at, at - 1);
    }
}

// List the tiles with times to start from, in a first round; first : for order 2 a copy of the times, or `times` itself.
// touch : whether what touches a source has to start, from half a step away if from nowhere else.
extern "C" __global__ void __launch_bounds__(THREADS)
list_tiles(const LABEL* labels, const unsigned char* source, const float* speed, int varies, INDEX n_z, INDEX n_y,
           INDEX n_x, double h_z, double h_y, double h_x, int interfaces, int touch, const unsigned char* links,
           float* times, float* first, int order, int round, int* counts, int* list, int* listed) {
    Grid grid = {n_z, n_y, n_x};
    INDEX z0, y0, x0;
    tile_corner(blockIdx.x, grid, z0, y0, x0);
    int started = 0;
    for (int k = threadIdx.x; k < TILE; k += THREADS) {
        INDEX z = z0 + k / (SIDE * SIDE), y = y0 + k / SIDE % SIDE, x = x0 + k % SIDE;
        if (z >= n_z || y >= n_y || x >= n_x) continue;
        INDEX at = (z * n_y + y) * n_x + x;
        float t = times[at];
        if (touch && !(t < NEVER) && (links[at] & STARTS)) {
            unsigned near = 0;
            double half = half_step(labels, source, grid, at, {h_z, h_y, h_x}, interfaces, near);
            times[at] = t = (float)(half / speed_at(speed, varies, at));
        }
        if (order == 2) first[at] = t;
        started |= t < NEVER;
    }
    started = __syncthreads_or(started);  // whether any thread of the block has seen one
    if (started && threadIdx.x == 0) list_tile(blockIdx.x, {round - 1, counts, 0, list, listed});
}

// ---- straight lines from the sources --------------------------------------------------------------------------------

#define BOX 5     // what a line passes lies in a box of 5^3 voxels about its start,
#define WORDS 4   // as bits in four words
#define AROUND 4  // voxels around a tile that its faces look at
#define REGION (SIDE + 2 * AROUND)
#define REGION_Z (REGION * REGION)

struct Lines { int n; const int *offsets, *first_way; const unsigned* over; };  // see `line_table` in cuda.py

__device__ __forceinline__ Lines lines_in(const int* table, int n) {
    return {n, table, table + 3 * n, (const unsigned*)(table + 4 * n + 1)};
}

// Whether something is a source outside for the piece `mine`.
__device__ __forceinline__ bool is_source(INDEX piece, INDEX mine, int interfaces) {
    return piece == SOURCE || (interfaces && piece >= 0 && piece != mine);
}

// The voxels about one that a line from it may pass: of its piece and speed, or in a source.
struct Free { unsigned word[WORDS]; };

// near : pieces, the voxel's at `at`, rows and slices so far apart; place : the voxel in the volume. For whole warps.
__device__ __forceinline__ Free free_about(
    const INDEX* near, int at, int apart_z, int apart_y, int interfaces, const float* speed, int varies, Grid grid, INDEX place) {
    Free free;
    INDEX mine = near[at];
    for (int w = 0; w < WORDS; w++) {
        int bit = 32 * w + threadIdx.x % 32, z = bit / (BOX * BOX) - 2, y = bit / BOX % BOX - 2, x = bit % BOX - 2;
        bool passes = false;
        if (bit < BOX * BOX * BOX) {
            INDEX piece = near[at + z * apart_z + y * apart_y + x];
            passes = is_source(piece, mine, interfaces)
                || (piece == mine && !(varies && speed[place + (z * grid.n_y + y) * grid.n_x + x] != speed[place]));
        }
        free.word[w] = __ballot_sync(EVERY, passes);
    }
    return free;
}

// Whether one of the ways to the voxel at offset o is free.
__device__ __forceinline__ bool in_sight(const Lines& lines, int o, const Free& free) {
    for (int way = lines.first_way[o]; way < lines.first_way[o + 1]; way++) {
        const unsigned* over = lines.over + WORDS * way;
        unsigned stopped = 0;
        for (int w = 0; w < WORDS; w++) stopped |= over[w] & ~free.word[w];
        if (!stopped) return true;
    }
    return false;
}

// The sum over a warp.
__device__ __forceinline__ int sum_of(int number) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    for (int by = 16; by > 0; by /= 2) number += __shfl_xor_sync(EVERY, number, by);
    return number;
#else
    return __reduce_add_sync(EVERY, number);
#endif
}

// A contact face of the voxel `at` of a region of pieces: steps outwards and along it, and the axes that they take.
struct Face { INDEX mine; int at, up, one, two, axis, axis_one, axis_two, sign; };

__device__ __forceinline__ Face face_of(const INDEX* near, int voxel, int side) {
    int axis = side / 2, sign = side % 2 * 2 - 1;
    int at = ((voxel / (SIDE * SIDE) + AROUND) * REGION + voxel / SIDE % SIDE + AROUND) * REGION + voxel % SIDE + AROUND;
    int up = axis == 0 ? REGION_Z : axis == 1 ? REGION : 1;
    return {near[at], at, sign * up, axis == 0 ? REGION : REGION_Z, axis == 2 ? REGION : 1,
            axis, axis == 0 ? 1 : 0, axis == 2 ? 1 : 2, sign};
}

// How far out the surface of the piece is in the column p, q beside a face: the nearest one, or TOO_FAR.
__device__ __forceinline__ int surface_height(const INDEX* near, const Face& face, int p, int q) {
    int column = face.at + p * face.one + q * face.two;
    unsigned own = 0;  // bit h + 3: the piece at height h
    for (int h = 0; h < 8; h++) own |= (unsigned)(near[column + (h - 3) * face.up] == face.mine) << h;
    unsigned ends = own & ~(own >> 1);
    for (int m = 0; m < 7; m++) {  // 0, 1, -1, 2, -2, ...
        int height = m % 2 ? (m + 1) / 2 : -(m / 2);
        if (ends >> (height + 3) & 1) return height;
    }
    return TOO_FAR;
}

// What a plane through the surface in the columns around a face is made of: sums over them, and weighted ones.
struct Heights { int n, p, q, pp, pq, qq, h, hp, hq, near, near_p, near_q, near_h; };

// A lane has a column each. For whole warps.
__device__ __forceinline__ void sum_heights(const INDEX* near, const Face& face, Heights* sums) {
    int lane = threadIdx.x % 32, p = lane / 5 - 2, q = lane % 5 - 2, weight = 5 - p * p - q * q, height = TOO_FAR;
    if (lane < 25 && weight >= -1) height = surface_height(near, face, p, q);
    int is = height != TOO_FAR, h = is ? height : 0;
    p *= is, q *= is, weight *= is;
    Heights all = {sum_of(is), sum_of(p), sum_of(q), sum_of(p * p), sum_of(p * q), sum_of(q * q), sum_of(h), sum_of(h * p),
                   sum_of(h * q), sum_of(weight), sum_of(weight * p), sum_of(weight * q), sum_of(weight * h)};
    if (lane == 0) *sums = all;
}

// The faces of outside sources to what is none, within 3 voxels of a voxel: how many, the sum of their normals, twice the
// sum of their middles, four times that of the products of these: zz, zy, zx, yy, yx, xx.
struct Rim { int n, normal[3], middle[3], product[6]; };

// Eleven voxels for each lane. For whole warps.
__device__ __forceinline__ void sum_rim(const INDEX* near, const Face& face, int interfaces, Rim* sums) {
    Rim own = {0, {0, 0, 0}, {0, 0, 0}, {0, 0, 0, 0, 0, 0}};
#pragma unroll 1
    for (int k = threadIdx.x % 32; k < 343; k += 32) {
        int place[3] = {k / 49 - 3, k / 7 % 7 - 3, k % 7 - 3};
        int at = face.at + (place[0] * REGION + place[1]) * REGION + place[2];
        if (!is_source(near[at], face.mine, interfaces)) continue;
        int n = 0, normal[3], faces[3];
        for (int axis = 0; axis < 3; axis++) {
            int step = axis == 0 ? REGION_Z : axis == 1 ? REGION : 1;
            INDEX below = near[at - step], above = near[at + step];
            int down = below != face.mine && !is_source(below, face.mine, interfaces);
            int up = above != face.mine && !is_source(above, face.mine, interfaces);
            normal[axis] = up - down, faces[axis] = up + down, n += up + down;
        }
        own.n += n;
        for (int a = 0, m = 0; a < 3; a++) {  // a face's middle is its voxel's place and half its normal
            own.normal[a] += normal[a], own.middle[a] += 2 * place[a] * n + normal[a];
            for (int b = a; b < 3; b++, m++)
                own.product[m] += 4 * place[a] * place[b] * n + 2 * (place[a] * normal[b] + place[b] * normal[a])
                    + (a == b ? faces[a] : 0);
        }
    }
    Rim all;
    all.n = sum_of(own.n);
    for (int a = 0; a < 3; a++) all.normal[a] = sum_of(own.normal[a]), all.middle[a] = sum_of(own.middle[a]);
    for (int m = 0; m < 6; m++) all.product[m] = sum_of(own.product[m]);
    if (threadIdx.x % 32 == 0) *sums = all;
}

// Outwards from a face and along it, as lengths or in voxels from the voxel's centre.
struct Vector { double up, one, two; };

__device__ __forceinline__ double dot(Vector a, Vector b) { return a.up * b.up + a.one * b.one + a.two * b.two; }

// A disc, as lengths; of it the part where ahead . (x - centre) <= end.
struct Disc { Vector centre, normal, ahead; double radius, end; };

// Plane through the surface in the columns around a contact face: height c there, slopes a and b. See cpu_start.py.
__device__ __forceinline__ void fit_heights(const Heights& s, double& c, double& a, double& b) {
    double s_11 = s.pp + 1e-6, s_22 = s.qq + 1e-6;  // no slope across a single row of faces
    double d_11 = s.n * s_11 - s.p * s.p, d_12 = s.n * s.pq - s.p * s.q, d_22 = s.n * s_22 - s.q * s.q;
    double e_1 = s.n * s.hp - s.p * s.h, e_2 = s.n * s.hq - s.q * s.h, det = d_11 * d_22 - d_12 * d_12;
    det = 1.0 / det;
    a = (e_1 * d_22 - e_2 * d_12) * det, b = (e_2 * d_11 - e_1 * d_12) * det;
    c = min(max((s.near_h - a * s.near_p - b * s.near_q) / s.near, -0.5), 0.5);
}

// Where the source around a voxel ends: the plane normal . x = offset, in voxels from the voxel, along z, y, x.
struct Plane { double normal[3], offset; };

// It passes the middle of the faces of outside sources to what is none; its normal is the sum of these faces, turned to
// where they are: it minimises the sum of (normal . (face - middle))^2 plus STIFF |normal - sum|^2. 0 if nowhere.
__device__ __forceinline__ Plane fit_rim(const Rim& s) {
    double many = s.n > 0 ? s.n : 1;
    double zz = 0.25 * (s.product[0] - s.middle[0] * s.middle[0] / many) + STIFF;
    double zy = 0.25 * (s.product[1] - s.middle[0] * s.middle[1] / many);
    double zx = 0.25 * (s.product[2] - s.middle[0] * s.middle[2] / many);
    double yy = 0.25 * (s.product[3] - s.middle[1] * s.middle[1] / many) + STIFF;
    double yx = 0.25 * (s.product[4] - s.middle[1] * s.middle[2] / many);
    double xx = 0.25 * (s.product[5] - s.middle[2] * s.middle[2] / many) + STIFF;
    double a_zy = zx * yx - zy * xx, a_zx = zy * yx - zx * yy, a_yx = zy * zx - zz * yx;  // of the adjugate
    double z = (yy * xx - yx * yx) * s.normal[0] + a_zy * s.normal[1] + a_zx * s.normal[2];
    double y = a_zy * s.normal[0] + (zz * xx - zx * zx) * s.normal[1] + a_yx * s.normal[2];
    double x = a_zx * s.normal[0] + a_yx * s.normal[1] + (zz * yy - zy * zy) * s.normal[2];
    return {{z, y, x}, (z * s.middle[0] + y * s.middle[1] + x * s.middle[2]) / (2.0 * many)};
}

__device__ __forceinline__ double along(Steps h, int axis) { return axis == 0 ? h.z : axis == 1 ? h.y : h.x; }

// The piece of surface behind a contact face, all of it. False if another face represents it better.
__device__ __forceinline__ bool place_disc(const Face& face, const Heights& heights, Steps steps, Disc& disc, bool& flat) {
    double c, a, b, h_up = along(steps, face.axis), h_one = along(steps, face.axis_one);
    double h_two = along(steps, face.axis_two);
    fit_heights(heights, c, a, b);
    bool good = a * a + b * b <= STEEP;
    flat = fabs(a) < 1e-12 && fabs(b) < 1e-12;
    double g = 1.0 / h_up, g_1 = -a / h_one, g_2 = -b / h_two;  // the plane: out - a p - b q = 1/2 + c
    double less = 1.0 / sqrt(g * g + g_1 * g_1 + g_2 * g_2), off = (0.5 - c) * less;
    disc.ahead = {0.0, 0.0, 0.0}, disc.end = NEVER, disc.radius = DISC * sqrt(h_one * h_two);
    disc.normal = {g * less, g_1 * less, g_2 * less};
    disc.centre = {h_up - off * disc.normal.up, -off * disc.normal.one, -off * disc.normal.two};  // the source voxel's
    return good;
}

// Cut a disc off where its source ends, at a plane. False if none of it is left. outwards : along the sum of the faces
// that the plane is made of; flat : whether the disc is level with its face.
__device__ __forceinline__ bool end_disc(
    const INDEX* near, const Face& face, const Plane& plane, int outwards, bool flat, Steps steps, int interfaces, Disc& disc) {
    Vector rim = {face.sign * plane.normal[face.axis], plane.normal[face.axis_one], plane.normal[face.axis_two]};
    Vector r = {rim.up / along(steps, face.axis), rim.one / along(steps, face.axis_one), rim.two / along(steps, face.axis_two)};
    double beyond = max(plane.offset, rim.up);  // the source voxel is not beyond
    double out = dot(r, disc.normal), end = beyond - dot(r, disc.centre);
    r = {r.up - out * disc.normal.up, r.one - out * disc.normal.one, r.two - out * disc.normal.two};
    double slope = sqrt(dot(r, r));
    if (slope <= 1e-9 * fabs(out)) return true;  // no rim, or the source is a film
    double less = 1.0 / slope;
    disc.ahead = {r.up * less, r.one * less, r.two * less};
    disc.end = end * less;
    bool along_one = fabs(disc.ahead.one) >= fabs(disc.ahead.two) - EVEN;
    int p = !along_one ? 0 : disc.ahead.one < 0.0 ? -1 : 1, q = along_one ? 0 : disc.ahead.two < 0.0 ? -1 : 1;
    int height = surface_height(near, face, p, q);
    INDEX behind = height == TOO_FAR ? SOURCE : near[face.at + p * face.one + q * face.two + (height + 1) * face.up];
    bool stops = !is_source(behind, face.mine, interfaces);
    double past = rim.up * (height + 1) + rim.one * p + rim.two * q - beyond;
    if (stops && past > EVEN * (fabs(rim.up) + fabs(rim.one) + fabs(rim.two))) {
        double size = disc.radius / DISC, shift = SHIFT * size;  // no source voxel fits between the rim and the surface
        disc.centre.up += shift * disc.ahead.up, disc.centre.one += shift * disc.ahead.one;
        disc.centre.two += shift * disc.ahead.two, disc.end -= shift, disc.radius += WIDEN * size;
    } else if (flat && outwards >= 0) {
        disc.end = NEVER;  // a flat face ends with its last voxel, unless overhung
    }
    return disc.end > -disc.radius;
}

__device__ __forceinline__ double disc_distance(const Disc& disc, Vector x) {
    Vector d = {x.up - disc.centre.up, x.one - disc.centre.one, x.two - disc.centre.two};
    double e = dot(disc.normal, d), flat = max(dot(d, d) - e * e, 0.0), far = sqrt(flat), off = far - disc.radius, past = 0.0;
    if (disc.end < disc.radius) {
        double ahead = dot(disc.ahead, d);
        if (ahead * disc.radius > disc.end * max(far, disc.radius)) {  // so is the nearest point of the whole disc
            off = sqrt(max(flat - ahead * ahead, 0.0)) - sqrt(disc.radius * disc.radius - disc.end * disc.end);
            past = ahead - disc.end;
        }
    }
    off = max(off, 0.0);
    return sqrt(e * e + off * off + past * past);
}

__device__ __forceinline__ double square_distance(double up, double one, double two, Vector x) {
    double e = x.up - 0.5 * up, off_1 = max(fabs(x.one) - 0.5 * one, 0.0), off_2 = max(fabs(x.two) - 0.5 * two, 0.0);
    return sqrt(e * e + off_1 * off_1 + off_2 * off_2);
}

// Give the voxels within `band` of a source, and every voxel that touches one, their straight-line time. A block has a
// tile. Of so many contact faces at once a warp each sums up what lies around them; a thread each finds their disc; and a
// warp each times the voxels close to it. Faces of one voxel share the sums of its rim.
// times : their bits, which are in the order of the times.
extern "C" __global__ void __launch_bounds__(THREADS, START_BLOCKS)
start_lines(const unsigned char* source, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
            double h_z, double h_y, double h_x, int interfaces, const unsigned char* links, const INDEX* pieces,
            const int* table, int n_offsets, int fit, double band, int* times) {
    __shared__ INDEX near[REGION * REGION * REGION];
    __shared__ unsigned short faces[7 * TILE];  // seven times the voxel in the tile, and the side; 6 is a source inside
    __shared__ int n_faces;
    __shared__ Heights heights[FITTED];
    __shared__ Rim rims[FITTED];
    __shared__ Plane planes[FITTED];
    __shared__ Disc discs[FITTED];
    __shared__ bool useful[FITTED];
    Grid grid = {n_z, n_y, n_x};
    Lines lines = lines_in(table, n_offsets);
    Steps h = {h_z, h_y, h_x};
    INDEX z0, y0, x0;
    tile_corner(blockIdx.x, grid, z0, y0, x0);
    int starts = 0;
    for (int e = threadIdx.x; e < TILE; e += THREADS) {
        INDEX z = z0 + e / (SIDE * SIDE), y = y0 + e / SIDE % SIDE, x = x0 + e % SIDE;
        if (z < n_z && y < n_y && x < n_x) starts |= links[(z * n_y + y) * n_x + x] & STARTS;
    }
    if (threadIdx.x == 0) n_faces = 0;
    if (!__syncthreads_or(starts)) return;  // the whole block; and the list is empty before one adds to it
    load_tile(pieces, (INDEX)NOTHING, grid, z0, y0, x0, AROUND, near);
    __syncthreads();  // the region is there
    for (int e = threadIdx.x; e < TILE; e += THREADS) {
        INDEX z = z0 + e / (SIDE * SIDE), y = y0 + e / SIDE % SIDE, x = x0 + e % SIDE;
        bool inside = z < n_z && y < n_y && x < n_x;
        if (!inside || !(links[(z * n_y + y) * n_x + x] & STARTS)) continue;
        unsigned sides = source[(z * n_y + y) * n_x + x] ? 64 : 0;
        for (int side = 0; side < 6; side++) {
            Face face = face_of(near, e, side);
            sides |= (unsigned)is_source(near[face.at + face.up], face.mine, interfaces) << side;
        }
        for (int to = atomicAdd(&n_faces, __popc(sides)); sides; sides &= sides - 1) faces[to++] = e * 7 + __ffs(sides) - 1;
    }
    __syncthreads();  // the list is complete
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int begin = 0; begin < n_faces; begin += FITTED) {
        int n = min(FITTED, n_faces - begin);
        for (int f = warp; f < n && fit; f += THREADS / 32) {
            int voxel = faces[begin + f] / 7, side = faces[begin + f] % 7;
            if (side == 6) continue;
            Face face = face_of(near, voxel, side);
            sum_heights(near, face, &heights[f]);
            if (f == 0 || faces[begin + f - 1] / 7 != voxel) sum_rim(near, face, interfaces, &rims[f]);
        }
        __syncthreads();  // the sums are there
        if (threadIdx.x < FITTED) {
            int f = min((int)threadIdx.x, n - 1), first = f, voxel = faces[begin + f] / 7, side = faces[begin + f] % 7;
            bool fits = (int)threadIdx.x < n && fit && side < 6, flat = false;
            while (first > 0 && faces[begin + first - 1] / 7 == voxel) first--;
            Face face = face_of(near, voxel, side);
            if (fits && first == f) planes[f] = fit_rim(rims[f]);
            bool good = !fits || place_disc(face, heights[f], h, discs[f], flat);
            __syncwarp();  // the planes are there: FITTED threads are one warp
            if (fits && good) {
                int outwards = face.sign * rims[first].normal[face.axis];
                good = end_disc(near, face, planes[first], outwards, flat, h, interfaces, discs[f]);
            }
            if ((int)threadIdx.x < n) useful[f] = good;
        }
        __syncthreads();  // the discs are there
        for (int f = warp; f < n; f += THREADS / 32) {
            if (!useful[f]) continue;
            int voxel = faces[begin + f] / 7, side = faces[begin + f] % 7;
            Face face = face_of(near, voxel, side);
            INDEX z = z0 + voxel / (SIDE * SIDE), y = y0 + voxel / SIDE % SIDE, x = x0 + voxel % SIDE;
            INDEX at = (z * n_y + y) * n_x + x;
            double h_up = along(h, face.axis), h_one = along(h, face.axis_one), h_two = along(h, face.axis_two);
            Free free = free_about(near, face.at, REGION_Z, REGION, interfaces, speed, varies, grid, at);
            for (int o = lane; o < n_offsets; o += 32) {
                int d[3] = {lines.offsets[3 * o], lines.offsets[3 * o + 1], lines.offsets[3 * o + 2]};
                if (near[face.at + (d[0] * REGION + d[1]) * REGION + d[2]] != face.mine) continue;
                INDEX to = at + (d[0] * n_y + d[1]) * n_x + d[2];
                if (varies && speed[to] != speed[at]) continue;
                double far[3] = {d[0] * h_z, d[1] * h_y, d[2] * h_x}, distance;
                if (side == 6) {
                    distance = sqrt(far[0] * far[0] + far[1] * far[1] + far[2] * far[2]);
                } else {
                    double one = face.axis == 0 ? far[1] : far[0], two = face.axis == 2 ? far[1] : far[2];
                    Vector place = {face.sign * (face.axis == 0 ? far[0] : face.axis == 1 ? far[1] : far[2]), one, two};
                    distance = fit ? disc_distance(discs[f], place) : square_distance(h_up, h_one, h_two, place);
                }
                if (o > 0 && distance > band) continue;
                int t = bits_of((float)(distance / speed_at(speed, varies, to)));
                if (t < times[to] && in_sight(lines, o, free)) atomicMin(&times[to], t);
            }
        }
        __syncthreads();  // all have read what the next discs overwrite
    }
}

// ---- the difference equation ----------------------------------------------------------------------------------------

// In single precision to two units in the last place, without the cases that a full root calls a function for.
__device__ __forceinline__ double square_root(double number) { return number > 0 ? sqrt(number) : 0; }
__device__ __forceinline__ float square_root(float number) { return number > 0 ? number * rsqrtf(number) : 0; }

// The t with a1 (t-b1)+^2 + a2 (t-b2)+^2 + a3 (t-b3)+^2 = rhs, (.)+ the positive part; inf if all b are inf.
template <class Number>
__device__ __forceinline__ Number upwind_root(
    Number a1, float b1, Number a2, float b2, Number a3, float b3, Number rhs) {
    if (b2 < b1) { Number a = a1; float b = b1; a1 = a2, b1 = b2, a2 = a, b2 = b; }
    if (b3 < b2) { Number a = a2; float b = b2; a2 = a3, b2 = b3, a3 = a, b3 = b; }
    if (b2 < b1) { Number a = a1; float b = b1; a1 = a2, b1 = b2, a2 = a, b2 = b; }
    Number d2 = (Number)b2 - (Number)b1, d3 = (Number)b3 - (Number)b1, s = a1, m = 0, r = -rhs;
    if (a1 * d2 * d2 < rhs) {
        s += a2, m = a2 * d2, r = a2 * d2 * d2 - rhs;
        if (s * d3 * d3 - 2 * m * d3 + r < 0) s += a3, m += a3 * d3, r += a3 * d3 * d3;
    }
    Number rest = m * m - s * r;
    return (Number)b1 + (m + square_root(rest)) / s;
}

// The earlier of two opposite neighbours, of those with the same label.
__device__ __forceinline__ float earlier(const float* t, int at, int step, unsigned links) {
    float below = links & 1 ? t[at - step] : NEVER, above = links & 2 ? t[at + step] : NEVER;
    return above < below ? above : below;
}

#define EDGE (SIDE + 2)
#define CORNER (EDGE * EDGE + EDGE + 1)  // where the tile begins in what is loaded

extern "C" __global__ void __launch_bounds__(THREADS, 4)
march(float* times, const unsigned char* links, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
      double w_z, double w_y, double w_x, double latest, int round, int* counts, const int* list, int* next, int* listed) {
    __shared__ float t[EDGE * EDGE * EDGE];
    __shared__ unsigned woken;  // bits 0 to 5: the tile beside; AGAIN: this one
    Grid grid = {n_z, n_y, n_x};
    Work work = {round, counts, list, next, listed};
    if (blockIdx.x == 0 && threadIdx.x == 0) counts[(round + 2) % 3] = 0;
    int n_jobs = counts[round % 3];
    int z = threadIdx.x / (SIDE * SIDE / 2), y = threadIdx.x / (SIDE / 2) % SIDE, x_even = threadIdx.x % (SIDE / 2) * 2;
    for (int job = blockIdx.x; job < n_jobs; job += gridDim.x) {
        int tile = list[job];
        INDEX z0, y0, x0;
        tile_corner(tile, grid, z0, y0, x0);
        load_tile(times, NEVER, grid, z0, y0, x0, 1, t);
        if (threadIdx.x == 0) woken = 0;
        INDEX row = ((z0 + z) * n_y + y0 + y) * n_x + x0;
        bool inside = z < n_z - z0 && y < n_y - y0;
        unsigned near[2];
        double rhs[2];
        float seen[2][3];
        for (int colour = 0; colour < 2; colour++) {
            int x = x_even + ((z + y + colour) & 1);
            near[colour] = inside && x < n_x - x0 ? links[row + x] : 0;
            double v = near[colour] ? speed_at(speed, varies, row + x) : 1.0;
            rhs[colour] = 1.0 / (v * v);
            for (int axis = 0; axis < 3; axis++) seen[colour][axis] = NOWHERE;  // equal to nothing
        }
        __syncthreads();  // the tile is loaded before it is read

        unsigned improved = 0;
        int changed = 1;
        for (int turn = 0; turn < TURNS && changed; turn++) {
            changed = 0;
            for (int colour = 0; colour < 2; colour++) {
                int at = (z * EDGE + y) * EDGE + x_even + ((z + y + colour) & 1) + CORNER;
                float b_z = earlier(t, at, EDGE * EDGE, near[colour]), b_y = earlier(t, at, EDGE, near[colour] >> 2);
                float b_x = earlier(t, at, 1, near[colour] >> 4);
                bool news = b_z != seen[colour][0] || b_y != seen[colour][1] || b_x != seen[colour][2];
                if (news && (b_z < t[at] || b_y < t[at] || b_x < t[at])) {
                    float found = (float)upwind_root(w_z, b_z, w_y, b_y, w_x, b_x, rhs[colour]);
                    if (found < t[at] && found <= latest) t[at] = found, changed = 1, improved |= 1u << colour;
                }
                seen[colour][0] = b_z, seen[colour][1] = b_y, seen[colour][2] = b_x;
                if (colour == 0) __syncthreads();  // one colour is written before the other reads it
            }
            changed = __syncthreads_or(changed);  // and back again; all leave the loop together
        }

        unsigned wakes = changed ? AGAIN : 0;
        for (int colour = 0; colour < 2; colour++) {
            if (!(improved >> colour & 1)) continue;
            int x = x_even + ((z + y + colour) & 1), at = (z * EDGE + y) * EDGE + x + CORNER;
            times[row + x] = t[at];
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

#define REACH 2
#define WIDE (SIDE + 2 * REACH)
#define CENTRE ((REACH * WIDE + REACH) * WIDE + REACH)  // where the tile begins in what is loaded
#define GROUPS (TILE / 32)  // of 32 voxels that follow one another in a tile
#define LINES 81            // voxels within 2.5 of the shortest steps, the voxel itself among them
#define LINE_WORDS 3        // a bit for each of them

// Times that order 1 does not beat stay; the others of the domain wait. left : (tiles,) how many wait in each.
// look : whether those of them at a wall look along lines: LOOKS takes the place of STARTS in their links then, and
// row (tiles,) is the first one's place in a list of all, n_rows long. SECOND takes the place of WITHIN.
extern "C" __global__ void __launch_bounds__(TILE)
wait_for_second(float* times, const float* first, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
                double keep, int look, unsigned char* links, int* left, Long* row, unsigned long long* n_rows, int round,
                int* counts, int* list, int* listed) {
    Grid grid = {n_z, n_y, n_x};
    INDEX z0, y0, x0;
    tile_corner(blockIdx.x, grid, z0, y0, x0);
    INDEX z = z0 + threadIdx.x / (SIDE * SIDE), y = y0 + threadIdx.x / SIDE % SIDE, x = x0 + threadIdx.x % SIDE;
    bool waits = false, looks = false;
    if (z < n_z && y < n_y && x < n_x) {
        INDEX at = (z * n_y + y) * n_x + x;
        double start = times[at];
        unsigned sides = links[at];
        waits = first[at] < NEVER && first[at] < start - keep / speed_at(speed, varies, at);
        looks = waits && look && (sides & 63) != 63;
        if (waits) times[at] = WAITS;
        if (sides) links[at] = (unsigned char)((sides & 63) | (looks ? LOOKS : 0) | (waits ? SECOND : 0));
    }
    int total = __syncthreads_count(waits), total_looks = __syncthreads_count(looks);  // over the block
    if (threadIdx.x == 0) {
        left[blockIdx.x] = total;
        if (total) list_tile(blockIdx.x, {round - 1, counts, 0, list, listed});
        if (total_looks) row[blockIdx.x] = (Long)atomicAdd(n_rows, (unsigned long long)total_looks);
    }
}

__device__ __forceinline__ int place_in_tile(int voxel) {
    return ((voxel / (SIDE * SIDE)) * WIDE + voxel / SIDE % SIDE) * WIDE + voxel % SIDE + CENTRE;
}

// The place of a voxel among those of its tile that look along lines, which are the bits of `looking`.
__device__ __forceinline__ int rank_in_tile(const unsigned* looking, int voxel) {
    int rank = __popc(looking[voxel / 32] & ((1u << voxel % 32) - 1));
    for (int group = 0; group < voxel / 32; group++) rank += __popc(looking[group]);
    return rank;
}

// For each voxel that looks along lines, along which: to those in sight that order 1 has found earlier, by more than the
// line and a margin. A block has a tile, a warp a voxel. drawn : (n_rows, LINE_WORDS), a bit for each line.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
draw_lines(const float* first, const unsigned char* links, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
           double h_z, double h_y, double h_x, int interfaces, const INDEX* pieces, const int* table, int n_offsets,
           const Long* row, unsigned* drawn) {
    __shared__ float arrival[WIDE * WIDE * WIDE];
    __shared__ INDEX near[WIDE * WIDE * WIDE];
    __shared__ unsigned looking[GROUPS];
    Grid grid = {n_z, n_y, n_x};
    Lines lines = lines_in(table, n_offsets);
    INDEX z0, y0, x0;
    tile_corner(blockIdx.x, grid, z0, y0, x0);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, some = 0;
    for (int group = warp; group < GROUPS; group += THREADS / 32) {
        int voxel = 32 * group + lane;
        INDEX z = z0 + voxel / (SIDE * SIDE), y = y0 + voxel / SIDE % SIDE, x = x0 + voxel % SIDE;
        bool inside = z < n_z && y < n_y && x < n_x;
        unsigned looks = __ballot_sync(EVERY, inside && (links[(z * n_y + y) * n_x + x] & LOOKS));
        if (lane == 0) looking[group] = looks;
        some |= looks != 0;
    }
    if (!__syncthreads_or(some)) return;  // the whole block
    load_tile(first, NEVER, grid, z0, y0, x0, REACH, arrival);
    load_tile(pieces, (INDEX)NOTHING, grid, z0, y0, x0, REACH, near);
    __syncthreads();  // the tile is loaded before it is read
    double margin = EARLIER * min(h_z, min(h_y, h_x));
    for (int group = warp; group < GROUPS; group += THREADS / 32) {
        for (unsigned looks = looking[group]; looks; looks &= looks - 1) {
            int voxel = 32 * group + __ffs(looks) - 1, at = place_in_tile(voxel);
            INDEX z = z0 + voxel / (SIDE * SIDE), y = y0 + voxel / SIDE % SIDE, x = x0 + voxel % SIDE;
            INDEX place = (z * n_y + y) * n_x + x;
            double slowness = 1.0 / speed_at(speed, varies, place), latest = arrival[at] - margin * slowness;
            Free free = free_about(near, at, WIDE * WIDE, WIDE, interfaces, speed, varies, grid, place);
            for (int w = 0; w < LINE_WORDS; w++) {
                int o = 32 * w + lane;
                bool is = o > 0 && o < n_offsets;
                if (is) {
                    int d_z = lines.offsets[3 * o], d_y = lines.offsets[3 * o + 1], d_x = lines.offsets[3 * o + 2];
                    int from = at + (d_z * WIDE + d_y) * WIDE + d_x;
                    double z_way = d_z * h_z, y_way = d_y * h_y, x_way = d_x * h_x;
                    double line = sqrt(z_way * z_way + y_way * y_way + x_way * x_way);
                    is = near[from] == near[at] && arrival[from] + line * slowness < latest
                        && !(varies && speed[place + (d_z * n_y + d_y) * n_x + d_x] != speed[place])
                        && in_sight(lines, o, free);
                }
                unsigned word = __ballot_sync(EVERY, is);
                if (lane == 0) drawn[(row[blockIdx.x] + rank_in_tile(looking, voxel)) * LINE_WORDS + w] = word;
            }
        }
    }
}

// Weight and base of the difference along one axis, base inf if no neighbour is upwind; false if it has to wait.
// looks : bits 0 and 1: the voxels below and above are upwind; bits 6 and 7: those behind them, too. Of both that below
// is taken unless that above is earlier by `tie`, and one behind counts only where it is: rounding does not choose.
__device__ __forceinline__ bool second_difference(
    const float* t, int at, int step, unsigned looks, float tie, float& weight, float& base) {
    float below = looks & 1 ? t[at - step] : NEVER, above = looks & 2 ? t[at + step] : NEVER;
    if (below == WAITS || above == WAITS) return false;
    bool up = above < below - tie;
    float near = up ? above : below;
    base = near;
    if (looks >> (up ? 7 : 6) & 1) {
        float far = t[up ? at + 2 * step : at - 2 * step];
        if (far == WAITS) return false;
        if (far < near - tie) weight *= 2.25f, base += (near - far) * (1.0f / 3.0f);
    }
    return true;
}

__device__ __forceinline__ unsigned tile_bit(int z, int y, int x) { return 1u << (9 * z + 3 * y + x + 13); }

extern "C" __global__ void __launch_bounds__(TILE, 3)
second(float* times, const float* first, const unsigned char* links, const float* speed, int varies,
       INDEX n_z, INDEX n_y, INDEX n_x, float h_z, float h_y, float h_x, const int* table, int n_offsets,
       const Long* row, const unsigned* drawn, float w_z, float w_y, float w_x, int* left,
       int round, int* counts, const int* list, int* next, int* listed) {
    __shared__ float t[WIDE * WIDE * WIDE], arrival[WIDE * WIDE * WIDE];
    __shared__ short steps[LINES];
    __shared__ float lengths[LINES];
    __shared__ unsigned looking[GROUPS];
    __shared__ unsigned woken;  // see tile_bit
    Grid grid = {n_z, n_y, n_x};
    Work work = {round, counts, list, next, listed};
    if (blockIdx.x == 0 && threadIdx.x == 0) counts[(round + 2) % 3] = 0;
    int n_jobs = counts[round % 3];
    if ((int)blockIdx.x >= n_jobs) return;  // the whole block
    for (int o = threadIdx.x; o < n_offsets; o += TILE) {
        const int* d = table + 3 * o;
        float d_z = d[0] * h_z, d_y = d[1] * h_y, d_x = d[2] * h_x;
        steps[o] = (short)((d[0] * WIDE + d[1]) * WIDE + d[2]), lengths[o] = sqrtf(d_z * d_z + d_y * d_y + d_x * d_x);
    }
    int at = place_in_tile(threadIdx.x);
    for (int job = blockIdx.x; job < n_jobs; job += gridDim.x) {
        int tile = list[job];
        INDEX z0, y0, x0;
        tile_corner(tile, grid, z0, y0, x0);
        load_tile(times, NEVER, grid, z0, y0, x0, REACH, t);
        load_tile(first, NEVER, grid, z0, y0, x0, REACH, arrival);
        INDEX z = z0 + threadIdx.x / (SIDE * SIDE), y = y0 + threadIdx.x / SIDE % SIDE, x = x0 + threadIdx.x % SIDE;
        INDEX place = (z * n_y + y) * n_x + x;
        bool inside = z < n_z && y < n_y && x < n_x;
        unsigned sides = inside ? links[place] : 0, looks_along = __ballot_sync(EVERY, (sides & LOOKS) != 0);
        if (threadIdx.x % 32 == 0) looking[threadIdx.x / 32] = looks_along;
        if (threadIdx.x == 0) woken = 0;
        __syncthreads();  // the tile is loaded before it is read

        bool waits = inside && t[at] == WAITS, solved = false;
        float slowness = waits && varies ? 1.0f / speed[place] : 1.0f, tie = (float)TIE * slowness;
        unsigned looks = 0;  // see second_difference, two bits for each axis
        unsigned lines[LINE_WORDS] = {0, 0, 0};  // that are still to be looked along
        float along = NEVER;  // the earliest time along those that were
        if (waits) {
            for (int side = 0; side < 6; side++) {
                int axis = side / 2, way = side % 2 * 2 - 1, step = way * (axis == 0 ? WIDE * WIDE : axis == 1 ? WIDE : 1);
                INDEX stride = way * (axis == 0 ? n_y * n_x : axis == 1 ? n_x : 1);
                float apart = (float)EARLIER * slowness * (axis == 0 ? h_z : axis == 1 ? h_y : h_x);
                if (!(sides >> side & 1) || !(arrival[at + step] < arrival[at] - apart)) continue;
                looks |= 1u << side;
                bool reaches = links[place + stride] >> side & 1;
                if (reaches && arrival[at + 2 * step] < arrival[at + step] - apart) looks |= 64u << side;
            }
            if (sides & LOOKS) {
                const unsigned* mine = drawn + (row[tile] + rank_in_tile(looking, threadIdx.x)) * LINE_WORDS;
                for (int w = 0; w < LINE_WORDS; w++) lines[w] = mine[w];
            }
        }

        for (int moved = 1; moved;) {
            float a_z = w_z, a_y = w_y, a_x = w_x, b_z = 0.0f, b_y = 0.0f, b_x = 0.0f;
            bool ready = waits && second_difference(t, at, WIDE * WIDE, looks, tie * h_z, a_z, b_z)
                && second_difference(t, at, WIDE, looks >> 2, tie * h_y, a_y, b_y)
                && second_difference(t, at, 1, looks >> 4, tie * h_x, a_x, b_x);
            for (int w = 0; w < LINE_WORDS; w++) {
                while (ready && lines[w]) {
                    int o = 32 * w + __ffs(lines[w]) - 1;
                    float begin = t[at + steps[o]];
                    if (begin == WAITS) ready = false;
                    else along = min(along, begin + lengths[o] * slowness), lines[w] &= lines[w] - 1;
                }
            }
            float time = arrival[at];  // where rounding hides who is earlier
            if (ready && (looks & 63)) time = upwind_root(a_z, b_z, a_y, b_y, a_x, b_x, slowness * slowness);
            __syncthreads();  // all have read before one writes
            if (ready) {
                t[at] = times[place] = min(time, along);
                waits = false, solved = true;
            }
            moved = __syncthreads_or(ready);  // all is written before it is read; all leave the loop together
        }
        if (solved) {
            int z = threadIdx.x / (SIDE * SIDE), y = threadIdx.x / SIDE % SIDE, x = threadIdx.x % SIDE;
            int s_z = (z >= SIDE - REACH) - (z < REACH), s_y = (y >= SIDE - REACH) - (y < REACH);
            int s_x = (x >= SIDE - REACH) - (x < REACH);
            unsigned wakes = tile_bit(s_z, 0, 0) | tile_bit(0, s_y, 0) | tile_bit(0, 0, s_x);
            if (n_offsets > 1)
                wakes |= tile_bit(s_z, s_y, 0) | tile_bit(s_z, 0, s_x) | tile_bit(0, s_y, s_x) | tile_bit(s_z, s_y, s_x);
            atomicOr(&woken, wakes);
        }
        int total = __syncthreads_count(waits);  // over the block; and all wishes are known
        if (threadIdx.x == 0) left[tile] = total;
        if (threadIdx.x < 27 && threadIdx.x != 13 && (woken >> threadIdx.x & 1)) {
            int t_z = threadIdx.x / 9 - 1, t_y = threadIdx.x / 3 % 3 - 1, t_x = threadIdx.x % 3 - 1;
            bool inside = z0 + t_z * SIDE >= 0 && z0 + t_z * SIDE < n_z && y0 + t_y * SIDE >= 0 && y0 + t_y * SIDE < n_y;
            inside &= x0 + t_x * SIDE >= 0 && x0 + t_x * SIDE < n_x;
            int beside = inside ? tile_beside(tile, grid, t_z, t_y, t_x) : tile;
            if (inside && left[beside] > 0) list_tile(beside, work);
        }
        __syncthreads();  // all have read what the next tile overwrites
    }
}

// ---- at the end -----------------------------------------------------------------------------------------------------

// What is later than a neighbour by more than a step becomes earlier: see `cpu_steps.py`. all : whether every tile is
// looked at, a block for each; else those of the list. A step takes as long as the slower voxel of both says. Where the
// speed varies it may last longer to a voxel of SECOND from one that was earlier by order 1, until one of both has become
// earlier here: that one's `first` is inf from then on, and it is no longer of SECOND.
extern "C" __global__ void __launch_bounds__(TILE, 2)
hurry(float* times, float* first, unsigned char* links, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
      float h_z, float h_y, float h_x, int all, int round, int* counts, const int* list, int* next, int* listed) {
    __shared__ float t[EDGE * EDGE * EDGE];
    __shared__ unsigned woken;  // bits 0 to 5: the tile beside
    Grid grid = {n_z, n_y, n_x};
    Work work = {round, counts, list, next, listed};
    if (blockIdx.x == 0 && threadIdx.x == 0) counts[(round + 2) % 3] = 0;
    int n_jobs = all ? (int)gridDim.x : counts[round % 3];
    int z = threadIdx.x / (SIDE * SIDE), y = threadIdx.x / SIDE % SIDE, x = threadIdx.x % SIDE;
    int at = (z * EDGE + y) * EDGE + x + CORNER;
    for (int job = blockIdx.x; job < n_jobs; job += gridDim.x) {
        int tile = all ? job : list[job];
        INDEX z0, y0, x0;
        tile_corner(tile, grid, z0, y0, x0);
        INDEX place = ((z0 + z) * n_y + y0 + y) * n_x + x0 + x;
        bool inside = z < n_z - z0 && y < n_y - y0 && x < n_x - x0;
        unsigned sides = inside ? links[place] : 0;
        if (threadIdx.x == 0) woken = 0;
        if (!__syncthreads_or(sides & 63)) continue;  // the whole block
        load_tile(times, NEVER, grid, z0, y0, x0, 1, t);
        __syncthreads();  // the tile is loaded before it is read
        float longer = 1.0f + (float)SLACK, own = sides && varies ? 1.0f / speed[place] : 1.0f;
        bool fell = false;
        for (int moved = 1; moved;) {
            float found = t[at];
            for (int side = 0; side < 6; side++) {
                if (!(sides >> side & 1)) continue;
                int axis = side / 2, way = side % 2 * 2 - 1, step = way * (axis == 0 ? EDGE * EDGE : axis == 1 ? EDGE : 1);
                float h = axis == 0 ? h_z : axis == 1 ? h_y : h_x, slowness = own;
                if (varies) {
                    INDEX beside = place + way * (axis == 0 ? n_y * n_x : axis == 1 ? n_x : 1);
                    slowness = max(own, 1.0f / speed[beside]);
                    if ((sides & SECOND) && first[beside] < first[place] - (float)EARLIER * own * h) continue;
                }
                found = min(found, t[at + step] + h * longer * slowness);
            }
            bool falls = sides && found < t[at] && t[at] < NEVER;
            __syncthreads();  // all have read before one writes
            if (falls) {
                t[at] = times[place] = found;
                fell = true;
                if (varies) first[place] = NEVER, sides &= ~SECOND;
            }
            moved = __syncthreads_or(falls);  // all is written before it is read; all leave the loop together
        }
        if (fell) {
            links[place] = (unsigned char)sides;
            unsigned faces = (z == 0) | (z == SIDE - 1) << 1 | (y == 0) << 2 | (y == SIDE - 1) << 3 | (x == 0) << 4
                | (x == SIDE - 1) << 5;
            atomicOr(&woken, faces & sides);
        }
        __syncthreads();  // all wishes are known
        if (threadIdx.x < 6 && (woken >> threadIdx.x & 1)) {
            int side = threadIdx.x, way = side % 2 * 2 - 1;
            bool z_way = side / 2 == 0, y_way = side / 2 == 1, x_way = side / 2 == 2;
            list_tile(tile_beside(tile, grid, z_way * way, y_way * way, x_way * way), work);
        }
        __syncthreads();  // all have read what the next tile overwrites
    }
}

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
