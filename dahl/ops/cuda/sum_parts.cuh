#ifndef SUM_PARTS_CUH
#define SUM_PARTS_CUH

#include "common.cuh"

// out[i] = the sum over parts of partial[part * stride + i]: 32 elements to a block of 32 x 16 threads.
extern "C" __global__ void sum_parts(const float *partial, float *out, int parts, int stride, int size) {
    __shared__ float space[16][33];
    const int i = blockIdx.x * 32 + threadIdx.x, share = (parts + 15) / 16;
    const int first = threadIdx.y * share, until = min(first + share, parts);
    float total = 0.0f;
    if (i < size) {
#pragma unroll 8
        for (int part = first; part < until; part++) total += partial[(long long)part * stride + i];
    }
    space[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    for (int half = 8; half > 0; half /= 2) {
        if (threadIdx.y < half) space[threadIdx.y][threadIdx.x] += space[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }
    if (threadIdx.y == 0 && i < size) out[i] = space[0][threadIdx.x];
}

#endif
