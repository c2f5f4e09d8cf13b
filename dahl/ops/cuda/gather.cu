#include "gather.cuh"
