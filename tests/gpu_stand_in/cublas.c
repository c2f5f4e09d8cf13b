/* In the place of cuBLAS: column-major products by plain loops, on the handle's stream. */
#include "stand_in.h"
#include <stdlib.h>

struct cublasContext { cudaStream_t stream; };
typedef struct cublasContext *cublasHandle_t;

struct product {
    int transpose_a, transpose_b, m, n, k, lda, ldb, ldc, batch;
    long long stride_a, stride_b, stride_c;
    float alpha, beta;
    const float *a, *b;
    float *c;
};

static void multiply(void *data)
{
    const struct product *p = data;
    for (int i = 0; i < p->batch; i++) {
        const float *a = p->a + i * p->stride_a, *b = p->b + i * p->stride_b;
        float *c = p->c + i * p->stride_c;
        for (int column = 0; column < p->n; column++)
            for (int row = 0; row < p->m; row++) {
                float sum = 0;
                for (int l = 0; l < p->k; l++)
                    sum += a[p->transpose_a ? l + (long)row * p->lda : row + (long)l * p->lda] *
                           b[p->transpose_b ? column + (long)l * p->ldb : l + (long)column * p->ldb];
                float *to = &c[row + (long)column * p->ldc];
                *to = p->alpha * sum + (p->beta == 0 ? 0 : p->beta * *to);
            }
    }
}

int cublasCreate_v2(cublasHandle_t *handle)
{
    *handle = calloc(1, sizeof(**handle));
    return 0;
}

int cublasDestroy_v2(cublasHandle_t handle)
{
    free(handle);
    return 0;
}

int cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return 0;
}

int cublasSetMathMode(cublasHandle_t handle, int mode)
{
    (void)handle;
    return mode == 2 ? 0 : 7; /* CUBLAS_PEDANTIC_MATH alone */
}

int cublasSgemmStridedBatched(cublasHandle_t handle, int transpose_a, int transpose_b, int m, int n, int k,
                              const float *alpha, const float *a, int lda, long long stride_a, const float *b, int ldb,
                              long long stride_b, const float *beta, float *c, int ldc, long long stride_c, int batch)
{
    if (!handle->stream)
        return 1;
    struct product *data = malloc(sizeof(*data));
    *data = (struct product){transpose_a, transpose_b, m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c,
                             *alpha, *beta, a, b, c};
    stand_in_enqueue(handle->stream, multiply, data);
    return 0;
}

int cublasSgemm_v2(cublasHandle_t handle, int transpose_a, int transpose_b, int m, int n, int k, const float *alpha,
                   const float *a, int lda, const float *b, int ldb, const float *beta, float *c, int ldc)
{
    return cublasSgemmStridedBatched(handle, transpose_a, transpose_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc,
                                     0, 1);
}
