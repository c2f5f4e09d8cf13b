#ifndef SUM_AND_STEP_CUH
#define SUM_AND_STEP_CUH

#include "common.cuh"

const int DEPTH = 20;  // of the tree of gradients: mini-batches of up to a million micro-tiles

// Adds items `first` to `first + count` of `all` to the tree that sum_and_step.py tells of, whose branches that are not yet
// added up stand in `branches` between launches, each of `size` floats; with the last item, takes the step.
extern "C" __global__ void sum_and_step(float *w, float *v, const long long *ends, Items<float> items, float *branches,
                                        int first, int count, int all, int size, double learning_rate, double momentum,
                                        double weight_decay) {
    const float rate = (float)learning_rate, kept = (float)momentum, decay = (float)weight_decay;
    const int begin = first > 0 ? (int)ends[first - 1] : 0;
    for (int i = position(); i < size; i += threads()) {
        float left[DEPTH], gradient = 0.0f;
        int depth = 0, start = begin;
        for (int bits = start; bits > 0; bits >>= 1) depth += bits & 1;
        for (int d = 0; d < depth; d++) left[d] = branches[(long long)d * size + i];
        for (int k = 0; k < count; k++) {
            const int end = (int)ends[first + k];
            const bool last = first + k == all - 1;
            gradient = items.of[k][i];
            for (int done = end / (end - start); depth > 0 && (last || done % 2 == 0); done /= 2)
                gradient = left[--depth] + gradient;
            left[depth++] = gradient;
            start = end;
        }
        if (first + count < all) {
            for (int d = 0; d < depth; d++) branches[(long long)d * size + i] = left[d];
        } else {
            const float before = w[i], velocity = kept * v[i] + (gradient + decay * before);
            v[i] = velocity;
            w[i] = before - rate * velocity;
        }
    }
}

#endif
