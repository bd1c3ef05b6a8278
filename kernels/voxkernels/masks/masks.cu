// Painting the small masks of an instance-segmentation network into one label image: the kernels. `cuda.py` says in which
// order they run.
//
// First, one thread for each detection grows its box with the frame of its mask, in the precision of the boxes, and counts
// how many others have a higher score, or as high a one and a lower index: its place. What is not finite is reported.
//
// Then one thread for each pixel, one block for each tile of 32 x 8 pixels. The detections come best first. The block looks
// at them in groups of as many as it has threads: each thread compares one box with the tile, and those that meet it
// are listed in shared memory in their order (a ballot for each warp, then the warps one after the other). Then every
// pixel samples the masks of the list until one reaches the threshold: that is its label, since all others are worse.
// When all pixels of a tile have their label the rest of the detections is not looked at.
//
// The mask is sampled as on the CPU (see cpu.py): framed by zeros, bilinear, pixel centres at half-integers, ends held,
// in double precision, first along y, then along x. The sums are written with intrinsics, so that no compiler fuses
// them: the same pixels, to the bit.
//
// Source: the maths of torchvision's paste_masks_in_image (torchvision/models/detection/roi_heads.py).
// Cost: one comparison for each tile and detection, four samples for each pixel and mask that it meets, one write for
// each pixel. Not checked here: sides of boxes are at least 1.
#ifndef MASK
#define MASK float
#endif
#ifndef INDEX
#define INDEX int
#endif

#ifndef BOX
#define BOX float
#endif
#ifndef SCORE
#define SCORE float
#endif

#define TILE_X 32
#define TILE_Y 8
#define THREADS (TILE_X * TILE_Y)
#define WARPS (THREADS / 32)

typedef long long Long;

#define BAD_BOX 1
#define BAD_SCORE 2
#define FARTHEST 2147483648.0

__device__ __forceinline__ float sum_of(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double sum_of(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ float product_of(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double product_of(double a, double b) { return __dmul_rn(a, b); }

// corners (n, 4): x0, y0, x1, y1; scores (n,); grown_x, grown_y : how much larger a mask is with its frame. boxes (n, 4):
// first pixel x, y, number of pixels along x, y; order (n,): best first; trouble, zero on entry: what is not finite.
extern "C" __global__ void __launch_bounds__(THREADS)
prepare(const BOX* corners, const SCORE* scores, int n, double grown_x, double grown_y, Long* boxes, Long* order,
        int* trouble) {
    int i = (int)(blockIdx.x * THREADS + threadIdx.x), place = 0;
    if (i >= n) return;
    SCORE score = scores[i];
    bool finite = score - score == 0;
    for (int k = 0; k < n; k++) {  // others come last, so that there is one detection in each place
        SCORE other = scores[k];
        bool other_finite = other - other == 0;
        if (finite && other_finite) place += other > score || (other == score && k < i);
        else place += other_finite != finite ? other_finite : k < i;
    }
    order[place] = i;
    if (!finite) atomicOr(trouble, BAD_SCORE);
    for (int axis = 0; axis < 2; axis++) {
        BOX low = corners[4 * i + axis], high = corners[4 * i + 2 + axis], grown = (BOX)(axis == 0 ? grown_x : grown_y);
        bool near = low < FARTHEST && low > -FARTHEST && high < FARTHEST && high > -FARTHEST;
        if (!near) atomicOr(trouble, BAD_BOX), low = high = 0;
        BOX half = product_of(product_of(sum_of(high, -low), (BOX)0.5), grown), middle = product_of(sum_of(high, low), (BOX)0.5);
        Long first = (Long)sum_of(middle, -half), last = (Long)sum_of(middle, half);
        boxes[4 * i + axis] = first;
        boxes[4 * i + 2 + axis] = last - first + 1 > 1 ? last - first + 1 : 1;
    }
}

struct Sample { Long near, far; double weight; };

// Where a pixel of a box samples the framed mask: two neighbouring indices and the weight of the second.
__device__ __forceinline__ Sample sample_position(Long pixel, Long n_pixels, int n_framed) {
    double scale = (double)n_framed / (double)n_pixels;
    double position = __dadd_rn(__dmul_rn((double)pixel + 0.5, scale), -0.5);
    if (position < 0.0) position = 0.0;
    Long near = (Long)position;
    if (near > n_framed - 1) near = n_framed - 1;
    Long far = near + 1 < n_framed ? near + 1 : n_framed - 1;
    return {near, far, __dadd_rn(position, -(double)near)};
}

__device__ __forceinline__ double between(double near, double far, double weight) {
    return __dadd_rn(__dmul_rn(1.0 - weight, near), __dmul_rn(weight, far));
}

// The framed mask at row y (from 0 to H + 1) and column x.
__device__ __forceinline__ double framed(const MASK* mask, int height, int width, Long y, Long x) {
    return 1 <= y && y <= height && 1 <= x && x <= width ? (double)mask[(y - 1) * width + x - 1] : 0.0;
}

__device__ __forceinline__ bool reaches(
    const MASK* mask, int height, int width, const Long* box, Long y, Long x, double threshold) {
    Sample row = sample_position(y - box[1], box[3], height + 2), column = sample_position(x - box[0], box[2], width + 2);
    double near = between(framed(mask, height, width, row.near, column.near),
                          framed(mask, height, width, row.far, column.near), row.weight);
    double far = between(framed(mask, height, width, row.near, column.far),
                         framed(mask, height, width, row.far, column.far), row.weight);
    return between(near, far, column.weight) >= threshold;
}

// masks  : (N, height, width); boxes (N, 4): first pixel x, y, number of pixels along x, y; order (N,): best first
// labels : (n_y, n_x), every pixel is written; block (i, j) paints tile i along x, and every gridDim.y-th along y
extern "C" __global__ void __launch_bounds__(THREADS)
paint_masks(const MASK* masks, int height, int width, const Long* boxes, const Long* order, int n,
            double threshold, int* labels, Long n_y, Long n_x) {
    __shared__ int listed[THREADS];
    __shared__ int of_warp[WARPS];
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    Long x0 = (Long)blockIdx.x * TILE_X, x = x0 + thread % TILE_X;
    for (Long y0 = (Long)blockIdx.y * TILE_Y; y0 < n_y; y0 += (Long)gridDim.y * TILE_Y) {
        Long y = y0 + thread / TILE_X;
        bool inside = y < n_y && x < n_x;
        int label = 0;
        for (int start = 0; start < n; start += THREADS) {
            bool meets = false;
            int detection = 0;
            if (start + thread < n) {
                detection = (int)order[start + thread];
                const Long* box = boxes + 4 * (Long)detection;
                meets = box[0] < x0 + TILE_X && box[0] + box[2] > x0 && box[1] < y0 + TILE_Y && box[1] + box[3] > y0;
            }
            unsigned met = __ballot_sync(0xFFFFFFFFu, meets);
            if (lane == 0) of_warp[warp] = __popc(met);
            __syncthreads();  // the counts of all warps are known
            int place = __popc(met & ((1u << lane) - 1)), n_listed = 0;
            for (int w = 0; w < WARPS; w++) {
                if (w < warp) place += of_warp[w];
                n_listed += of_warp[w];
            }
            if (meets) listed[place] = detection;
            __syncthreads();  // the list is complete
            for (int k = 0; inside && label == 0 && k < n_listed; k++) {
                const Long* box = boxes + 4 * (Long)listed[k];
                if (box[0] <= x && x < box[0] + box[2] && box[1] <= y && y < box[1] + box[3]
                    && reaches(masks + (Long)listed[k] * height * width, height, width, box, y, x, threshold))
                    label = listed[k] + 1;
            }
            // The list has been read before it is written anew; all leave together once every pixel has its label.
            if (__syncthreads_and(label != 0 || !inside)) break;
        }
        if (inside) labels[(INDEX)y * (INDEX)n_x + (INDEX)x] = label;
    }
}
