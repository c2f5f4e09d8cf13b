#include "common.cuh"

// total = (total, unless it begins here) + items[0] + items[1] + ... in this order.
extern "C" __global__ void gradient_sum(float *total, Items<float> items, int count, int size, int begins) {
    for (int i = position(); i < size; i += threads()) {
        float sum = begins ? items.of[0][i] : total[i] + items.of[0][i];
        for (int item = 1; item < count; item++) sum += items.of[item][i];
        total[i] = sum;
    }
}
