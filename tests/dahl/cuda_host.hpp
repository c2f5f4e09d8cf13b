// Enough of CUDA C to run its functions on the host: a block's threads are fibers that take turns at barriers.
// It says nothing of speed; what it shows is arithmetic, indices, and sums whose order does not depend on the threads'.

#include <cmath>
#include <cstdint>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__
#define DYNAMIC_SHARED(name) float *name = host::shared

struct uint2 { unsigned x, y; };
struct float4 { float x, y, z, w; };
struct Place { unsigned x, y, z; };
static Place threadIdx, blockIdx, blockDim, gridDim;

template <class A, class B>
typename std::common_type<A, B>::type min(A a, B b) { return b < a ? b : a; }
template <class A, class B>
typename std::common_type<A, B>::type max(A a, B b) { return a < b ? b : a; }

namespace host {
alignas(256) static float shared[64 * 1024];
static const size_t STACK = 64 * 1024;
static jmp_buf scheduler, fibers[1024];
enum State { RUNS, AT_WARP, AT_BLOCK, DONE };
static State state[1024];
static float lane_values[1024];
static int made, current;
static void (*body)(void *);
static void *body_data;

// A context is made once for each fiber; from then on it is switched to without a system call.
inline void wait(State reached) {
    state[current] = reached;
    if (!_setjmp(fibers[current])) _longjmp(scheduler, 1);
}

inline void fiber() {
    for (;;) {
        body(body_data);
        wait(DONE);
    }
}

inline void resume(int t) {
    static ucontext_t start, unused;
    current = t;
    threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    if (_setjmp(scheduler)) return;
    if (t < made) _longjmp(fibers[t], 1);
    made = t + 1;
    getcontext(&start);
    start.uc_stack.ss_sp = new char[STACK];
    start.uc_stack.ss_size = STACK;
    start.uc_link = nullptr;
    makecontext(&start, fiber, 0);
    swapcontext(&unused, &start);
}

// Let the threads from `first` on go on if all of them that are left stand at the same barrier.
inline bool release(State reached, int first, int until) {
    bool found = false;
    for (int t = first; t < until; t++) {
        if (state[t] != reached && state[t] != DONE) return false;
        found = found || state[t] == reached;
    }
    for (int t = first; t < until; t++)
        if (state[t] == reached) state[t] = RUNS;
    return found;
}

// Threads take their turns in ascending or descending order.
inline void run_block(bool descending) {
    const int count = blockDim.x * blockDim.y * blockDim.z;
    for (int t = 0; t < count; t++) state[t] = RUNS;
    const bool backwards = descending && count <= made;
    for (bool left = true; left;) {
        for (int i = 0; i < count; i++) {
            const int t = backwards ? count - 1 - i : i;
            if (state[t] == RUNS) resume(t);
        }
        left = release(AT_BLOCK, 0, count);
        for (int warp = 0; !left && warp < count; warp += 32) release(AT_WARP, warp, min(warp + 32, count));
        bool all_done = true;
        for (int t = 0; t < count; t++) {
            left = left || state[t] == RUNS;
            all_done = all_done && state[t] == DONE;
        }
        if (!left && !all_done) {
            fprintf(stderr, "some threads of a block wait at a barrier that the others do not reach\n");
            abort();
        }
    }
}

inline void run_grid(const int *grid, const int *block, int shared_bytes, bool descending) {
    gridDim = {(unsigned)grid[0], (unsigned)grid[1], (unsigned)grid[2]};
    blockDim = {(unsigned)block[0], (unsigned)block[1], (unsigned)block[2]};
    const int count = grid[0] * grid[1] * grid[2];
    for (int i = 0; i < count; i++) {
        const unsigned b = descending ? count - 1 - i : i;
        blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        memset(shared, 0xff, sizeof shared);  // NaN
        run_block(descending);
    }
}

template <class... A>
struct Call {
    void (*function)(A...);
    void **arguments;
    template <size_t... I>
    void call(std::index_sequence<I...>) { function(*static_cast<A *>(arguments[I])...); }
    static void run(void *self) { static_cast<Call *>(self)->call(std::index_sequence_for<A...>{}); }
};

template <class... A>
void launch(void (*function)(A...), void **arguments, const int *grid, const int *block, int bytes, bool descending) {
    Call<A...> made{function, arguments};
    body = Call<A...>::run;
    body_data = &made;
    run_grid(grid, block, bytes, descending);
}

template <class T> struct Code;
template <> struct Code<int> { static std::string name() { return "Int32"; } };
template <> struct Code<float> { static std::string name() { return "Float32"; } };
template <> struct Code<double> { static std::string name() { return "Scalar float64"; } };
template <> struct Code<long long> { static std::string name() { return "Scalar int64"; } };
template <> struct Code<float *> { static std::string name() { return "float32"; } };
template <> struct Code<double *> { static std::string name() { return "float64"; } };
template <> struct Code<int *> { static std::string name() { return "int32"; } };
template <> struct Code<long long *> { static std::string name() { return "int64"; } };
template <> struct Code<unsigned char *> { static std::string name() { return "uint8"; } };
template <class T> struct Code<const T *> { static std::string name() { return "const " + Code<T *>::name(); } };

template <class... A>
std::string types(void (*)(A...)) {
    std::string found;
    ((found += Code<A>::name() + ","), ...);
    return found;
}
}  // namespace host

inline void __syncthreads() { host::wait(host::AT_BLOCK); }

inline float __shfl_xor_sync(unsigned, float value, int distance) {
    const int own = host::current;
    host::lane_values[own] = value;
    host::wait(host::AT_WARP);
    const float found = host::lane_values[own ^ distance];
    host::wait(host::AT_WARP);
    return found;
}
