#ifndef COMMON_CUH
#define COMMON_CUH

// What every kernel here shares. Matrices are row-major; sums are taken in an order that only the shapes decide.

#ifndef DYNAMIC_SHARED
extern __shared__ __align__(16) float dynamic_shared[];
#define DYNAMIC_SHARED(name) float *name = dynamic_shared
#endif

typedef unsigned char byte;

const int ITEMS = 32;  // launch.ITEMS_PER_LAUNCH

template <class T>
struct Items {
    const T *of[ITEMS];
};

// launch.FAILURES
enum Found { LABEL_OUTSIDE = 1, IMAGE_OUTSIDE, NO_STD, ORDER_OUTSIDE, HISTORY_OUTSIDE, LABEL_NEGATIVE };

__device__ inline int position() { return blockIdx.x * blockDim.x + threadIdx.x; }

__device__ inline int threads() { return gridDim.x * blockDim.x; }

// A NaN stays one.
__device__ inline float rectified(float value) { return value < 0.0f ? 0.0f : value; }

// The first largest, or the first NaN.
__device__ inline void keep_largest(float candidate, int place, float &best, int &where) {
    if (best == best && !(candidate <= best)) {
        best = candidate;
        where = place;
    }
}

// Sum over a block whose size is a power of two; `space` has an element for each thread. Every thread gets the sum.
template <class T>
__device__ inline T block_sum(T value, T *space) {
    const int own = threadIdx.y * blockDim.x + threadIdx.x, all = blockDim.x * blockDim.y;
    space[own] = value;
    __syncthreads();
    for (int half = all / 2; half > 0; half /= 2) {
        if (own < half) space[own] += space[own + half];
        __syncthreads();
    }
    T total = space[0];
    __syncthreads();
    return total;
}

// Sum over `lanes` neighbouring threads of a warp, a power of two; all of them get it.
__device__ inline float warp_sum(float value, int lanes = 32) {
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

#endif
