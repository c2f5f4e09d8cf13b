#include "sum_and_step.cuh"
