/* In place of cuBLAS's functions that StarPU's library names: the project never starts StarPU's cuBLAS. */
#include <stdio.h>
#include <stdlib.h>
#include "cublas.h"

static cublasStatus_t refuse(const char *name)
{
    fprintf(stderr, "%s: this StarPU was built without cuBLAS (scripts/get-starpu --cuda)\n", name);
    abort();
}

cublasStatus_t cublasInit(void) { return refuse("cublasInit"); }
cublasStatus_t cublasShutdown(void) { return refuse("cublasShutdown"); }
cublasStatus_t cublasSetKernelStream(cudaStream_t stream) { (void)stream; return refuse("cublasSetKernelStream"); }
cublasStatus_t cublasCreate(cublasHandle_t *handle) { (void)handle; return refuse("cublasCreate"); }
cublasStatus_t cublasDestroy(cublasHandle_t handle) { (void)handle; return refuse("cublasDestroy"); }
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) { (void)handle; (void)stream; return refuse("cublasSetStream"); }
