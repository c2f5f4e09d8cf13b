// Convolution 3x3, ReLU, max-pooling by 2 and a linear layer, forward and backward: a block takes a few images through
// all of it and keeps their values beside its multiprocessor. Its gradients are summed over the blocks afterwards.

#include "network_step.cuh"

struct Network {
    int channels, height, width, filters, classes;
    __device__ int pixels() const { return channels * height * width; }
    __device__ int columns() const { return (width - 2) / 2; }
    __device__ int windows() const { return (height - 2) / 2 * columns(); }
    __device__ int inputs() const { return filters * windows(); }
};

// The values of a block. Pixels and places are bytes; `logits` become their gradients.
template <int GROUP>
struct Values {
    float *factor, *offset, *logits, *h;
    byte *pixels, *places;

    __device__ Values(const Network &net, float *shared, float *elsewhere) {
        factor = shared;
        offset = factor + net.channels;
        logits = offset + net.channels;
        h = elsewhere ? elsewhere : logits + GROUP * net.classes;
        pixels = (byte *)(h + GROUP * net.inputs());
        places = pixels + GROUP * net.pixels();
    }
    __device__ float pixel(const byte *at, int channel) const {
        return fmaf((float)*at, factor[channel], offset[channel]);
    }
};

// Images and labels of a block; one that is missing is black, of class 0.
template <int GROUP>
__device__ void load(const Network &net, const byte *images, const int *labels, const long long *order,
                     const float *mean, const float *std, int data, int entries, int count, long long first,
                     Values<GROUP> &values, int *own_labels, int *failure) {
    __shared__ long long chosen[GROUP];
    const int start = blockIdx.x * GROUP, own = min(GROUP, count - start), pixels = net.pixels();
    if (threadIdx.x < GROUP) {
        const int n = threadIdx.x;
        chosen[n] = n < own ? chosen_image(order, first, start + n, count, entries, data, failure) : -1;
        int label = n < own ? labels[chosen[n]] : 0;
        if (label < 0 || label >= net.classes) {
            *failure = LABEL_OUTSIDE;
            label = 0;
        }
        own_labels[n] = label;
    }
    for (int c = threadIdx.x; c < net.channels; c += blockDim.x) {
        if (std[c] == 0.0f) *failure = NO_STD;
        const Normalise normalise(mean[c], std[c]);
        values.factor[c] = normalise.factor;
        values.offset[c] = normalise.offset;
    }
    __syncthreads();
    const bool words = pixels % 4 == 0 && (size_t)images % 4 == 0 && (size_t)values.pixels % 4 == 0;
    const int step = words ? 4 : 1;
    for (int i = threadIdx.x * step; i < GROUP * pixels; i += blockDim.x * step) {
        const int n = i / pixels;
        const byte *from = images + chosen[n] * pixels + i % pixels;
        if (words)
            *(unsigned *)(values.pixels + i) = n < own ? *(const unsigned *)from : 0u;
        else
            values.pixels[i] = n < own ? *from : 0;
    }
    __syncthreads();
}

// h: the pooled and rectified results of four filters at a time; a thread takes the four results of a window.
template <int GROUP>
__device__ void convolve(const Network &net, const float *w, const float *b, Values<GROUP> &values) {
    const int windows = net.windows(), columns = net.columns(), inputs = net.inputs(), channels = net.channels;
    for (int m = threadIdx.x; m < GROUP * windows; m += blockDim.x) {
        const int n = m / windows, window = m % windows;
        const int corner = n * net.pixels() + window / columns * 2 * net.width + window % columns * 2;
        for (int start = 0; start < net.filters; start += 4) {
            float sums[4][4] = {};
            for (int c = 0; c < channels; c++) {
                float patch[16];
#pragma unroll
                for (int k = 0; k < 16; k++)
                    patch[k] = values.pixel(
                        values.pixels + corner + (c * net.height + k / 4) * net.width + k % 4, c);
#pragma unroll
                for (int q = 0; q < 4; q++) {
                    const float *taps = w + (min(start + q, net.filters - 1) * channels + c) * 9;
#pragma unroll
                    for (int tap = 0; tap < 9; tap++) {
                        const float weight = taps[tap];
#pragma unroll
                        for (int place = 0; place < 4; place++)
                            sums[q][place] = fmaf(
                                weight, patch[(place / 2 + tap / 3) * 4 + place % 2 + tap % 3], sums[q][place]);
                    }
                }
            }
#pragma unroll
            for (int q = 0; q < 4; q++) {
                if (start + q >= net.filters) break;
                float best = sums[q][0];
                int where = 0;
#pragma unroll
                for (int place = 1; place < 4; place++) keep_largest(sums[q][place], place, best, where);
                const int at = n * inputs + (start + q) * windows + window;
                values.h[at] = rectified(best + b[start + q]);
                values.places[at] = where;
            }
        }
    }
    __syncthreads();
}

// A warp computes a class of all images of the block.
template <int GROUP>
__device__ void score(const Network &net, const float *w, const float *b, Values<GROUP> &values) {
    const int lane = threadIdx.x % 32, inputs = net.inputs();
    for (int k = threadIdx.x / 32; k < net.classes; k += blockDim.x / 32) {
        float sums[GROUP] = {};
        for (int i = lane; i < inputs; i += 32) {
            const float weight = w[k * inputs + i];
#pragma unroll
            for (int n = 0; n < GROUP; n++) sums[n] = fmaf(weight, values.h[n * inputs + i], sums[n]);
        }
#pragma unroll
        for (int n = 0; n < GROUP; n++) {
            const float sum = warp_sum(sums[n]);
            if (lane == n) values.logits[n * net.classes + k] = sum + b[k];
        }
    }
    __syncthreads();
}

// The block's share of the linear layer's gradients; h becomes its own.
template <int GROUP>
__device__ void linear_gradient(const Network &net, const float *w, float *dw, float *db, Values<GROUP> &values) {
    const int inputs = net.inputs(), classes = net.classes;
    for (int i = threadIdx.x; i < inputs; i += blockDim.x) {
        float h[GROUP], dh[GROUP] = {};
#pragma unroll
        for (int n = 0; n < GROUP; n++) h[n] = values.h[n * inputs + i];
        for (int k = 0; k < classes; k++) {
            const float weight = w[k * inputs + i];
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < GROUP; n++) {
                const float gradient = values.logits[n * classes + k];
                sum = fmaf(gradient, h[n], sum);
                dh[n] = fmaf(gradient, weight, dh[n]);
            }
            dw[k * inputs + i] = sum;
        }
#pragma unroll
        for (int n = 0; n < GROUP; n++) values.h[n * inputs + i] = h[n] <= 0.0f ? 0.0f : dh[n];
    }
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        float sum = 0.0f;
        for (int n = 0; n < GROUP; n++) sum += values.logits[n * classes + k];
        db[k] = sum;
    }
    __syncthreads();
}

// The block's share of the convolution's gradients, of which only the largest of each window has one: `lanes` threads,
// a power of two, to each filter and channel. Where these are more than a warp, all pairs have their turn at once,
// so that `by_warp` is written once.
template <int GROUP>
__device__ void convolution_gradient(const Network &net, int lanes, float *dw, float *db, Values<GROUP> &values) {
    __shared__ float by_warp[16][10];
    const int windows = net.windows(), columns = net.columns(), inputs = net.inputs(), channels = net.channels;
    const int lane = threadIdx.x % lanes, pairs = blockDim.x / lanes, warp = threadIdx.x / 32;
    for (int start = 0; start < net.filters * channels; start += pairs) {
        const int pair = start + threadIdx.x / lanes, filter = pair / channels, channel = pair % channels;
        float sums[10] = {};
        if (filter < net.filters)
            for (int m = lane; m < GROUP * windows; m += lanes) {
                const int n = m / windows, window = m % windows, at = n * inputs + filter * windows + window;
                const float gradient = values.h[at];
                if (gradient == 0.0f) continue;
                const int row = window / columns * 2 + values.places[at] / 2;
                const int column = window % columns * 2 + values.places[at] % 2;
                const byte *from = values.pixels + n * net.pixels() + (channel * net.height + row) * net.width + column;
#pragma unroll
                for (int tap = 0; tap < 9; tap++)
                    sums[tap] = fmaf(gradient, values.pixel(from + tap / 3 * net.width + tap % 3, channel), sums[tap]);
                sums[9] += gradient;
            }
#pragma unroll
        for (int k = 0; k < 10; k++) {
            sums[k] = warp_sum(sums[k], min(lanes, 32));
            if (threadIdx.x % 32 == 0) by_warp[warp][k] = sums[k];
        }
        __syncthreads();
        if (lane == 0 && filter < net.filters) {
            for (int k = 0; k < 10; k++) {
                float sum = sums[k];
                for (int more = 1; more < lanes / 32; more++) sum += by_warp[warp + more][k];
                if (k < 9) dw[pair * 9 + k] = sum;
                else if (channel == 0) db[filter] = sum;
            }
        }
    }
}

#define DATA                                                                                                     \
    const byte *images, const int *labels, const long long *order, const float *mean, const float *std, const float *w
#define SIZES                                                                                                    \
    float *scratch, int scratch_floats, int lanes, int data, int entries, int channels, int height, int width,   \
        int filters, int classes, int count, long long first

template <int GROUP>
__device__ void step(DATA, float *partial, double *losses, SIZES, double scale, int *failure) {
    DYNAMIC_SHARED(shared);
    __shared__ int own_labels[GROUP];
    const Network net{channels, height, width, filters, classes};
    float *elsewhere = scratch_floats ? scratch + (long long)blockIdx.x * scratch_floats : nullptr;
    Values<GROUP> values(net, shared, elsewhere);
    load(net, images, labels, order, mean, std, data, entries, count, first, values, own_labels, failure);
    const int bias = filters * channels * 9, linear = bias + filters, linear_bias = linear + classes * net.inputs();
    convolve(net, w, w + bias, values);
    score(net, w + linear, w + linear_bias, values);
    if (threadIdx.x < GROUP) {
        const int n = threadIdx.x, place = blockIdx.x * GROUP + n;
        float *logits = values.logits + n * classes;
        if (place < count)
            losses[place] = image_loss(logits, classes, own_labels[n], (float)scale);
        if (place >= count || (float)scale == 0.0f)
            for (int k = 0; k < classes; k++) logits[k] = 0.0f;
    }
    __syncthreads();
    float *own = partial + (long long)blockIdx.x * (linear_bias + classes);
    linear_gradient(net, w + linear, own + linear, own + linear_bias, values);
    convolution_gradient(net, lanes, own, own + bias, values);
}

template <int GROUP>
__device__ void evaluate(DATA, double *losses, long long *right, SIZES, int *failure) {
    DYNAMIC_SHARED(shared);
    __shared__ int own_labels[GROUP];
    const Network net{channels, height, width, filters, classes};
    float *elsewhere = scratch_floats ? scratch + (long long)blockIdx.x * scratch_floats : nullptr;
    Values<GROUP> values(net, shared, elsewhere);
    load(net, images, labels, order, mean, std, data, entries, count, first, values, own_labels, failure);
    const int bias = filters * channels * 9, linear = bias + filters, linear_bias = linear + classes * net.inputs();
    convolve(net, w, w + bias, values);
    score(net, w + linear, w + linear_bias, values);
    const int n = threadIdx.x, place = blockIdx.x * GROUP + n;
    if (n < GROUP && place < count) {
        float *logits = values.logits + n * classes;
        right[place] = is_right(logits, classes, own_labels[n]);
        losses[place] = image_loss(logits, classes, own_labels[n], 0.0f);
    }
}

#define DATA_ARGUMENTS images, labels, order, mean, std, w
#define SIZE_ARGUMENTS                                                                                              \
    scratch, scratch_floats, lanes, data, entries, channels, height, width, filters, classes, count, first

extern "C" __global__ void __launch_bounds__(512)
    cnn_step_8(DATA, float *partial, double *losses, SIZES, double scale, int *failure) {
    step<8>(DATA_ARGUMENTS, partial, losses, SIZE_ARGUMENTS, scale, failure);
}

extern "C" __global__ void __launch_bounds__(256)
    cnn_step_2(DATA, float *partial, double *losses, SIZES, double scale, int *failure) {
    step<2>(DATA_ARGUMENTS, partial, losses, SIZE_ARGUMENTS, scale, failure);
}

extern "C" __global__ void __launch_bounds__(512)
    cnn_evaluation_8(DATA, double *losses, long long *right, SIZES, int *failure) {
    evaluate<8>(DATA_ARGUMENTS, losses, right, SIZE_ARGUMENTS, failure);
}

extern "C" __global__ void __launch_bounds__(256)
    cnn_evaluation_2(DATA, double *losses, long long *right, SIZES, int *failure) {
    evaluate<2>(DATA_ARGUMENTS, losses, right, SIZE_ARGUMENTS, failure);
}
