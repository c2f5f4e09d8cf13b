// Twice convolution 3x3, ReLU and max-pooling by 2, then linear, ReLU, linear; forward and backward.
// The first pooling's values have the channel as the fastest index, so that a warp is 32 channels of one place:
// which result of a window was the largest is then the same for the whole warp, and backward no other is computed.

#include "network_step.cuh"

const int NOWHERE = 4;  // the place of a largest that ReLU made 0: it has no gradient
const int GROUP = 8;    // filters of a thread

// The weights of the second convolution in the orders that the kernels read: taps (channel, tap, filter) for the way
// there, filters (filter, tap, channel) for the way back.
extern "C" __global__ void pack_filters(const float *w, float *taps, float *filters, int count, int channels) {
    const int size = count * channels * 9;
    for (int i = position(); i < size; i += threads()) {
        const int tap = i % 9, channel = i / 9 % channels, filter = i / 9 / channels;
        taps[(channel * 9 + tap) * count + filter] = w[i];
        filters[(filter * 9 + tap) * channels + channel] = w[i];
    }
}

// x (images, channels, height, width) -> h and places (images, windows, filters). A block takes 32 filters of an image.
extern "C" __global__ void __launch_bounds__(256)
    first_convolution(const float *x, const float *w, const float *b, float *h, byte *places, int channels, int height,
                      int width, int filters) {
    const int filter = blockIdx.y * 32 + threadIdx.x;
    if (filter >= filters) return;
    const int columns = (width - 2) / 2, windows = (height - 2) / 2 * columns;
    const float *image = x + (long long)blockIdx.x * channels * height * width;
    const long long to = (long long)blockIdx.x * windows * filters + filter;
    const float bias = b[filter];
    float taps[9];
    for (int window = threadIdx.y; window < windows; window += blockDim.y) {
        float sums[4] = {};
        for (int c = 0; c < channels; c++) {
            if (channels > 1 || window == threadIdx.y) {
#pragma unroll
                for (int tap = 0; tap < 9; tap++) taps[tap] = w[(filter * channels + c) * 9 + tap];
            }
            const float *corner = image + (c * height + window / columns * 2) * width + window % columns * 2;
            float patch[16];
#pragma unroll
            for (int k = 0; k < 16; k++) patch[k] = corner[k / 4 * width + k % 4];
#pragma unroll
            for (int place = 0; place < 4; place++)
#pragma unroll
                for (int tap = 0; tap < 9; tap++)
                    sums[place] = fmaf(taps[tap], patch[(place / 2 + tap / 3) * 4 + place % 2 + tap % 3], sums[place]);
        }
        float best = sums[0];
        int where = 0;
#pragma unroll
        for (int place = 1; place < 4; place++) keep_largest(sums[place], place, best, where);
        best += bias;
        h[to + (long long)window * filters] = rectified(best);
        places[to + (long long)window * filters] = best <= 0.0f ? NOWHERE : where;
    }
}

// h1 (images, rows x columns, channels) -> h2 (images, filters, windows), places (images, windows, filters).
// A block takes 32 windows, one to a lane, and 64 filters, 8 to a warp; 8 channels at a time stand in shared memory.
extern "C" __global__ void __launch_bounds__(256)
    second_convolution(const float *h1, const float *taps, const float *b, float *h2, byte *places, int images,
                       int channels, int rows, int columns, int filters) {
    const int CHANNELS = 8, PLACE = 33, CHANNEL = 532;  // distances that keep stores in different banks
    __shared__ float patches[CHANNELS * CHANNEL];
    __shared__ float4 weights[CHANNELS * 9 * 16];
    __shared__ int corners[32];
    const int lane = threadIdx.x, warp = threadIdx.y, thread = warp * 32 + lane;
    const int across = (columns - 2) / 2, windows = (rows - 2) / 2 * across, all = images * windows;
    const int own = blockIdx.x * 32 + lane, block_filter = blockIdx.y * 64;
    if (warp == 0) {
        const int n = min(own, all - 1) / windows, window = min(own, all - 1) % windows;
        corners[lane] = (n * rows + window / across * 2) * columns + window % across * 2;
    }
    float sums[GROUP][4] = {};
    for (int start = 0; start < channels; start += CHANNELS) {
        __syncthreads();
        for (int e = thread; e < CHANNELS * 16 * 32; e += 256) {
            const int c = e % CHANNELS, k = e / CHANNELS % 16, to = e / CHANNELS / 16;
            const long long pixel = corners[to] + k / 4 * columns + k % 4;
            patches[c * CHANNEL + k * PLACE + to] = h1[pixel * channels + start + c];
        }
        for (int e = thread; e < CHANNELS * 9 * 64; e += 256) {
            const int filter = block_filter + e % 64;
            ((float *)weights)[e] = filter < filters ? taps[(start * 9 + e / 64) * filters + filter] : 0.0f;
        }
        __syncthreads();
        for (int c = 0; c < CHANNELS; c++) {
            float patch[16];
#pragma unroll
            for (int k = 0; k < 16; k++) patch[k] = patches[c * CHANNEL + k * PLACE + lane];
#pragma unroll
            for (int tap = 0; tap < 9; tap++) {
                const float4 low = weights[(c * 9 + tap) * 16 + warp * 2];
                const float4 high = weights[(c * 9 + tap) * 16 + warp * 2 + 1];
                const float own_weights[GROUP] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
                for (int q = 0; q < GROUP; q++)
#pragma unroll
                    for (int place = 0; place < 4; place++)
                        sums[q][place] = fmaf(own_weights[q], patch[(place / 2 + tap / 3) * 4 + place % 2 + tap % 3],
                                              sums[q][place]);
            }
        }
    }
    if (own >= all) return;
#pragma unroll
    for (int q = 0; q < GROUP; q++) {
        const int filter = block_filter + warp * GROUP + q;
        if (filter >= filters) return;
        float best = sums[q][0];
        int where = 0;
#pragma unroll
        for (int place = 1; place < 4; place++) keep_largest(sums[q][place], place, best, where);
        best += b[filter];
        h2[((long long)(own / windows) * filters + filter) * windows + own % windows] = rectified(best);
        places[(long long)own * filters + filter] = best <= 0.0f ? NOWHERE : where;
    }
}

// Units and logits of a micro-tile in shared memory, (MICRO_TILE, units + 1) and (MICRO_TILE, classes).
// A warp takes an image: its units rectified, then a class after the other.
__device__ void score(const float *z, const float *b3, const float *w4, const float *b4, int count, int units,
                      int classes, float *rectified_units, float *logits) {
    const int lane = threadIdx.x % 32;
    for (int n = threadIdx.x / 32; n < MICRO_TILE; n += blockDim.x / 32) {
        const int place = blockIdx.x * MICRO_TILE + n;
        float *own = rectified_units + n * (units + 1);
        for (int j = lane; j < units; j += 32)
            own[j] = place < count ? rectified(z[(long long)place * units + j] + b3[j]) : 0.0f;
        for (int k = 0; k < classes; k++) {
            float sum = 0.0f;
            for (int j = lane; j < units; j += 32) sum = fmaf(own[j], w4[k * units + j], sum);
            sum = warp_sum(sum);
            if (lane == 0) logits[n * classes + k] = sum + b4[k];
        }
    }
    __syncthreads();
}

__device__ inline int checked_label(const int *labels, int place, int classes, int *failure) {
    if (labels[place] >= 0 && labels[place] < classes) return labels[place];
    *failure = LABEL_OUTSIDE;
    return 0;
}

// A block for each micro-tile. z: the units before bias and ReLU, which become their gradients.
// partial: of each block the gradients of the units' biases, the last weights and the last biases.
extern "C" __global__ void __launch_bounds__(256)
    head_step(float *z, const float *b3, const float *w4, const float *b4, const int *labels, float *partial,
              double *losses, int count, int units, int classes, double scale, int *failure) {
    DYNAMIC_SHARED(shared);
    float *own_units = shared, *logits = own_units + MICRO_TILE * (units + 1);
    score(z, b3, w4, b4, count, units, classes, own_units, logits);
    const int n = threadIdx.x, place = blockIdx.x * MICRO_TILE + n;
    if (n < MICRO_TILE) {
        if (place < count)
            losses[place] =
                image_loss(logits + n * classes, classes, checked_label(labels, place, classes, failure), (float)scale);
        if (place >= count || (float)scale == 0.0f)
            for (int k = 0; k < classes; k++) logits[n * classes + k] = 0.0f;
    }
    __syncthreads();
    float *db3 = partial + (long long)blockIdx.x * (units + classes * units + classes), *dw4 = db3 + units;
    for (int j = threadIdx.x; j < units; j += blockDim.x) {
        float values[MICRO_TILE], gradients[MICRO_TILE] = {};
#pragma unroll
        for (int m = 0; m < MICRO_TILE; m++) values[m] = own_units[m * (units + 1) + j];
        for (int k = 0; k < classes; k++) {
            const float weight = w4[k * units + j];
            float sum = 0.0f;
#pragma unroll
            for (int m = 0; m < MICRO_TILE; m++) {
                sum = fmaf(logits[m * classes + k], values[m], sum);
                gradients[m] = fmaf(logits[m * classes + k], weight, gradients[m]);
            }
            dw4[k * units + j] = sum;
        }
        float bias = 0.0f;
#pragma unroll
        for (int m = 0; m < MICRO_TILE; m++) {
            const float gradient = values[m] <= 0.0f ? 0.0f : gradients[m];
            const int at = blockIdx.x * MICRO_TILE + m;
            if (at < count) z[(long long)at * units + j] = gradient;
            bias += gradient;
        }
        db3[j] = bias;
    }
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        float sum = 0.0f;
        for (int m = 0; m < MICRO_TILE; m++) sum += logits[m * classes + k];
        dw4[classes * units + k] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    head_evaluation(const float *z, const float *b3, const float *w4, const float *b4, const int *labels,
                    double *losses, long long *right, int count, int units, int classes, int *failure) {
    DYNAMIC_SHARED(shared);
    float *own_units = shared, *logits = own_units + MICRO_TILE * (units + 1);
    score(z, b3, w4, b4, count, units, classes, own_units, logits);
    const int n = threadIdx.x, place = blockIdx.x * MICRO_TILE + n;
    if (n >= MICRO_TILE || place >= count) return;
    const int label = checked_label(labels, place, classes, failure);
    right[place] = is_right(logits + n * classes, classes, label);
    losses[place] = image_loss(logits + n * classes, classes, label, 0.0f);
}

template <int DOWN, int RIGHT>
__device__ inline void add_taps(float (&sums)[9], const float (&patch)[16], float gradient) {
#pragma unroll
    for (int tap = 0; tap < 9; tap++)
        sums[tap] = fmaf(gradient, patch[(DOWN + tap / 3) * 4 + RIGHT + tap % 3], sums[tap]);
}

// The second convolution's weights: a lane is a channel, a warp takes 8 filters, a block 64 and some of the images.
// partial: of each part the weights' gradients (filters, channels, 9), then the biases'.
extern "C" __global__ void __launch_bounds__(256)
    filter_gradient(const float *h1, const float *dh2, const byte *places, float *partial, int images, int share,
                    int channels, int rows, int columns, int filters) {
    const int channel = blockIdx.z * 32 + threadIdx.x, start = (blockIdx.y * 8 + threadIdx.y) * GROUP;
    if (channel >= channels || start >= filters) return;
    const int across = (columns - 2) / 2, windows = (rows - 2) / 2 * across;
    const int first = blockIdx.x * share, until = min(first + share, images);
    float sums[GROUP][9] = {}, biases[GROUP] = {};
    for (int n = first; n < until; n++)
        for (int window = 0; window < windows; window++) {
            const long long pixel = ((long long)n * rows + window / across * 2) * columns + window % across * 2;
            const float *corner = h1 + pixel * channels + channel;
            float patch[16];
#pragma unroll
            for (int k = 0; k < 16; k++) patch[k] = corner[(k / 4 * columns + k % 4) * channels];
            const uint2 eight = *(const uint2 *)(places + ((long long)n * windows + window) * filters + start);
#pragma unroll
            for (int q = 0; q < GROUP; q++) {
                const int place = ((q < 4 ? eight.x : eight.y) >> q % 4 * 8) & 255;
                if (place == NOWHERE) continue;
                const float gradient = dh2[((long long)n * filters + start + q) * windows + window];
                biases[q] += gradient;
                if (place == 0) add_taps<0, 0>(sums[q], patch, gradient);
                else if (place == 1) add_taps<0, 1>(sums[q], patch, gradient);
                else if (place == 2) add_taps<1, 0>(sums[q], patch, gradient);
                else add_taps<1, 1>(sums[q], patch, gradient);
            }
        }
    float *own = partial + (long long)blockIdx.x * (filters * channels * 9 + filters);
#pragma unroll
    for (int q = 0; q < GROUP; q++) {
#pragma unroll
        for (int tap = 0; tap < 9; tap++) own[((start + q) * channels + channel) * 9 + tap] = sums[q][tap];
        if (channel == 0) own[filters * channels * 9 + start + q] = biases[q];
    }
}

template <int DOWN, int RIGHT, int WIDTH>
__device__ inline void add_patch(float (&sums)[4][WIDTH], int left, const float (&weights)[9], float gradient) {
#pragma unroll
    for (int tap = 0; tap < 9; tap++)
        sums[DOWN + tap / 3][left + RIGHT + tap % 3] =
            fmaf(gradient, weights[tap], sums[DOWN + tap / 3][left + RIGHT + tap % 3]);
}

// Adds what some neighbouring windows of one row of them send back to dh1 (rows x columns, 32 lanes).
template <int WINDOWS>
__device__ inline void send_back(const float *dh2, const byte *places, const float *packed, float *dh1, int left,
                                 int channels, int columns, int filters, int windows, int across) {
    float sums[4][2 * WINDOWS + 2] = {};
    for (int filter = 0; filter < filters; filter++) {
        float weights[9];
#pragma unroll
        for (int tap = 0; tap < 9; tap++) weights[tap] = packed[(filter * 9 + tap) * channels];
#pragma unroll
        for (int j = 0; j < WINDOWS; j++) {
            if (left + j >= across) break;
            const int place = places[(left + j) * filters + filter];
            if (place == NOWHERE) continue;
            const float gradient = dh2[filter * windows + left + j];
            if (place == 0) add_patch<0, 0>(sums, 2 * j, weights, gradient);
            else if (place == 1) add_patch<0, 1>(sums, 2 * j, weights, gradient);
            else if (place == 2) add_patch<1, 0>(sums, 2 * j, weights, gradient);
            else add_patch<1, 1>(sums, 2 * j, weights, gradient);
        }
    }
#pragma unroll
    for (int b = 0; b < 2 * WINDOWS + 2; b++) {
        if (b >= 2 * (across - left) + 2) break;
#pragma unroll
        for (int a = 0; a < 4; a++) dh1[(a * columns + 2 * left + b) * 32] += sums[a][b];
    }
}

// The share of one image in the first convolution's gradients: a lane is one of its filters.
// x (height, width) of each channel; sums of the warps in their order.
__device__ void first_gradient(const float *x, const float *dh1, const byte *places, float *partial, int channels,
                               int height, int width, int filter, int filters, bool real) {
    __shared__ float by_warp[8][10][32];
    const int columns = (width - 2) / 2, pixels = (height - 2) / 2 * columns, lane = threadIdx.x;
    for (int c = 0; c < channels; c++) {
        float sums[10] = {};
        for (int pixel = threadIdx.y; real && pixel < pixels; pixel += blockDim.y) {
            const int place = places[pixel * filters];
            if (place == NOWHERE) continue;
            const float gradient = dh1[pixel * 32];
            const int row = pixel / columns * 2 + place / 2, column = pixel % columns * 2 + place % 2;
            const float *corner = x + (c * height + row) * width + column;
#pragma unroll
            for (int tap = 0; tap < 9; tap++) sums[tap] = fmaf(gradient, corner[tap / 3 * width + tap % 3], sums[tap]);
            sums[9] += gradient;
        }
#pragma unroll
        for (int k = 0; k < 10; k++) by_warp[threadIdx.y][k][lane] = sums[k];
        __syncthreads();
        for (int k = threadIdx.y; real && k < 10; k += blockDim.y) {
            float sum = 0.0f;
            for (int warp = 0; warp < blockDim.y; warp++) sum += by_warp[warp][k][lane];
            if (k < 9) partial[(filter * channels + c) * 9 + k] = sum;
            else if (c == 0) partial[filters * channels * 9 + filter] = sum;
        }
        __syncthreads();
    }
}

// A block takes an image and 32 channels of dh1: what the second convolution sends back to them, and from that the
// image's share in the first convolution's gradients. Rows of windows overlap, so every second row goes first.
template <int WINDOWS>
__device__ void image_gradient(const float *x, const float *dh2, const byte *places2, const byte *places1,
                               const float *packed, float *scratch, int in_scratch, float *partial, int channels,
                               int height, int width, int first_filters, int filters) {
    DYNAMIC_SHARED(shared);
    const int rows = (height - 2) / 2, columns = (width - 2) / 2, across = (columns - 2) / 2, down = (rows - 2) / 2;
    const int windows = down * across, filter = blockIdx.y * 32 + threadIdx.x;
    const long long image = blockIdx.x, block = image * gridDim.y + blockIdx.y;
    const bool real = filter < first_filters;
    float *dh1 = (in_scratch ? scratch + block * rows * columns * 32 : shared) + threadIdx.x;
    for (int pixel = threadIdx.y; pixel < rows * columns; pixel += blockDim.y) dh1[pixel * 32] = 0.0f;
    for (int odd = 0; odd < 2; odd++) {
        __syncthreads();
        for (int row = odd + 2 * threadIdx.y; real && row < down; row += 2 * blockDim.y)
            for (int left = 0; left < across; left += WINDOWS)
                send_back<WINDOWS>(dh2 + image * filters * windows + row * across,
                                   places2 + (image * windows + row * across) * filters, packed + filter,
                                   dh1 + 2 * row * columns * 32, left, first_filters, columns, filters, windows,
                                   across);
    }
    __syncthreads();
    first_gradient(x + image * channels * height * width, dh1,
                   places1 + image * rows * columns * first_filters + filter,
                   partial + image * (first_filters * (channels * 9 + 1)), channels, height, width, filter,
                   first_filters, real);
}

#define IMAGE                                                                                                        \
    const float *x, const float *dh2, const byte *places2, const byte *places1, const float *packed, float *scratch, \
        int in_scratch, float *partial, int channels, int height, int width, int first_filters, int filters
#define IMAGE_ARGUMENTS                                                                                    \
    x, dh2, places2, places1, packed, scratch, in_scratch, partial, channels, height, width, first_filters, filters

extern "C" __global__ void image_gradient_3(IMAGE) { image_gradient<3>(IMAGE_ARGUMENTS); }

extern "C" __global__ void image_gradient_4(IMAGE) { image_gradient<4>(IMAGE_ARGUMENTS); }

extern "C" __global__ void image_gradient_5(IMAGE) { image_gradient<5>(IMAGE_ARGUMENTS); }

extern "C" __global__ void image_gradient_6(IMAGE) { image_gradient<6>(IMAGE_ARGUMENTS); }
