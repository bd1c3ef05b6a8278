// CUDA for g++: lets a kernel file compile as host C++ and run without a GPU. For tests only.
//
// One block runs at a time. Its threads are coroutines, each with a stack of its own, switched by hand: a thread runs
// until it meets a barrier or ends. So threads interleave at barriers, at warp operations and, in the shuffled order, at
// atomics too; a barrier that is missing shows as another answer when the order changes. Spin locks would hang.
// Reported as errors: a barrier or warp operation that some threads never reach, and barriers of different lines.
// Shared memory is filled with rubbish before each block. Built with -fsanitize=address, overruns of shared and global
// memory are found; the annotations tell AddressSanitizer which stack is in use.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __constant__ static
#define __shared__ static __attribute__((section("cuda_shared")))
#define DYNAMIC_SHARED(type, name) type* name = (type*)host::dynamic_shared.data()
#define threadIdx host::now->index
#define blockIdx host::block_index
#define blockDim host::block_size
#define gridDim host::grid_size
#define warpSize 32
#define __syncthreads() host::barrier(__LINE__)
#define __syncthreads_or(p) (host::vote(__LINE__, (p) != 0) > 0)
#define __syncthreads_and(p) (host::vote(__LINE__, (p) == 0) == 0)
#define __syncthreads_count(p) host::vote(__LINE__, (p) != 0)
#define __syncwarp(...) host::meet_warp(host::mask_of(__VA_ARGS__), __LINE__)

struct dim3 { unsigned x = 1, y = 1, z = 1; };
extern "C" char __start_cuda_shared[] __attribute__((weak)), __stop_cuda_shared[] __attribute__((weak));
__attribute__((used, section("cuda_shared"))) static long long some_shared_memory = 0;  // so that the section exists

namespace host {
enum State { READY, AT_BARRIER, AT_WARP, ENDED };
const size_t STACK = 1 << 17;
struct Thread {
    dim3 index; unsigned number; State state; int line; unsigned mask; unsigned long long deposit[2]; unsigned turn;
    void* stack; char* memory = nullptr; void* fake = nullptr;
#if !defined(__x86_64__)
    ucontext_t context;
#endif
};
static dim3 block_index, block_size, grid_size;
static std::vector<Thread> threads;
static Thread scheduler, *now;
static std::vector<unsigned long long> dynamic_shared;
inline void (*body)(void*); static void* body_data;
static int votes[2];
static bool preempt; static unsigned dice;

#if defined(__x86_64__)
extern "C" void host_switch(void** save, void* load);
asm(".text\n.local host_switch\nhost_switch:\n pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    " movq %rsp,(%rdi)\n movq %rsi,%rsp\n popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
#endif

[[maybe_unused]] static const void* main_stack;
[[maybe_unused]] static size_t main_size;

inline void arrived(void* fake, bool on_fiber) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom; size_t size;
    __sanitizer_finish_switch_fiber(fake, &bottom, &size);
    if (on_fiber) main_stack = bottom, main_size = size;
#endif
    (void)fake, (void)on_fiber;
}

inline void switch_stacks(Thread& from, Thread& to, bool last = false) {
#if defined(__SANITIZE_ADDRESS__)
    bool back = &to == &scheduler;
    __sanitizer_start_switch_fiber(last ? nullptr : &from.fake, back ? main_stack : to.memory, back ? main_size : STACK);
#endif
#if defined(__x86_64__)
    host_switch(&from.stack, to.stack);
#else
    swapcontext(&from.context, &to.context);
#endif
    arrived(from.fake, &from != &scheduler);
    (void)last;
}

inline void run_thread() {  // the first and only function on a coroutine's stack
    arrived(nullptr, true);
    body(body_data);
    now->state = ENDED;
    switch_stacks(*now, scheduler, true);
    abort();
}

inline void prepare(Thread& t) {
    if (!t.memory) t.memory = (char*)aligned_alloc(64, STACK);
    t.state = READY, t.turn = 0, t.fake = nullptr;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(t.memory, STACK);
#endif
#if defined(__x86_64__)
    void** top = (void**)(t.memory + STACK) - 2;  // the return address: a called function finds its stack 8 off 16 bytes
    *top = (void*)run_thread;
    t.stack = top - 6;  // below it six saved registers
#else
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.memory, t.context.uc_stack.ss_size = STACK, t.context.uc_link = nullptr;
    makecontext(&t.context, run_thread, 0);
#endif
}

inline void wait(State state, int line) { now->state = state, now->line = line, switch_stacks(*now, scheduler); }
inline void barrier(int line) { wait(AT_BARRIER, line); }
inline int vote(int line, bool yes) {
    unsigned turn = now->turn++ & 1;
    votes[turn] += yes;
    barrier(line);
    votes[turn ^ 1] = 0;  // nobody is at the next vote before all have left this barrier, and each sets the same
    int total = votes[turn];
    barrier(line);
    return total;
}
inline void maybe_pause() { if (preempt && ((dice = dice * 1664525u + 1013904223u) >> 30) == 0) wait(READY, 0); }

// Warps: the lanes of a mask meet, leave a value, and meet again before any of them goes on.
inline unsigned lane() { return now->number % 32; }
inline Thread& lane_of_warp(unsigned l) { return threads[now->number / 32 * 32 + l]; }
inline unsigned warp_lanes() {
    size_t left = threads.size() - now->number / 32 * 32;
    return left >= 32 ? ~0u : (1u << left) - 1;
}
inline unsigned mask_of(unsigned mask = ~0u) { return mask; }
inline void meet_warp(unsigned mask, int line) { now->mask = mask & warp_lanes(); wait(AT_WARP, line); }
template <class T> inline void leave(T value) { memcpy(now->deposit, &value, sizeof value); }
template <class T> inline T left_by(unsigned l) { T v; memcpy(&v, lane_of_warp(l).deposit, sizeof v); return v; }
template <class T> inline T shuffle(unsigned mask, T value, unsigned from, int line) {
    leave(value);
    meet_warp(mask, line);
    T result = from < 32 && (warp_lanes() >> from & 1) ? left_by<T>(from) : value;
    meet_warp(mask, line);
    return result;
}
template <class T> inline unsigned match(unsigned mask, T value, int line) {
    leave(value);
    meet_warp(mask, line);
    unsigned same = 0;
    for (unsigned l = 0; l < 32; l++) if ((mask & warp_lanes()) >> l & 1) same |= unsigned(left_by<T>(l) == value) << l;
    meet_warp(mask, line);
    return same;
}

// One block: every thread that can run runs; then warps, then the barrier, are let go when all have come.
inline bool release(std::string& trouble) {
    size_t n = threads.size(), ended = 0, waiting = 0;
    bool moved = false;
    for (Thread& t : threads) {
        ended += t.state == ENDED, waiting += t.state == AT_BARRIER;
        if (t.state != AT_WARP || (t.mask & ((1u << t.number % 32) - 1))) continue;  // the first lane of a mask asks for all
        bool all = true;
        Thread* first = &threads[t.number / 32 * 32];
        for (unsigned l = 0; l < 32; l++)
            if (t.mask >> l & 1) all &= first[l].state == AT_WARP && first[l].mask == t.mask && first[l].line == t.line;
        if (!all) continue;
        for (unsigned l = 0; l < 32; l++) if (t.mask >> l & 1) first[l].state = READY;
        moved = true;
    }
    if (moved || ended == n) return moved;
    if (waiting < n) {
        size_t at = 0;
        while (threads[at].state == ENDED) at++;
        trouble = std::to_string(waiting ? waiting : n - ended) + " of " + std::to_string(n) + " threads wait at the "
            + (threads[at].state == AT_WARP ? "warp operation" : "barrier") + " of line " + std::to_string(threads[at].line)
            + ", which others never reach";
        return false;
    }
    for (Thread& t : threads) {
        if (t.line != threads[0].line)
            trouble = "threads wait at different barriers, of lines " + std::to_string(threads[0].line) + " and "
                + std::to_string(t.line);
        t.state = READY;
    }
    return trouble.empty();
}

inline size_t in_order(size_t k, size_t n, int order) {
    if (order == 0) return k;
    if (order == 1) return n - 1 - k;
    size_t step = n * 5 / 8 | 1, a, b;  // a permutation: times a number without a common factor
    for (;; step += 2) {
        for (a = n, b = step; b; std::swap(a, b)) a %= b;
        if (a == 1) break;
    }
    return (k * step + n / 3) % n;
}

__attribute__((no_sanitize("address"))) static void spoil_shared_memory() {
    for (volatile char* p = __start_cuda_shared; p < __stop_cuda_shared; p++) *p = (char)0xA5;
}

inline std::string run(void (*function)(void*), void* data, const unsigned* grid, const unsigned* block, size_t bytes, int order) {
    body = function, body_data = data, preempt = order == 2, dice = 1;
    grid_size = {grid[0], grid[1], grid[2]}, block_size = {block[0], block[1], block[2]};
    size_t n_blocks = (size_t)grid[0] * grid[1] * grid[2], n = (size_t)block[0] * block[1] * block[2];
    while (threads.size() > n) free(threads.back().memory), threads.pop_back();
    threads.resize(n);
    std::vector<size_t> turns(n);
    for (size_t t = 0; t < n; t++) turns[t] = in_order(t, n, order);
    for (size_t k = 0; k < n_blocks; k++) {
        size_t b = in_order(k, n_blocks, order);
        block_index = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
        spoil_shared_memory();
        dynamic_shared.assign((bytes + 7) / 8, 0xA5A5A5A5A5A5A5A5ull), dynamic_shared.shrink_to_fit();
        votes[0] = votes[1] = 0;
        for (size_t t = 0; t < n; t++) {
            threads[t].number = t;
            threads[t].index = {unsigned(t % block[0]), unsigned(t / block[0] % block[1]), unsigned(t / block[0] / block[1])};
            prepare(threads[t]);
        }
        std::string trouble;
        do {
            for (bool again = true; again;) {
                again = false;
                for (size_t t = 0; t < n; t++) {
                    now = &threads[turns[t]];
                    if (now->state != READY) continue;
                    switch_stacks(scheduler, *now);
                    again |= now->state == READY;
                }
            }
        } while (release(trouble));
        if (!trouble.empty())
            return "block (" + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) + ", "
                + std::to_string(block_index.z) + "): " + trouble;
    }
    return "";
}

// Launching by a list of pointers to the arguments, as the CUDA driver does; and what types a kernel takes.
template <class T> std::string type_name() {
    if constexpr (std::is_pointer_v<T>) return "*" + type_name<std::remove_cv_t<std::remove_pointer_t<T>>>();
    else if constexpr (std::is_void_v<T>) return "void";
    else return (std::is_same_v<T, bool> ? "b" : std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "i" : "u") + std::to_string(sizeof(T));
}
template <class... A> std::string type_names(void (*)(A...)) { return ((type_name<A>() + " ") + ... + std::string()); }
template <class... A, size_t... I> void call(void (*f)(A...), void** p, std::index_sequence<I...>) { f(*(A*)p[I]...); }
template <auto kernel, class... A> void call_kernel(void (*)(A...), void* arguments) {
    call(kernel, (void**)arguments, std::index_sequence_for<A...>());
}
}  // namespace host

#define HOST_KERNEL(name) \
    extern "C" void launch_##name(const unsigned* grid, const unsigned* block, size_t shared, int order, void** arguments, char* trouble) { \
        snprintf(trouble, 200, "%s", host::run([](void* p) { host::call_kernel<name>(name, p); }, arguments, grid, block, shared, order).c_str()); \
    } \
    extern "C" void types_##name(char* text) { snprintf(text, 400, "%s", host::type_names(name).c_str()); }

// What CUDA C++ offers inside kernels.
#define __shfl_sync(mask, v, from) host::shuffle(mask, v, from, __LINE__)
#define __shfl_down_sync(mask, v, by) host::shuffle(mask, v, host::lane() + (by), __LINE__)
#define __shfl_up_sync(mask, v, by) host::shuffle(mask, v, host::lane() - (by), __LINE__)
#define __shfl_xor_sync(mask, v, by) host::shuffle(mask, v, host::lane() ^ (by), __LINE__)
#define __match_any_sync(mask, v) host::match(mask, v, __LINE__)
#define __ballot_sync(mask, p) host::ballot(mask, p, __LINE__)
#define __reduce_add_sync(mask, v) host::reduce(mask, v, [](unsigned a, unsigned b) { return a + b; }, __LINE__)
#define __reduce_max_sync(mask, v) host::reduce(mask, v, [](unsigned a, unsigned b) { return a < b ? b : a; }, __LINE__)
#define __any_sync(mask, p) (__ballot_sync(mask, p) != 0)
#define __all_sync(mask, p) (__ballot_sync(mask, !(p)) == 0)
#define __activemask() (1u << host::lane())  // a warp never has to be together
namespace host {
template <class F> inline unsigned reduce(unsigned mask, unsigned value, F both, int line) {
    leave(value);
    meet_warp(mask, line);
    unsigned total = 0;
    for (unsigned l = 0; l < 32; l++) if ((mask & warp_lanes()) >> l & 1) total = both(total, left_by<unsigned>(l));
    meet_warp(mask, line);
    return total;
}
inline unsigned ballot(unsigned mask, bool p, int line) {
    unsigned same = match(mask, (int)p, line);
    return p ? same : mask & warp_lanes() & ~same;
}
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
#define HOST_ATOMIC(name, value) \
    template <class T> inline T name(T* p, std::common_type_t<T> v) { host::maybe_pause(); T old = *p; *p = (value); return old; }
HOST_ATOMIC(atomicAdd, old + v)
HOST_ATOMIC(atomicSub, old - v)
HOST_ATOMIC(atomicMin, v < old ? v : old)
HOST_ATOMIC(atomicMax, old < v ? v : old)
HOST_ATOMIC(atomicOr, old | v)
HOST_ATOMIC(atomicAnd, old & v)
HOST_ATOMIC(atomicXor, old ^ v)
HOST_ATOMIC(atomicExch, v)
template <class T> inline T atomicCAS(T* p, std::common_type_t<T> expected, std::common_type_t<T> v) {
    host::maybe_pause();
    T old = *p;
    if (old == expected) *p = v;
    return old;
}
