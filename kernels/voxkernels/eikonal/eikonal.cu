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
//    straight-line times, by an atomic minimum, too.
// 3. list_tiles: the tiles with a time to start from; for order 2 a copy of the times.
// 4. march, in rounds: order 1, the upwind differences of Rouy and Tourin (1992). A thread has two voxels side by side
//    along x, one of each colour of a checkerboard, and the colours take turns: what is read is not written meanwhile.
//    A voxel is solved again only if a time that it looks at has changed. When nothing changes, or after so many turns,
//    new times are written; a neighbour tile is listed if one of its voxels is later than a new time beside it, the tile
//    itself if it was not done. Times only fall, so a tile that was read too early is listed again by who wrote too
//    late; the end is the one fixed point that fast marching finds.
// 5. wait_for_second: order 2 takes its voxels in the order of their order-1 arrival. Those whose straight-line time
//    stays are done, others wait (a time of -1).
// 6. second, in rounds: a waiting voxel is solved once, when all that it looks at are done. It looks only at voxels that
//    arrive earlier in order 1 by a margin, so nobody waits for each other. At a wall it looks along straight lines,
//    which the 32 lanes of a warp share. A tile is listed when a voxel close to it is done, as long as its own wait.
// 7. cut: what is later than the latest time asked for becomes inf.
//
// All is computed in double precision and stored in single, where the CPU computes in single precision; what depends on
// what is decided by margins that are far above the rounding of both. Cost: a tile of the domain is read once for each
// layer of tiles that a front crosses around it, some 8 times for each order (not measured); each time order 1 solves
// the equation a few times for each voxel, order 2 once in all. Memory: see `cuda.py`.
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
#define AGAIN 64     // wishes of a tile: to be listed itself
#define SOURCE (-1)  // pieces: a source outside the domain
#define NOTHING (-2)
#define FITTED 64    // discs in shared memory at once
#define TOO_FAR 9
#define STEEP 2.0    // squared slope above which another axis sees the surface better
#define STIFF 4.0    // weight of the sum of a rim's faces against their scatter, in squared voxels
#define DISC 0.4     // radius of a disc, in voxels along the face
#define SHIFT 0.2    // how far a disc moves towards a rim that its source does not touch
#define WIDEN 0.15   // and how much it grows
#define WAITS (-1.0f)
#define EARLIER 1e-3  // by which part of a step a neighbour has to be earlier to be upwind in order 2
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

struct Pieces { const INDEX* pieces; Grid grid; int interfaces; };
struct Lines { int n; const int *offsets, *first_line, *first_way, *via; };  // see `straight_lines` in __init__.py

__device__ __forceinline__ Lines lines_in(const int* table, int n, int n_ways) {
    const int *first_line = table + 3 * n, *first_way = first_line + n + 1;
    return {n, table, first_line, first_way, first_way + n_ways + 1};
}

__device__ __forceinline__ INDEX piece_at(const Pieces& all, INDEX z, INDEX y, INDEX x) {
    Grid grid = all.grid;
    bool inside = z >= 0 && z < grid.n_z && y >= 0 && y < grid.n_y && x >= 0 && x < grid.n_x;
    return inside ? all.pieces[(z * grid.n_y + y) * grid.n_x + x] : NOTHING;
}

// Whether something is a source outside for the piece `mine`.
__device__ __forceinline__ bool is_source(const Pieces& all, INDEX piece, INDEX mine) {
    return piece == SOURCE || (all.interfaces && piece >= 0 && piece != mine);
}

// Whether one of the ways from a voxel to that at offset o is free: in the piece and of one speed, or in a source.
__device__ __forceinline__ bool in_sight(
    const Pieces& all, const Lines& lines, const float* speed, int varies, INDEX from, INDEX to, int o) {
    INDEX mine = all.pieces[from], s_y = all.grid.n_x, s_z = all.grid.n_y * s_y;
    if (varies && speed[from] != speed[to]) return false;
#pragma unroll 1
    for (int line = lines.first_line[o]; line < lines.first_line[o + 1]; line++) {
        bool free = true;
#pragma unroll 1
        for (int way = lines.first_way[line]; way < lines.first_way[line + 1] && free; way++) {
            const int* d = lines.via + 3 * way;
            INDEX at = from + d[0] * s_z + d[1] * s_y + d[2], piece = all.pieces[at];
            free = is_source(all, piece, mine) || (piece == mine && !(varies && speed[at] != speed[to]));
        }
        if (free) return true;
    }
    return false;
}

// A contact face of the voxel z, y, x of the piece `mine`: its axis, and the axes one and two along it.
struct Face { INDEX mine, z, y, x; int axis, sign; double up, h_one, h_two; };

// What lies `height` voxels outwards from the voxel of a face, and p, q along it.
__device__ __forceinline__ INDEX piece_from(const Pieces& all, const Face& face, int height, int p, int q) {
    int out = face.sign * height;
    if (face.axis == 0) return piece_at(all, face.z + out, face.y + p, face.x + q);
    if (face.axis == 1) return piece_at(all, face.z + p, face.y + out, face.x + q);
    return piece_at(all, face.z + p, face.y + q, face.x + out);
}

// How far out the surface of the piece is in a column beside a face: the nearest one, or TOO_FAR.
__device__ __forceinline__ int surface_height(const Pieces& all, const Face& face, int p, int q) {
    for (int m = 0; m < 7; m++) {  // 0, 1, -1, 2, -2, ...
        int height = m % 2 ? (m + 1) / 2 : -(m / 2);
        if (piece_from(all, face, height, p, q) == face.mine && piece_from(all, face, height + 1, p, q) != face.mine)
            return height;
    }
    return TOO_FAR;
}

// Outwards from a face and along it, as lengths or in voxels from the voxel's centre.
struct Vector { double up, one, two; };

__device__ __forceinline__ double dot(Vector a, Vector b) { return a.up * b.up + a.one * b.one + a.two * b.two; }

// A disc, as lengths; of it the part where ahead . (x - centre) <= end.
struct Disc { Vector centre, normal, ahead; double radius, end; };

// Plane through the surface in the columns around a contact face: height c there, slopes a and b. See cpu_start.py.
__device__ __forceinline__ void fit_heights(const Pieces& all, const Face& face, double& c, double& a, double& b) {
    int n = 0, sum_p = 0, sum_q = 0, sum_pp = 0, sum_pq = 0, sum_qq = 0, sum_h = 0, sum_hp = 0, sum_hq = 0;
    int near = 0, near_p = 0, near_q = 0, near_h = 0;
#pragma unroll 1
    for (int p = -2; p <= 2; p++) {
#pragma unroll 1
        for (int q = -2; q <= 2; q++) {
            int weight = 5 - p * p - q * q, height = weight < -1 ? TOO_FAR : surface_height(all, face, p, q);
            if (height == TOO_FAR) continue;
            n++, sum_p += p, sum_q += q, sum_pp += p * p, sum_pq += p * q, sum_qq += q * q;
            sum_h += height, sum_hp += height * p, sum_hq += height * q;
            near += weight, near_p += weight * p, near_q += weight * q, near_h += weight * height;
        }
    }
    double s_11 = sum_pp + 1e-6, s_22 = sum_qq + 1e-6;  // no slope across a single row of faces
    double d_11 = n * s_11 - sum_p * sum_p, d_12 = n * sum_pq - sum_p * sum_q, d_22 = n * s_22 - sum_q * sum_q;
    double e_1 = n * sum_hp - sum_p * sum_h, e_2 = n * sum_hq - sum_q * sum_h, det = d_11 * d_22 - d_12 * d_12;
    a = (e_1 * d_22 - e_2 * d_12) / det, b = (e_2 * d_11 - e_1 * d_12) / det;
    c = min(max((near_h - a * near_p - b * near_q) / near, -0.5), 0.5);
}

// Where the source around a voxel ends: the plane rim . x = offset, in voxels from the voxel. It passes the middle of the
// faces of outside sources to what is none; rim is the sum of these faces, turned to where they are: it minimises the sum
// of (rim . (face - middle))^2 plus STIFF |rim - sum|^2. outwards : of the sum. False if nowhere.
__device__ __forceinline__ bool fit_rim(const Pieces& all, const Face& face, Vector& rim, double& offset, int& outwards) {
    int n = 0, n0 = 0, n1 = 0, n2 = 0, t0 = 0, t1 = 0, t2 = 0;  // the sum, and twice the sum of the faces' middles
    int s00 = 0, s01 = 0, s02 = 0, s11 = 0, s12 = 0, s22 = 0;  // four times the sum of their products
#pragma unroll 1
    for (int out = -3; out <= 3; out++) {
#pragma unroll 1
        for (int p = -3; p <= 3; p++) {
#pragma unroll 1
            for (int q = -3; q <= 3; q++) {
                if (!is_source(all, piece_from(all, face, out, p, q), face.mine)) continue;
                for (int side = 0; side < 6; side++) {
                    int way = side % 2 * 2 - 1, d0 = side / 2 == 0 ? way : 0, d1 = side / 2 == 1 ? way : 0;
                    int d2 = side / 2 == 2 ? way : 0, m0 = 2 * out + d0, m1 = 2 * p + d1, m2 = 2 * q + d2;
                    INDEX other = piece_from(all, face, out + d0, p + d1, q + d2);
                    if (other == face.mine || is_source(all, other, face.mine)) continue;
                    n++, n0 += d0, n1 += d1, n2 += d2, t0 += m0, t1 += m1, t2 += m2;
                    s00 += m0 * m0, s01 += m0 * m1, s02 += m0 * m2, s11 += m1 * m1, s12 += m1 * m2, s22 += m2 * m2;
                }
            }
        }
    }
    if (n == 0) return false;
    double many = n, r00 = 0.25 * (s00 - t0 * t0 / many) + STIFF, r01 = 0.25 * (s01 - t0 * t1 / many);
    double r02 = 0.25 * (s02 - t0 * t2 / many), r11 = 0.25 * (s11 - t1 * t1 / many) + STIFF;
    double r12 = 0.25 * (s12 - t1 * t2 / many), r22 = 0.25 * (s22 - t2 * t2 / many) + STIFF;
    double a01 = r02 * r12 - r01 * r22, a02 = r01 * r12 - r02 * r11, a12 = r01 * r02 - r00 * r12;  // of the adjugate
    rim.up = (r11 * r22 - r12 * r12) * n0 + a01 * n1 + a02 * n2;
    rim.one = a01 * n0 + (r00 * r22 - r02 * r02) * n1 + a12 * n2;
    rim.two = a02 * n0 + a12 * n1 + (r00 * r11 - r01 * r01) * n2;
    offset = (rim.up * t0 + rim.one * t1 + rim.two * t2) / (2.0 * many);
    outwards = n0;
    return true;
}

// The piece of surface behind a contact face. False if another face represents it better, or none of it is left.
__device__ __forceinline__ bool make_disc(const Pieces& all, const Face& face, Disc& disc) {
    double c, a, b, offset;
    Vector rim;
    int outwards;
    fit_heights(all, face, c, a, b);
    if (a * a + b * b > STEEP) return false;
    double g = 1.0 / face.up, g_1 = -a / face.h_one, g_2 = -b / face.h_two;  // the plane: out - a p - b q = 1/2 + c
    double steep = sqrt(g * g + g_1 * g_1 + g_2 * g_2);
    Vector normal = {g / steep, g_1 / steep, g_2 / steep};
    double off = (0.5 - c) / steep, size = sqrt(face.h_one * face.h_two);
    Vector centre = {face.up - off * normal.up, -off * normal.one, -off * normal.two};  // the source voxel's, projected
    disc = {centre, normal, {0.0, 0.0, 0.0}, DISC * size, NEVER};
    if (!fit_rim(all, face, rim, offset, outwards)) return true;
    double beyond = max(offset, rim.up);  // the source voxel is not beyond
    Vector r = {rim.up / face.up, rim.one / face.h_one, rim.two / face.h_two};
    double out = dot(r, normal);
    Vector ahead = {r.up - out * normal.up, r.one - out * normal.one, r.two - out * normal.two};
    double slope = sqrt(dot(ahead, ahead));
    if (slope <= 1e-9 * fabs(out)) return true;  // the source is a film
    disc.ahead = ahead = {ahead.up / slope, ahead.one / slope, ahead.two / slope};
    disc.end = (beyond - dot(r, centre)) / slope;
    bool along_one = fabs(ahead.one) >= fabs(ahead.two);
    int p = !along_one ? 0 : ahead.one < 0.0 ? -1 : 1, q = along_one ? 0 : ahead.two < 0.0 ? -1 : 1;
    int height = surface_height(all, face, p, q);
    bool stops = height != TOO_FAR && !is_source(all, piece_from(all, face, height + 1, p, q), face.mine);
    if (stops && rim.up * (height + 1) + rim.one * p + rim.two * q > beyond) {
        double shift = SHIFT * size;  // no source voxel fits between the rim and the surface
        disc.centre = {centre.up + shift * ahead.up, centre.one + shift * ahead.one, centre.two + shift * ahead.two};
        disc.end -= shift, disc.radius += WIDEN * size;
    } else if (fabs(a) < 1e-12 && fabs(b) < 1e-12 && outwards >= 0) {
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

__device__ __forceinline__ double square_distance(const Face& face, Vector x) {
    double e = x.up - 0.5 * face.up, off_1 = max(fabs(x.one) - 0.5 * face.h_one, 0.0);
    double off_2 = max(fabs(x.two) - 0.5 * face.h_two, 0.0);
    return sqrt(e * e + off_1 * off_1 + off_2 * off_2);
}

__device__ __forceinline__ Face face_of(INDEX mine, INDEX z, INDEX y, INDEX x, int side, Steps h) {
    int axis = side / 2;
    return {mine, z, y, x, axis, side % 2 * 2 - 1, axis == 0 ? h.z : axis == 1 ? h.y : h.x, axis == 0 ? h.y : h.z,
            axis == 2 ? h.y : h.x};
}

// Give the voxels within `band` of a source, and every voxel that touches one, their straight-line time. A block has a
// tile, a thread a contact face to find its disc, and then one voxel close to one of these discs after the other.
// times : their bits, which are in the order of the times.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
start_lines(const unsigned char* source, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
            double h_z, double h_y, double h_x, int interfaces, const unsigned char* links, const INDEX* pieces,
            const int* table, int n_offsets, int n_ways, int fit, double band, int* times) {
    __shared__ unsigned short faces[7 * TILE];  // seven times the voxel in the tile, and the side; 6 is a source inside
    __shared__ int n_faces;
    __shared__ Disc discs[FITTED];
    __shared__ bool useful[FITTED];
    Pieces all = {pieces, {n_z, n_y, n_x}, interfaces};
    Lines lines = lines_in(table, n_offsets, n_ways);
    Steps h = {h_z, h_y, h_x};
    INDEX z0, y0, x0;
    tile_corner(blockIdx.x, all.grid, z0, y0, x0);
    if (threadIdx.x == 0) n_faces = 0;
    __syncthreads();  // the list is empty before one adds to it
    for (int e = threadIdx.x; e < TILE; e += THREADS) {
        INDEX z = z0 + e / (SIDE * SIDE), y = y0 + e / SIDE % SIDE, x = x0 + e % SIDE;
        if (z >= n_z || y >= n_y || x >= n_x) continue;
        INDEX at = (z * n_y + y) * n_x + x;
        if (!(links[at] & STARTS)) continue;
        for (int side = 0; side < 6; side++) {
            Face face = face_of(pieces[at], z, y, x, side, h);
            if (is_source(all, piece_from(all, face, 1, 0, 0), face.mine)) faces[atomicAdd(&n_faces, 1)] = e * 7 + side;
        }
        if (source[at]) faces[atomicAdd(&n_faces, 1)] = e * 7 + 6;
    }
    __syncthreads();  // the list is complete
    for (int begin = 0; begin < n_faces; begin += FITTED) {
        int n = min(FITTED, n_faces - begin);
        if ((int)threadIdx.x < n) {
            int e = faces[begin + threadIdx.x] / 7, side = faces[begin + threadIdx.x] % 7;
            INDEX z = z0 + e / (SIDE * SIDE), y = y0 + e / SIDE % SIDE, x = x0 + e % SIDE;
            Face face = face_of(piece_at(all, z, y, x), z, y, x, side, h);
            useful[threadIdx.x] = side == 6 || !fit || make_disc(all, face, discs[threadIdx.x]);
        }
        __syncthreads();  // the discs are there
        for (int k = threadIdx.x; k < n * n_offsets; k += THREADS) {
            int f = k / n_offsets, o = k % n_offsets, e = faces[begin + f] / 7, side = faces[begin + f] % 7;
            if (!useful[f]) continue;
            INDEX z = z0 + e / (SIDE * SIDE), y = y0 + e / SIDE % SIDE, x = x0 + e % SIDE;
            const int* d = lines.offsets + 3 * o;
            INDEX at = (z * n_y + y) * n_x + x, mine = pieces[at];
            if (piece_at(all, z + d[0], y + d[1], x + d[2]) != mine) continue;
            INDEX to = ((z + d[0]) * n_y + y + d[1]) * n_x + x + d[2];
            double d_z = d[0] * h_z, d_y = d[1] * h_y, d_x = d[2] * h_x, distance = sqrt(d_z * d_z + d_y * d_y + d_x * d_x);
            if (side < 6) {
                Face face = face_of(mine, z, y, x, side, h);
                double out = side / 2 == 0 ? d_z : side / 2 == 1 ? d_y : d_x;
                Vector place = {face.sign * out, side / 2 == 0 ? d_y : d_z, side / 2 == 2 ? d_y : d_x};
                distance = fit ? disc_distance(discs[f], place) : square_distance(face, place);
            }
            if (o > 0 && distance > band) continue;
            int t = bits_of((float)(distance / speed_at(speed, varies, to)));
            if (t < times[to] && in_sight(all, lines, speed, varies, at, to, o)) atomicMin(&times[to], t);
        }
        __syncthreads();  // all have read what the next discs overwrite
    }
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
        load_tile(times, grid, z0, y0, x0, 1, t);
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

// Times that order 1 does not beat stay; the others of the domain wait. left : (tiles,) how many wait in each.
extern "C" __global__ void __launch_bounds__(TILE)
wait_for_second(float* times, const float* first, const float* speed, int varies, INDEX n_z, INDEX n_y, INDEX n_x,
                double keep, int* left, int round, int* counts, int* list, int* listed) {
    Grid grid = {n_z, n_y, n_x};
    INDEX z0, y0, x0;
    tile_corner(blockIdx.x, grid, z0, y0, x0);
    INDEX z = z0 + threadIdx.x / (SIDE * SIDE), y = y0 + threadIdx.x / SIDE % SIDE, x = x0 + threadIdx.x % SIDE;
    bool waits = false;
    if (z < n_z && y < n_y && x < n_x) {
        INDEX at = (z * n_y + y) * n_x + x;
        double start = times[at];
        waits = first[at] < NEVER && first[at] < start - keep / speed_at(speed, varies, at);
        if (waits) times[at] = WAITS;
    }
    int total = __syncthreads_count(waits);  // over the block
    if (threadIdx.x == 0) {
        left[blockIdx.x] = total;
        if (total) list_tile(blockIdx.x, {round - 1, counts, 0, list, listed});
    }
}

// Weight and base of the difference along one axis, base inf if no neighbour is upwind; false if it has to wait.
// looks : bits 0 and 1: the voxels below and above are upwind; bits 6 and 7: those behind them, too. Of both that below
// is taken unless that above is earlier by `tie`: rounding does not choose.
__device__ __forceinline__ bool second_difference(
    const float* t, int at, int step, unsigned looks, double tie, double& weight, double& base) {
    float below = looks & 1 ? t[at - step] : NEVER, above = looks & 2 ? t[at + step] : NEVER;
    if (below == WAITS || above == WAITS) return false;
    bool up = above < below - tie;
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
#define ALONG 4096
#define LINES 81  // voxels within 2.5 of the shortest steps, the voxel itself among them

__device__ __forceinline__ unsigned tile_bit(int z, int y, int x) { return 1u << (9 * z + 3 * y + x + 13); }

// Shorten the time of the voxel `at` of the tile, `there` in the volume, to that along a straight line from a voxel in
// sight, of those that are shorter by a margin than what order 1 found; true if one of these waits. The lanes of a warp
// share the lines.
__device__ __forceinline__ bool along_lines(
    const float* t, const float* arrival, const int* steps, const double* lengths, const Pieces& all, const Lines& lines,
    const float* speed, int varies, double margin, int at, INDEX there, double& time) {
    double slowness = 1.0 / speed_at(speed, varies, there), latest = arrival[at] - margin * slowness;
    bool waiting = false;
#pragma unroll 1
    for (int o = 1 + threadIdx.x % 32; o < lines.n; o += 32) {
        int from = at + steps[o];
        double line = lengths[o] * slowness, straight = t[from] + line;
        if (!(arrival[from] + line < latest)) continue;
        waiting |= t[from] == WAITS;
        if (t[from] == WAITS || !(straight < time)) continue;
        const int* d = lines.offsets + 3 * o;
        INDEX to = there + (d[0] * all.grid.n_y + d[1]) * all.grid.n_x + d[2];
        if (all.pieces[to] == all.pieces[there] && in_sight(all, lines, speed, varies, there, to, o)) time = straight;
    }
    for (int by = 16; by > 0; by /= 2) {
        double other = __shfl_xor_sync(EVERY, time, by);
        time = other < time ? other : time;
    }
    return __any_sync(EVERY, waiting);
}

extern "C" __global__ void __launch_bounds__(TILE, 1)
second(float* times, const float* first, const unsigned char* links, const float* speed, int varies,
       INDEX n_z, INDEX n_y, INDEX n_x, double h_z, double h_y, double h_x, int interfaces, const INDEX* pieces,
       const int* table, int n_offsets, int n_ways, double w_z, double w_y, double w_x, int* left,
       int round, int* counts, const int* list, int* next, int* listed) {
    __shared__ float t[WIDE * WIDE * WIDE], arrival[WIDE * WIDE * WIDE];
    __shared__ int steps[LINES];
    __shared__ double lengths[LINES];
    __shared__ unsigned woken;  // see tile_bit
    Grid grid = {n_z, n_y, n_x};
    Work work = {round, counts, list, next, listed};
    if (blockIdx.x == 0 && threadIdx.x == 0) counts[(round + 2) % 3] = 0;
    int n_jobs = counts[round % 3];
    double margin = EARLIER * min(h_z, min(h_y, h_x));
    for (int o = threadIdx.x; o < n_offsets && (int)blockIdx.x < n_jobs; o += TILE) {
        const int* d = table + 3 * o;
        double d_z = d[0] * h_z, d_y = d[1] * h_y, d_x = d[2] * h_x;
        steps[o] = (d[0] * WIDE + d[1]) * WIDE + d[2], lengths[o] = sqrt(d_z * d_z + d_y * d_y + d_x * d_x);
    }
    int z = threadIdx.x / (SIDE * SIDE), y = threadIdx.x / SIDE % SIDE, x = threadIdx.x % SIDE;
    int at = ((z + REACH) * WIDE + y + REACH) * WIDE + x + REACH;
    for (int job = blockIdx.x; job < n_jobs; job += gridDim.x) {
        int tile = list[job];
        INDEX z0, y0, x0;
        tile_corner(tile, grid, z0, y0, x0);
        load_tile(times, grid, z0, y0, x0, REACH, t);
        load_tile(first, grid, z0, y0, x0, REACH, arrival);
        if (threadIdx.x == 0) woken = 0;
        __syncthreads();  // the tile is loaded before it is read

        INDEX place = ((z0 + z) * n_y + y0 + y) * n_x + x0 + x;
        bool waits = t[at] == WAITS, solved = false;
        unsigned near = waits ? links[place] : 0;
        double slowness = waits ? 1.0 / speed_at(speed, varies, place) : 0.0, tie = TIE * slowness;
        unsigned looks = 0;  // see second_difference, two bits for each axis; ALONG: along lines, too
        for (int side = 0; side < 6; side++) {
            int axis = side / 2, way = side % 2 * 2 - 1, step = way * (axis == 0 ? WIDE * WIDE : axis == 1 ? WIDE : 1);
            INDEX stride = way * (axis == 0 ? n_y * n_x : axis == 1 ? n_x : 1);
            double apart = EARLIER * slowness * (axis == 0 ? h_z : axis == 1 ? h_y : h_x);
            if (!(near >> side & 1) || !(arrival[at + step] < arrival[at] - apart)) continue;
            looks |= 1u << side;
            bool reaches = links[place + stride] >> side & 1;
            if (reaches && arrival[at + 2 * step] < arrival[at + step] - apart) looks |= 64u << side;
        }
        if (waits && (near & 63) != 63 && n_offsets > 1) looks |= ALONG;

        for (int moved = 1; moved;) {
            double a_z = w_z, a_y = w_y, a_x = w_x, b_z, b_y, b_x;
            bool ready = waits && second_difference(t, at, WIDE * WIDE, looks, tie * h_z, a_z, b_z)
                && second_difference(t, at, WIDE, looks >> 2, tie * h_y, a_y, b_y)
                && second_difference(t, at, 1, looks >> 4, tie * h_x, a_x, b_x);
            double time = arrival[at];  // where rounding hides who is earlier
            if (ready && (looks & 63)) time = upwind_root(a_z, b_z, a_y, b_y, a_x, b_x, slowness * slowness);
            unsigned along = __ballot_sync(EVERY, ready && (looks & ALONG));
            for (; along; along &= along - 1) {  // one voxel of the warp after the other
                Pieces all = {pieces, grid, interfaces};
                Lines lines = lines_in(table, n_offsets, n_ways);
                int lane = __ffs(along) - 1;
                double shortest = __shfl_sync(EVERY, time, lane);
                int its_at = __shfl_sync(EVERY, at, lane);
                INDEX its_place = __shfl_sync(EVERY, place, lane);
                bool one_waits = along_lines(t, arrival, steps, lengths, all, lines, speed, varies, margin, its_at,
                                              its_place, shortest);
                if ((int)threadIdx.x % 32 == lane) time = shortest, ready = !one_waits;
            }
            __syncthreads();  // all have read before one writes
            if (ready) {
                t[at] = times[place] = (float)time;
                waits = false, solved = true;
            }
            moved = __syncthreads_or(ready);  // all is written before it is read; all leave the loop together
        }
        if (solved) {
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
