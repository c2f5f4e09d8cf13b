#ifndef NETWORK_STEP_CUH
#define NETWORK_STEP_CUH

// What the steps of whole networks share: the loss of an image, and the numbers of a micro-tile.

#include "gather.cuh"
#include "sum_and_step.cuh"
#include "sum_parts.cuh"

const int MICRO_TILE = 16;

// Loss of an image; its logits become the gradient of `scale` times that, and with a scale of 0 stay as they are.
__device__ inline double image_loss(float *logits, int classes, int label, float scale) {
    float largest = logits[0], exponentials = 0.0f;
    for (int c = 1; c < classes; c++) largest = logits[c] > largest ? logits[c] : largest;
    for (int c = 0; c < classes; c++) exponentials += expf(logits[c] - largest);
    const double loss = (double)logf(exponentials) + ((double)largest - (double)logits[label]);
    if (scale != 0.0f) {
        const float factor = scale / exponentials;
        for (int c = 0; c < classes; c++)
            logits[c] = expf(logits[c] - largest) * factor - (c == label ? scale : 0.0f);
    }
    return loss;
}

__device__ inline bool is_right(const float *logits, int classes, int label) {
    int best = 0;
    bool known = true;
    for (int c = 0; c < classes; c++) {
        known = known && logits[c] == logits[c];
        if (logits[c] > logits[best]) best = c;
    }
    return known && best == label;
}

// history[index, k] = the sum over micro-tile k of a number for each image.
template <class T>
__device__ void record_micro_tiles(const T *by_image, T *history, int count, int length, int columns, long long index,
                                   int *failure) {
    const int part = position();
    if (index < 0 || index >= length) {
        *failure = HISTORY_OUTSIDE;
        return;
    }
    if (part * MICRO_TILE >= count) return;
    T total = 0;
    for (int n = part * MICRO_TILE; n < min((part + 1) * MICRO_TILE, count); n++) total += by_image[n];
    history[index * columns + part] = total;
}

extern "C" __global__ void record_losses(const double *by_image, double *history, int count, int length, int columns,
                                         long long index, int *failure) {
    record_micro_tiles(by_image, history, count, length, columns, index, failure);
}

extern "C" __global__ void record_right(const long long *by_image, long long *history, int count, int length,
                                        int columns, long long index, int *failure) {
    record_micro_tiles(by_image, history, count, length, columns, index, failure);
}

#endif
