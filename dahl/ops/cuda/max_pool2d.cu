#include "common.cuh"

// x (planes, height, width) -> y and argmax (planes, rows, columns).
extern "C" __global__ void max_pool2d(const float *x, float *y, byte *argmax, int size, int height, int width,
                                      int rows, int columns, int window, int stride) {
    for (int i = position(); i < size; i += threads()) {
        const int column = i % columns, row = i / columns % rows, plane = i / columns / rows;
        const float *values = x + ((long long)plane * height + row * stride) * width + column * stride;
        float best = values[0];
        int where = 0;
        for (int a = 0; a < window; a++)
            for (int b = 0; b < window; b++)
                if (a + b > 0) keep_largest(values[a * width + b], a * window + b, best, where);
        y[i] = best;
        argmax[i] = where;
    }
}

// Each thread adds up, in row order, the windows that took one element of dx.
extern "C" __global__ void max_pool2d_backward(const float *dy, const byte *argmax, float *dx, int size, int height,
                                               int width, int rows, int columns, int window, int stride) {
    for (int i = position(); i < size; i += threads()) {
        const int x = i % width, y = i / width % height, plane = i / width / height;
        const int top = max(0, (y - window + stride) / stride), bottom = min(rows - 1, y / stride);
        const int left = max(0, (x - window + stride) / stride), right = min(columns - 1, x / stride);
        float total = 0.0f;
        for (int row = top; row <= bottom; row++)
            for (int column = left; column <= right; column++) {
                const int at = (plane * rows + row) * columns + column;
                if (argmax[at] == (y - row * stride) * window + x - column * stride) total += dy[at];
            }
        dx[i] = total;
    }
}
