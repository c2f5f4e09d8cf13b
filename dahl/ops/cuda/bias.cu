#include "sum_parts.cuh"

// y (images, channels, plane); of rows of units the plane is 1.
extern "C" __global__ void bias(float *y, const float *b, int size, int channels, int plane) {
    for (int i = position(); i < size; i += threads()) y[i] += b[i / plane % channels];
}

// A block sums a channel over some images: partial[part, channel].
extern "C" __global__ void bias_gradient(const float *dy, float *partial, int images, int channels, int plane,
                                               int images_per_part) {
    __shared__ float space[256];
    const int channel = blockIdx.x, first = blockIdx.y * images_per_part;
    const int until = min(first + images_per_part, images);
    float total = 0.0f;
    for (int n = first; n < until; n++) {
        const float *values = dy + ((long long)n * channels + channel) * plane;
        for (int i = threadIdx.x; i < plane; i += blockDim.x) total += values[i];
    }
    total = block_sum(total, space);
    if (threadIdx.x == 0) partial[blockIdx.y * channels + channel] = total;
}

// db[unit] = the sum of a column of dy (rows, units): 32 columns to a block, 32 threads to a column.
extern "C" __global__ void column_sums(const float *dy, float *db, int rows, int units) {
    __shared__ float space[32][33];
    const int unit = blockIdx.x * 32 + threadIdx.x;
    float total = 0.0f;
    if (unit < units)
        for (int n = threadIdx.y; n < rows; n += 32) total += dy[(long long)n * units + unit];
    space[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    for (int half = 16; half > 0; half /= 2) {
        if (threadIdx.y < half) space[threadIdx.y][threadIdx.x] += space[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }
    if (threadIdx.y == 0 && unit < units) db[unit] = space[0][threadIdx.x];
}
