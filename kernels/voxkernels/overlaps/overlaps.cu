// How many pixels each pair of labels of two images shares: the kernels. `cuda.py` says in which order they run.
//
// The label of one image and the label of the other at a pixel form one key of 64 bits. A warp reads 32 pixels that lie
// side by side; equal keys in a row are a run, and only the first lane of a run adds, the whole length at once. It adds
// to a hash table of its block, in shared memory, which takes up what would else be atomics on few addresses in global
// memory; at its end the block empties its table into that of the image pair. Both tables use open addressing with
// linear probing; a key is put into a free slot by compare-and-swap, so that each key has one slot, and counts are
// added as integers: what comes out does not depend on any order. Key 0, two backgrounds, is skipped: it marks a free
// slot.
//
// Labels of 64 bits do not fit into a key. They are first entered into a hash table of their own, and each is replaced
// by 1 + the number of its slot.
//
// Source: hash tables by compare-and-swap, Alcantara et al., ACM Trans. Graph. 28, 154 (2009).
// Cost: one read of both images; for 64 bits one more, and a read and write of 4 bytes for each pixel.
// Not checked here: sizes of tables are powers of two. What does not fit is reported (`trouble`), negative labels too.
#ifndef LABEL
#define LABEL int
#endif
#ifndef THREADS
#define THREADS 256
#endif
#ifndef LOCAL_SLOTS
#define LOCAL_SLOTS 1024
#endif
#ifndef LOCAL_PROBES
#define LOCAL_PROBES 8
#endif
#ifndef PROBES
#define PROBES 256
#endif

typedef unsigned long long Key;
typedef long long Long;

#define FULL 1
#define NEGATIVE 2

__device__ __forceinline__ unsigned hash_of(Key key) {
    return (unsigned)((key * 0x9E3779B97F4A7C15ull) >> 32);
}

// The slot of a key in a table, the key put in if need be; -1 where `probes` slots in a row hold others.
__device__ __forceinline__ Long slot_of(Key key, Key* keys, Long slots, int probes) {
    Long slot = hash_of(key) & (slots - 1);
    for (int probe = 0; probe < probes; probe++) {
        Key held = keys[slot];  // a stale 0 is corrected by the swap, and no key ever changes
        if (held == 0) held = atomicCAS(&keys[slot], (Key)0, key);
        if (held == 0 || held == key) return slot;
        slot = (slot + 1) & (slots - 1);
    }
    return -1;
}

__device__ __forceinline__ void add_to_table(Key key, Key count, Key* keys, Key* counts, Long slots, int* trouble) {
    Long slot = slot_of(key, keys, slots, PROBES);
    if (slot >= 0) atomicAdd(&counts[slot], count);
    else atomicOr(trouble, FULL);
}

// a, b         : (P, pixels), P pairs of images; block (i, p) counts every gridDim.x-th stretch of pair p
// keys, counts : (P, slots), zero on entry
extern "C" __global__ void __launch_bounds__(THREADS)
count_pairs(const int* a, const int* b, Long pixels, Key* keys, Key* counts, Long slots, int* trouble) {
    __shared__ Key local_keys[LOCAL_SLOTS];
    __shared__ unsigned local_counts[LOCAL_SLOTS];
    for (int slot = threadIdx.x; slot < LOCAL_SLOTS; slot += THREADS) local_keys[slot] = 0, local_counts[slot] = 0;
    __syncthreads();  // the table is clear before anyone adds

    a += (Long)blockIdx.y * pixels;
    b += (Long)blockIdx.y * pixels;
    keys += (Long)blockIdx.y * slots;
    counts += (Long)blockIdx.y * slots;
    unsigned lane = threadIdx.x % 32;
    Long step = (Long)gridDim.x * THREADS;
    // The loop ends for whole warps only, since its shuffles need all 32 lanes.
    for (Long first = (Long)blockIdx.x * THREADS + threadIdx.x - lane; first < pixels; first += step) {
        Long pixel = first + lane;
        Key key = 0;
        if (pixel < pixels) {
            int label_a = a[pixel], label_b = b[pixel];
            if (label_a < 0 || label_b < 0) atomicOr(trouble, NEGATIVE);
            key = (Key)(unsigned)label_a << 32 | (unsigned)label_b;
        }
        Key before = __shfl_up_sync(0xFFFFFFFFu, key, 1);
        bool starts = lane == 0 || before != key;
        unsigned later = __ballot_sync(0xFFFFFFFFu, starts) >> lane >> 1;
        if (!starts || key == 0) continue;
        unsigned count = later ? __ffs(later) : 32 - lane;
        Long slot = slot_of(key, local_keys, LOCAL_SLOTS, LOCAL_PROBES);
        if (slot >= 0) atomicAdd(&local_counts[slot], count);
        else add_to_table(key, count, keys, counts, slots, trouble);
    }
    __syncthreads();  // all have added before the table is emptied
    for (int slot = threadIdx.x; slot < LOCAL_SLOTS; slot += THREADS)
        if (local_keys[slot]) add_to_table(local_keys[slot], local_counts[slot], keys, counts, slots, trouble);
}

// Write every pair that occurs to `rows` (found, 4): image pair, label a, label b, count; in no particular order.
// found : (1,), zero on entry. With `rows` of length 0 they are only counted.
extern "C" __global__ void __launch_bounds__(THREADS)
list_pairs(const Key* keys, const Key* counts, Long slots, Long all_slots, Long* rows, Long n_rows, Key* found) {
    for (Long slot = (Long)blockIdx.x * THREADS + threadIdx.x; slot < all_slots; slot += (Long)gridDim.x * THREADS) {
        if (keys[slot] == 0) continue;
        Long row = (Long)atomicAdd(found, (Key)1);
        if (row >= n_rows) continue;
        rows[4 * row] = slot / slots;
        rows[4 * row + 1] = (Long)(keys[slot] >> 32);
        rows[4 * row + 2] = (Long)(keys[slot] & 0xFFFFFFFFu);
        rows[4 * row + 3] = (Long)counts[slot];
    }
}

// Replace every label by 1 + its slot in `names` (slots,), zero on entry; 0 stays 0.
extern "C" __global__ void __launch_bounds__(THREADS)
number_labels(const LABEL* labels, Long pixels, Key* names, Long slots, int* numbers, int* trouble) {
    for (Long pixel = (Long)blockIdx.x * THREADS + threadIdx.x; pixel < pixels; pixel += (Long)gridDim.x * THREADS) {
        LABEL label = labels[pixel];
        if (label < 0) atomicOr(trouble, NEGATIVE);
        Long slot = label ? slot_of((Key)label, names, slots, PROBES) : -1;
        if (label && slot < 0) atomicOr(trouble, FULL);
        numbers[pixel] = (int)(slot + 1);
    }
}
