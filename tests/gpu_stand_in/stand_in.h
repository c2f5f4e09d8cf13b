/* What the stand-in's libraries share; see __init__.py. */
#ifndef STAND_IN_H
#define STAND_IN_H
#include <cuda.h>
#include <cuda_runtime_api.h>

/* Appends work to a stream, whose thread does it and frees `data`. */
void stand_in_enqueue(cudaStream_t stream, void (*work)(void *), void *data);
/* What a variable of the environment says, or the default. */
long stand_in_setting(const char *name, long value);
#endif
