#include "common.cuh"

__device__ inline float largest_of(const float *row, int classes) {
    float best = row[0];
    for (int c = 1; c < classes; c++) best = row[c] > best ? row[c] : best;
    return best;
}

// A thread for each row; row_losses has one number for each.
extern "C" __global__ void softmax_cross_entropy(const float *logits, const int *labels, float *dlogits,
                                                 double *row_losses, int rows, int classes, double scale,
                                                 int *failure) {
    for (int n = position(); n < rows; n += threads()) {
        const float *row = logits + (long long)n * classes;
        float *gradient = dlogits + (long long)n * classes;
        int label = labels[n];
        if (label < 0 || label >= classes) {
            *failure = LABEL_OUTSIDE;
            label = 0;
        }
        const float largest = largest_of(row, classes);
        float exponentials = 0.0f;
        for (int c = 0; c < classes; c++) {
            const float value = expf(row[c] - largest);
            gradient[c] = value;
            exponentials += value;
        }
        row_losses[n] = (double)logf(exponentials) + ((double)largest - (double)row[label]);
        const float factor = (float)scale / exponentials;
        for (int c = 0; c < classes; c++) gradient[c] = gradient[c] * factor - (c == label ? (float)scale : 0.0f);
    }
}

extern "C" __global__ void cross_entropy(const float *logits, const int *labels, double *row_losses, int rows,
                                         int classes, int *failure) {
    for (int n = position(); n < rows; n += threads()) {
        const float *row = logits + (long long)n * classes;
        int label = labels[n];
        if (label < 0 || label >= classes) {
            *failure = LABEL_OUTSIDE;
            label = 0;
        }
        const float largest = largest_of(row, classes);
        float exponentials = 0.0f;
        for (int c = 0; c < classes; c++) exponentials += expf(row[c] - largest);
        row_losses[n] = (double)logf(exponentials) + ((double)largest - (double)row[label]);
    }
}

// One block.
extern "C" __global__ void sum_losses(const double *row_losses, double *loss, int rows) {
    __shared__ double space[256];
    double total = 0.0;
    for (int n = threadIdx.x; n < rows; n += blockDim.x) total += row_losses[n];
    total = block_sum(total, space);
    if (threadIdx.x == 0) *loss = total;
}
