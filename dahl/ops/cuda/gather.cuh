#ifndef GATHER_CUH
#define GATHER_CUH

#include "common.cuh"

// The number of the image at place n of a tile; 0, and a failure, where it is none.
__device__ inline long long chosen_image(const long long *order, long long first, int n, int count, int entries,
                                         int data, int *failure) {
    if (first < 0 || first + count > entries) {
        *failure = ORDER_OUTSIDE;
        return 0;
    }
    const long long image = order[first + n];
    if (image < 0 || image >= data) {
        *failure = IMAGE_OUTSIDE;
        return 0;
    }
    return image;
}

struct Normalise {
    float factor, offset;
    __device__ Normalise(float mean, float std)
        : factor((float)(1.0 / (255.0 * (double)std))), offset((float)(-(double)mean / (double)std)) {}
    __device__ float operator()(byte pixel) const { return fmaf((float)pixel, factor, offset); }
};

// A block for each image.
extern "C" __global__ void gather(const byte *images, const int *labels, const long long *order, const float *mean,
                                  const float *std, float *x, int *y, int data, int entries, int channels, int plane,
                                  int count, long long first, int *failure) {
    const int n = blockIdx.x;
    const long long image = chosen_image(order, first, n, count, entries, data, failure);
    const int pixels = channels * plane;
    if (threadIdx.x == 0) {
        if (labels[image] < 0) *failure = LABEL_NEGATIVE;
        y[n] = labels[image];
    }
    for (int c = 0; c < channels; c++) {
        if (std[c] == 0.0f) *failure = NO_STD;
        const Normalise normalise(mean[c], std[c]);
        const byte *from = images + image * pixels + c * plane;
        float *to = x + (long long)n * pixels + c * plane;
        for (int i = threadIdx.x; i < plane; i += blockDim.x) to[i] = normalise(from[i]);
    }
}

#endif
