#include "common.cuh"

template <class T>
__device__ void add_items(T *history, const Items<T> &items, int count, int length, int begins, long long index,
                          int *failure) {
    if (index < 0 || index >= length) {
        *failure = HISTORY_OUTSIDE;
        return;
    }
    T sum = begins ? items.of[0][0] : history[index] + items.of[0][0];
    for (int item = 1; item < count; item++) sum += items.of[item][0];
    history[index] = sum;
}

// One thread.
extern "C" __global__ void record(double *history, Items<double> items, int count, int length, int begins,
                                  long long index, int *failure) {
    add_items(history, items, count, length, begins, index, failure);
}

extern "C" __global__ void record_count(long long *history, Items<long long> items, int count, int length, int begins,
                                        long long index, int *failure) {
    add_items(history, items, count, length, begins, index, failure);
}
