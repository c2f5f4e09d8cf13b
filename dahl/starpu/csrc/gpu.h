/* Shared by the C files that run tasks on NVIDIA GPUs. */
#ifndef DAHL_GPU_H
#define DAHL_GPU_H
#include "internal.h"
#ifdef STARPU_USE_CUDA
#include <cuda.h>
#include <cuda_runtime_api.h>

/* Functions of all sources together, by the numbers that Python gives them. */
#define DAHL_MAX_FUNCTIONS 1024
/* Tasks of a worker that can be under way: STARPU_MAX_PIPELINE, and some more. */
#define DAHL_FAILURE_WORDS 16
/* Addresses that one argument passes; ITEMS_PER_LAUNCH in dahl/starpu/launch.py. */
#define DAHL_ITEMS 32

/* cuBLAS's types, as far as they are needed: its headers need not be there. */
typedef struct cublasContext *dahl_blas_handle;

struct dahl_gpu {
    int device;
    CUfunction functions[DAHL_MAX_FUNCTIONS];
    dahl_blas_handle blas;
    int blas_has_stream;
    _Atomic(char *) scratch;
    uint64_t scratch_bytes;
    int32_t *failures;        /* in main memory, a word for each task under way */
    CUdeviceptr failures_at;  /* their address for the GPU */
    unsigned launched;        /* by the worker itself */
    atomic_int under_way;
};

struct dahl_cuda_api {
    CUresult (*module_load)(CUmodule *, const void *);
    CUresult (*module_unload)(CUmodule);
    CUresult (*module_function)(CUfunction *, CUmodule, const char *);
    CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                       void **, void **);
    CUresult (*error_string)(CUresult, const char **);
    int (*blas_create)(dahl_blas_handle *);
    int (*blas_destroy)(dahl_blas_handle);
    int (*blas_stream)(dahl_blas_handle, cudaStream_t);
    int (*blas_math)(dahl_blas_handle, int);
    int (*sgemm)(dahl_blas_handle, int, int, int, int, int, const float *, const float *, int, const float *, int,
                 const float *, float *, int);
    int (*sgemm_batched)(dahl_blas_handle, int, int, int, int, int, const float *, const float *, int, long long,
                         const float *, int, long long, const float *, float *, int, long long, int);
};

extern struct dahl_cuda_api dahl_cuda;

struct dahl_gpu *dahl_gpu_of(int worker);
CUdeviceptr dahl_constant_on(int device, const void *host);
void dahl_run_cuda(void *interfaces[], void *arg);
#endif
#endif
