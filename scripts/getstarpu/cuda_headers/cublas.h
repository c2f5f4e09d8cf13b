/* cuBLAS's old interface, as far as StarPU's sources name it; see README.md. */
#ifndef DAHL_CUBLAS_H
#define DAHL_CUBLAS_H
#include "cublas_v2.h"

#ifdef __cplusplus
extern "C" {
#endif
cublasStatus_t cublasInit(void);
cublasStatus_t cublasShutdown(void);
cublasStatus_t cublasSetKernelStream(cudaStream_t stream);
#ifdef __cplusplus
}
#endif
#endif
