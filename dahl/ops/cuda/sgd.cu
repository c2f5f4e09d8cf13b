#include "common.cuh"

extern "C" __global__ void sgd(float *w, float *v, const float *g, int size, double learning_rate, double momentum,
                               double weight_decay) {
    const float rate = (float)learning_rate, kept = (float)momentum, decay = (float)weight_decay;
    for (int i = position(); i < size; i += threads()) {
        const float step = kept * v[i] + (g[i] + decay * w[i]);
        v[i] = step;
        w[i] -= rate * step;
    }
}
