#include "common.cuh"

// x and y may be the same array.
extern "C" __global__ void relu(const float *x, float *y, int size) {
    for (int i = position(); i < size; i += threads()) y[i] = rectified(x[i]);
}

// dy and dx may be the same array.
extern "C" __global__ void relu_backward(const float *y, const float *dy, float *dx, int size) {
    for (int i = position(); i < size; i += threads()) dx[i] = y[i] <= 0.0f ? 0.0f : dy[i];
}
