// Convolution as a product of matrices of which one is never made: its elements are read where they stand in the image.

#include "sum_parts.cuh"

const int STEP = 8;  // of the sum, between two loads

struct Window {
    int channels, height, width, filters, kh, kw, rows, columns, stride, padding;
};

// A block computes a tile of ROWS x TM by COLUMNS x TN of c = a b, 256 threads TM x TN each, over k from `begin` on.
template <int ROWS, int COLUMNS, int TM, int TN, class Product>
__device__ inline void multiply(const Product &product, int m, int n, int begin, int end) {
    const int BM = ROWS * TM, BN = COLUMNS * TN;
    __shared__ float left[STEP][BM + 1], right[STEP][BN];
    const int thread = threadIdx.x, row = thread / COLUMNS * TM, column = thread % COLUMNS;
    const int top = blockIdx.y * BM, first = blockIdx.x * BN;
    const auto loaded = product.column(min(first + thread % BN, n - 1));
    float sums[TM][TN] = {};
    for (int k = begin; k < end; k += STEP) {
        for (int e = thread; e < STEP * BM; e += 256) {
            const int at = k + e % STEP, own = top + e / STEP;
            left[e % STEP][e / STEP] = at < end && own < m ? product.left(own, at) : 0.0f;
        }
        for (int e = thread; e < STEP * BN; e += 256) {
            const int at = k + e / BN;
            right[e / BN][e % BN] = at < end && first + e % BN < n ? product.right(at, loaded) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int s = 0; s < STEP; s++) {
            float a[TM], b[TN];
#pragma unroll
            for (int i = 0; i < TM; i++) a[i] = left[s][row + i];
#pragma unroll
            for (int j = 0; j < TN; j++) b[j] = right[s][column + j * COLUMNS];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) {
            const int own = top + row + i, at = first + column + j * COLUMNS;
            if (own < m && at < n) product.store(own, at, sums[i][j]);
        }
}

// y: filters by pixels, over taps.
struct Forward {
    const float *x, *w;
    float *y;
    Window window;
    struct Pixel {
        const float *image;
        int top, left;
    };
    __device__ Pixel column(int n) const {
        const int plane = window.rows * window.columns, image = n / plane, at = n % plane;
        return {x + (long long)image * window.channels * window.height * window.width,
                at / window.columns * window.stride - window.padding,
                at % window.columns * window.stride - window.padding};
    }
    __device__ float left(int m, int k) const { return w[m * window.channels * window.kh * window.kw + k]; }
    __device__ float right(int k, const Pixel &pixel) const {
        const int taps = window.kh * window.kw, channel = k / taps, tap = k % taps;
        const int row = pixel.top + tap / window.kw, column = pixel.left + tap % window.kw;
        if (row < 0 || row >= window.height || column < 0 || column >= window.width) return 0.0f;
        return pixel.image[(channel * window.height + row) * window.width + column];
    }
    __device__ void store(int m, int n, float value) const {
        const int plane = window.rows * window.columns;
        y[((long long)(n / plane) * window.filters + m) * plane + n % plane] = value;
    }
};

// dx: channels by pixels, over the filters' taps.
struct BackwardInput {
    const float *dy, *w;
    float *dx;
    Window window;
    struct Pixel {
        const float *image;
        int row, column;
    };
    __device__ Pixel column(int n) const {
        const int plane = window.height * window.width, image = n / plane, at = n % plane;
        return {dy + (long long)image * window.filters * window.rows * window.columns,
                at / window.width + window.padding, at % window.width + window.padding};
    }
    __device__ float left(int m, int k) const {
        const int taps = window.kh * window.kw;
        return w[(k / taps * window.channels + m) * taps + k % taps];
    }
    __device__ float right(int k, const Pixel &pixel) const {
        const int taps = window.kh * window.kw, filter = k / taps, tap = k % taps;
        const int row = pixel.row - tap / window.kw, column = pixel.column - tap % window.kw;
        if (row < 0 || column < 0 || row % window.stride || column % window.stride) return 0.0f;
        const int i = row / window.stride, j = column / window.stride;
        if (i >= window.rows || j >= window.columns) return 0.0f;
        return pixel.image[(filter * window.rows + i) * window.columns + j];
    }
    __device__ void store(int m, int n, float value) const {
        const int plane = window.height * window.width;
        dx[((long long)(n / plane) * window.channels + m) * plane + n % plane] = value;
    }
};

// dw: filters by taps, over pixels; each part of these has a place of its own.
struct BackwardWeight {
    const float *x, *dy;
    float *dw;
    Window window;
    struct Tap {
        int channel, row, column;
    };
    __device__ Tap column(int n) const {
        const int taps = window.kh * window.kw;
        return {n / taps, n % taps / window.kw - window.padding, n % window.kw - window.padding};
    }
    __device__ float left(int m, int k) const {
        const int plane = window.rows * window.columns;
        return dy[((long long)(k / plane) * window.filters + m) * plane + k % plane];
    }
    __device__ float right(int k, const Tap &tap) const {
        const int plane = window.rows * window.columns, image = k / plane, at = k % plane;
        const int row = at / window.columns * window.stride + tap.row;
        const int column = at % window.columns * window.stride + tap.column;
        if (row < 0 || row >= window.height || column < 0 || column >= window.width) return 0.0f;
        return x[(((long long)image * window.channels + tap.channel) * window.height + row) * window.width + column];
    }
    __device__ void store(int m, int n, float value) const {
        dw[m * window.channels * window.kh * window.kw + n] = value;
    }
};

#define WINDOW                                                                                                     \
    int images, int channels, int height, int width, int filters, int kh, int kw, int rows, int columns, int stride, \
        int padding
#define MADE_WINDOW {channels, height, width, filters, kh, kw, rows, columns, stride, padding}

template <int ROWS, int COLUMNS, int TM, int TN>
__device__ void forward(const float *x, const float *w, float *y, int images, const Window &window) {
    multiply<ROWS, COLUMNS, TM, TN>(Forward{x, w, y, window}, window.filters, images * window.rows * window.columns, 0,
                                    window.channels * window.kh * window.kw);
}

template <int ROWS, int COLUMNS, int TM, int TN>
__device__ void backward_input(const float *dy, const float *w, float *dx, int images, const Window &window) {
    multiply<ROWS, COLUMNS, TM, TN>(BackwardInput{dy, w, dx, window}, window.channels,
                                    images * window.height * window.width, 0, window.filters * window.kh * window.kw);
}

template <int ROWS, int COLUMNS, int TM, int TN>
__device__ void backward_weight(const float *x, const float *dy, float *partial, int images, int share,
                                const Window &window) {
    const int taps = window.channels * window.kh * window.kw, pixels = images * window.rows * window.columns;
    const int begin = blockIdx.z * share;
    const BackwardWeight product{x, dy, partial + (long long)blockIdx.z * window.filters * taps, window};
    multiply<ROWS, COLUMNS, TM, TN>(product, window.filters, taps, begin, min(begin + share, pixels));
}

extern "C" __global__ void __launch_bounds__(256) conv2d_64x64(const float *x, const float *w, float *y, WINDOW) {
    forward<16, 16, 4, 4>(x, w, y, images, MADE_WINDOW);
}

extern "C" __global__ void __launch_bounds__(256) conv2d_8x256(const float *x, const float *w, float *y, WINDOW) {
    forward<1, 256, 8, 1>(x, w, y, images, MADE_WINDOW);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_backward_input_64x64(const float *dy, const float *w, float *dx, WINDOW) {
    backward_input<16, 16, 4, 4>(dy, w, dx, images, MADE_WINDOW);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_backward_input_8x256(const float *dy, const float *w, float *dx, WINDOW) {
    backward_input<1, 256, 8, 1>(dy, w, dx, images, MADE_WINDOW);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_backward_weight_64x64(const float *x, const float *dy, float *partial, int share, WINDOW) {
    backward_weight<16, 16, 4, 4>(x, dy, partial, images, share, MADE_WINDOW);
}

extern "C" __global__ void __launch_bounds__(256)
    conv2d_backward_weight_8x32(const float *x, const float *dy, float *partial, int share, WINDOW) {
    backward_weight<8, 32, 1, 1>(x, dy, partial, images, share, MADE_WINDOW);
}
