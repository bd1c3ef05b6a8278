// How many pixels each pair of labels of two images shares: the kernels. `cuda.py` says in which order they run.
//
// The label of one image and the label of the other at a pixel form one key of 64 bits. A warp goes through pixels that
// lie side by side, four in each lane, and reads ahead; where the key changes, the run that ends there is put into a list
// of the warp. When that has a run for every lane, they are added, whole lengths at once, to a hash table of the block, in
// shared memory, which takes up what would else be atomics on few addresses in global memory; at its end the block
// empties its table into that of the image pair. Both tables use
// open addressing with linear probing; a key is put into a free slot by compare-and-swap, so that each key has one slot,
// and counts are added as integers: what comes out does not depend on any order. Key 0, two backgrounds, is skipped: it
// marks a free slot. A table that is too full is reported (`state`), and blocks that have not begun leave.
//
// The results are made on the device: every pair becomes an entry of its image pair, and once more one of the second
// image alone; entries are sorted by image pair, part and labels; the places of pairs and labels are counted, and each
// entry writes its pair, its label if it is the first with it, and adds to the label's size.
//
// Labels of 64 bits do not fit into a key. They are first entered into a hash table of their own, and each is replaced
// by 1 + the number of its slot.
//
// Source: hash tables by compare-and-swap, Alcantara et al., ACM Trans. Graph. 28, 154 (2009).
// Cost: one read of both images; for 64 bits one more, and a read and write of 4 bytes for each pixel.
// Not checked here: sizes of tables are powers of two. What does not fit is reported, negative labels too.
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
#define WARPS (THREADS / 32)
#define PIECE 128  // pixels that a warp looks at together
#define LISTED (PIECE + 32)
#define EVERY 0xFFFFFFFFu

__device__ __forceinline__ unsigned hash_of(Key key) {
    return (unsigned)((key * 0x9E3779B97F4A7C15ull) >> 32);
}

// The slot of a key in a table, the key put in if need be (`is_new`); -1 where `probes` slots in a row hold others, or
// where there is a `state` that says that others have found it so.
__device__ __forceinline__ Long slot_of(Key key, Key* keys, Long slots, int probes, const Key* state, bool& is_new) {
    Long slot = hash_of(key) & (slots - 1);
    for (int probe = 0; probe < probes; probe++) {
        Key held = keys[slot];  // a stale 0 is corrected by the swap, and no key ever changes
        is_new = false;
        if (held == 0) held = atomicCAS(&keys[slot], (Key)0, key), is_new = held == 0;
        if (held == 0 || held == key) return slot;
        if (state && probe % 16 == 15 && *state) return -1;
        slot = (slot + 1) & (slots - 1);
    }
    return -1;
}

// The tables of an image pair. state : what is in trouble, then how many entries the results are made of.
struct Table { Key* keys; Key* counts; Long slots; Key* state; };

__device__ __forceinline__ void add_to_table(Key key, Key count, const Table& table) {
    bool is_new = false;
    Long slot = slot_of(key, table.keys, table.slots, PROBES, table.state, is_new);
    if (slot < 0) {
        atomicOr(&table.state[0], (Key)FULL);
        return;
    }
    atomicAdd(&table.counts[slot], count);
    if (is_new) atomicAdd(&table.state[1], (Key)(1 + ((unsigned)key != 0)));
}

__device__ __forceinline__ void add_run(Key key, unsigned count, Key* local_keys, unsigned* local_counts, const Table& table) {
    bool is_new;
    if (key == 0) return;
    Long slot = slot_of(key, local_keys, LOCAL_SLOTS, LOCAL_PROBES, (const Key*)0, is_new);
    if (slot >= 0) atomicAdd(&local_counts[slot], count);
    else add_to_table(key, count, table);
}

// Four pixels side by side, in one read where they lie well.
struct alignas(16) Four { int of[4]; };

__device__ __forceinline__ Four load_four(const int* image, Long pixel, Long stop, bool aligned) {
    Four found = {{0, 0, 0, 0}};
    if (aligned) {
        if (pixel < stop) found = *(const Four*)(image + pixel);
    } else {
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (pixel + k < stop) found.of[k] = image[pixel + k];
    }
    return found;
}

// The last of the four pixels of a lane at which a run begins.
__device__ __forceinline__ int last_of(const unsigned (&begins)[4], int lane) {
    return begins[3] >> lane & 1 ? 3 : begins[2] >> lane & 1 ? 2 : begins[1] >> lane & 1 ? 1 : 0;
}

// a, b         : (P, pixels), P pairs of images; block (i, p) counts the i-th stretch of pair p, `stretch` for each warp
// keys, counts : (P, slots), zero on entry, as is `state`
extern "C" __global__ void __launch_bounds__(THREADS, 4)
count_pairs(const int* a, const int* b, Long pixels, Long stretch, Key* keys, Key* counts, Long slots, Key* state) {
    __shared__ Key local_keys[LOCAL_SLOTS], listed_keys[WARPS][LISTED];
    __shared__ unsigned local_counts[LOCAL_SLOTS], listed_counts[WARPS][LISTED];
    __shared__ int leave;
    for (int slot = threadIdx.x; slot < LOCAL_SLOTS; slot += THREADS) local_keys[slot] = 0, local_counts[slot] = 0;
    if (threadIdx.x == 0) leave = state[0] != 0;
    __syncthreads();  // the table is clear before anyone adds
    if (leave) return;  // all have read the same

    a += (Long)blockIdx.y * pixels;
    b += (Long)blockIdx.y * pixels;
    Table table = {keys + (Long)blockIdx.y * slots, counts + (Long)blockIdx.y * slots, slots, state};
    Key* keys_of_warp = listed_keys[threadIdx.x / 32];
    unsigned* counts_of_warp = listed_counts[threadIdx.x / 32];
    int lane = threadIdx.x % 32, n = 0;  // runs in the list, fewer than 32 before each piece
    unsigned below = (1u << lane) - 1, open = 0;  // open : the length of the run that has not ended
    Key last = 0, negative = 0;  // last : its key, in lane 0
    Long first = ((Long)blockIdx.x * WARPS + threadIdx.x / 32) * stretch;
    Long stop = first + stretch < pixels ? first + stretch : pixels;
    bool aligned = pixels % 4 == 0 && ((Key)a | (Key)b) % 16 == 0;
    Four label_a = load_four(a, first + 4 * lane, stop, aligned), label_b = load_four(b, first + 4 * lane, stop, aligned);
    for (; first < stop; first += PIECE) {  // whole warps
        Long ahead = first + PIECE + 4 * lane;
        Four next_a = load_four(a, ahead, stop, aligned), next_b = load_four(b, ahead, stop, aligned);
        Key key[5];  // that of the pixel before, then of the four
#pragma unroll
        for (int k = 0; k < 4; k++) {
            key[k + 1] = (Key)(unsigned)label_a.of[k] << 32 | (unsigned)label_b.of[k];
            negative |= key[k + 1];
        }
        Key turned = __shfl_sync(EVERY, key[4], (lane + 31) % 32);
        key[0] = lane ? turned : last;
        last = turned;
        unsigned begins[4], ends[4], any = 0;  // the lanes in whose k-th pixel a run begins; those before which one ends
#pragma unroll
        for (int k = 0; k < 4; k++) {
            begins[k] = __ballot_sync(EVERY, key[k] != key[k + 1]);
            ends[k] = __ballot_sync(EVERY, key[k] != key[k + 1] && key[k] != 0);
            any |= begins[k];
        }
        label_a = next_a, label_b = next_b;
        if (!any) {
            open += PIECE;
            continue;
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (ends[k] == 0) continue;
            if (ends[k] >> lane & 1) {
                int here = 4 * lane + k, begin = -(int)open;
                if (any & below) {
                    int other = 31 - __clz(any & below);
                    begin = 4 * other + last_of(begins, other);
                }
#pragma unroll
                for (int i = 0; i < k; i++)
                    if (begins[i] >> lane & 1) begin = 4 * lane + i;
                int place = n + __popc(ends[k] & below);
                keys_of_warp[place] = key[k], counts_of_warp[place] = (unsigned)(here - begin);
            }
            n += __popc(ends[k]);
        }
        int top = 31 - __clz(any);
        open = PIECE - (4 * top + last_of(begins, top));
        while (n >= 32) {
            n -= 32;
            __syncwarp();  // the list is written
            add_run(keys_of_warp[n + lane], counts_of_warp[n + lane], local_keys, local_counts, table);
            __syncwarp();  // it is read before it is written anew
        }
    }
    __syncwarp();  // the list is written
    if (lane < n) add_run(keys_of_warp[lane], counts_of_warp[lane], local_keys, local_counts, table);
    if (lane == 0) add_run(last, open, local_keys, local_counts, table);
    if (negative & 0x8000000080000000ull) atomicOr(&state[0], (Key)NEGATIVE);
    __syncthreads();  // all have added before the table is emptied
    for (int slot = threadIdx.x; slot < LOCAL_SLOTS; slot += THREADS)
        if (local_keys[slot]) add_to_table(local_keys[slot], local_counts[slot], table);
}

// ---- results --------------------------------------------------------------------------------------------------------

// Write the entries of every pair, in no order: key, a << 32 | b or, for the second image, b << 32; tag, 2 * image pair, 1
// more for the second image; slot. They have `room` for so many. ranks_a, ranks_b : what to put for numbers of labels, if
// `named`. next (1,): zero. One image pair: the tag is the top bit of the key.
extern "C" __global__ void __launch_bounds__(THREADS)
list_entries(const Key* keys, Long slots, Long all_slots, const int* ranks_a, const int* ranks_b, int named,
             Key* entries, int* tags, Long* slot_of_entry, Long room, Key* next) {
    for (Long slot = (Long)blockIdx.x * THREADS + threadIdx.x; slot < all_slots; slot += (Long)gridDim.x * THREADS) {
        if (keys[slot] == 0) continue;
        unsigned a = (unsigned)(keys[slot] >> 32), b = (unsigned)keys[slot];
        int tag = (int)(slot / slots) * 2;
        Long to = (Long)atomicAdd(next, (Key)(1 + (b != 0)));
        if (to + 1 + (b != 0) > room) continue;
        if (named) a = a ? ranks_a[a - 1] + 1 : 0, b = b ? ranks_b[b - 1] + 1 : 0;
        entries[to] = (Key)a << 32 | b, tags[to] = tag, slot_of_entry[to] = slot;
        if (b == 0) continue;
        Key top = slots == all_slots ? 1ull << 63 : 0;
        entries[to + 1] = top | (Key)b << 32, tags[to + 1] = tag + 1, slot_of_entry[to + 1] = slot;
    }
}

// Write the tags in the order of the keys.
extern "C" __global__ void __launch_bounds__(THREADS)
order_tags(const int* tags, const Long* order, Long n, int* ordered) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i < n) ordered[i] = tags[order[i]];
}

// The lists that the results are made of.
enum { PAIRS, LABELS_A, LABELS_B, LISTS };

struct Entry { Long slot; unsigned a, b; int image, of_labels; bool begins[LISTS]; };

// The i-th entry: by its key's place in `order`, and that by its tag's place in `again` if there are several images.
__device__ __forceinline__ Entry entry_at(Long i, Long n, const Key* entries, const int* tags, const Long* slot_of_entry,
                                          const Long* order, const Long* again, int several) {
    if (i >= n) return {0, 0, 0, -1, 0, {false, false, false}};
    Long at = order[several ? again[i] : i], before = i > 0 ? order[several ? again[i - 1] : i - 1] : -1;
    Key key = entries[at] << 1 >> 1;
    int tag = tags[at], of_labels = tag % 2 ? LABELS_B : LABELS_A;
    unsigned a = (unsigned)(key >> 32), b = (unsigned)key;
    bool begins = a > 0 && (before < 0 || tags[before] != tag || entries[before] << 1 >> 33 != a);
    return {slot_of_entry[at], a, b, tag / 2, of_labels,
            {tag % 2 == 0 && a > 0 && b > 0, begins && tag % 2 == 0, begins && tag % 2 == 1}};
}

// begun (blocks, LISTS): what each block's entries begin in the lists; lengths (images, LISTS), zero on entry, of all.
extern "C" __global__ void __launch_bounds__(THREADS)
count_begun(const Key* entries, const int* tags, const Long* slot_of_entry, const Long* order, const Long* again,
            int several, Long n, int* begun, int* lengths) {
    __shared__ int image;
    Entry entry = entry_at((Long)blockIdx.x * THREADS + threadIdx.x, n, entries, tags, slot_of_entry, order, again, several);
    if (threadIdx.x == 0) image = entry.image;
    __syncthreads();  // all know the image of the first
    int others = __syncthreads_or(entry.image >= 0 && entry.image != image);  // whether the block has several
    for (int list = 0; list < LISTS; list++) {
        int found = __syncthreads_count(entry.begins[list]);  // of the whole block
        if (threadIdx.x == 0) begun[LISTS * blockIdx.x + list] = found;
        if (others && entry.begins[list]) atomicAdd(&lengths[LISTS * entry.image + list], 1);
        if (!others && threadIdx.x == 0 && found) atomicAdd(&lengths[LISTS * image + list], found);
    }
}

// How many threads of all blocks before have `begins`, and of this before this thread. Of the blocks: see `begun`.
// of_warp (WARPS,), before (1,): in shared memory.
__device__ __forceinline__ Long place_of(bool begins, const int* begun, int* of_warp, int* before) {
    unsigned mask = __ballot_sync(EVERY, begins);
    int lane = threadIdx.x % 32, sum = 0;
    if (lane == 0) of_warp[threadIdx.x / 32] = __popc(mask);
    if (threadIdx.x == 0) *before = 0;
    __syncthreads();  // the counts of all warps are known
    for (int block = threadIdx.x; block < (int)blockIdx.x; block += THREADS) sum += begun[LISTS * block];
    if (sum) atomicAdd(before, sum);
    __syncthreads();  // the blocks before this are added up
    Long place = *before + __popc(mask & ((1u << lane) - 1));
    for (int warp = 0; warp < (int)threadIdx.x / 32; warp++) place += of_warp[warp];
    return place;
}

// The results of all images, one after another: ids_a, ids_b, shared; labels and sizes (zero on entry) of either image.
// names_a, names_b : the labels, ascending, if `named`.
extern "C" __global__ void __launch_bounds__(THREADS)
assemble(const Key* entries, const int* tags, const Long* slot_of_entry, const Long* order, const Long* again,
         int several, Long n, const int* begun, const Key* counts, const Long* names_a, const Long* names_b, int named,
         Long* ids_a, Long* ids_b, Long* shared, Long* labels_a, Long* labels_b, Key* size_a, Key* size_b) {
    __shared__ int of_warp[LISTS][WARPS], before[LISTS];
    Entry entry = entry_at((Long)blockIdx.x * THREADS + threadIdx.x, n, entries, tags, slot_of_entry, order, again, several);
    Long places[LISTS];
    for (int list = 0; list < LISTS; list++)
        places[list] = place_of(entry.begins[list], begun + list, of_warp[list], &before[list]);
    if (entry.a == 0) return;
    Key count = counts[entry.slot];
    bool second = entry.of_labels == LABELS_B, begins = entry.begins[entry.of_labels];
    Long label = !named ? (Long)entry.a : (second ? names_b : names_a)[entry.a - 1];
    Long at = places[entry.of_labels] + begins - 1;
    if (begins) (second ? labels_b : labels_a)[at] = label;
    atomicAdd(&(second ? size_b : size_a)[at], count);
    if (!entry.begins[PAIRS]) return;
    ids_a[places[PAIRS]] = label, shared[places[PAIRS]] = (Long)count;
    ids_b[places[PAIRS]] = named ? names_b[entry.b - 1] : (Long)entry.b;
}

// Replace every label by 1 + its slot in `names` (slots,), zero on entry; 0 stays 0.
extern "C" __global__ void __launch_bounds__(THREADS)
number_labels(const LABEL* labels, Long pixels, Key* names, Long slots, int* numbers, int* trouble) {
    for (Long pixel = (Long)blockIdx.x * THREADS + threadIdx.x; pixel < pixels; pixel += (Long)gridDim.x * THREADS) {
        LABEL label = labels[pixel];
        if (label < 0) atomicOr(trouble, NEGATIVE);
        bool is_new;
        Long slot = label ? slot_of((Key)label, names, slots, PROBES, (const Key*)0, is_new) : -1;
        if (label && slot < 0) atomicOr(trouble, FULL);
        numbers[pixel] = (int)(slot + 1);
    }
}
