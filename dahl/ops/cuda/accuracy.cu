#include "common.cuh"

// One block; a row with a NaN counts as wrong.
extern "C" __global__ void accuracy(const float *logits, const int *labels, long long *correct, int rows, int classes,
                                    int *failure) {
    __shared__ long long space[256];
    long long right = 0;
    for (int n = threadIdx.x; n < rows; n += blockDim.x) {
        const float *row = logits + (long long)n * classes;
        if (labels[n] < 0 || labels[n] >= classes) *failure = LABEL_OUTSIDE;
        int best = 0;
        bool known = true;
        for (int c = 0; c < classes; c++) {
            known = known && row[c] == row[c];
            if (row[c] > row[best]) best = c;
        }
        right += known && best == labels[n];
    }
    right = block_sum(right, space);
    if (threadIdx.x == 0) *correct = right;
}
