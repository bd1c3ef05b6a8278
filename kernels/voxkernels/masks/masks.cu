// Painting the small masks of an instance-segmentation network into one label image: the kernel.
//
// One thread for each pixel, one block for each tile of 32 x 8 pixels. The detections come best first. The block looks
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

#define TILE_X 32
#define TILE_Y 8
#define THREADS (TILE_X * TILE_Y)
#define WARPS (THREADS / 32)

typedef long long Long;

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
