/* Running a launch program: the commands of a task go to its worker's stream, with no Python and no waiting.
 * dahl/starpu/encoding.py writes what is read here. */
#include "gpu.h"
#ifdef STARPU_USE_CUDA
#include <string.h>

enum { LAUNCH = 1, GEMM = 2, CLEAR = 3 };
enum { BUFFER = 0, CONSTANT = 1, SCRATCH = 2, ITEMS = 3, INT32 = 4, FLOAT32 = 5, SCALAR = 6, FAILURE = 7 };

#define ARGUMENT_WORDS 3 /* kind, and two numbers */
#define MAX_ARGUMENTS 48

struct call {
    struct dahl_gpu *gpu;
    struct dahl_record *record;
    void **interfaces;
    cudaStream_t stream;
    CUdeviceptr failure;
};

union value {
    CUdeviceptr address;
    int32_t int32;
    float float32;
    int64_t word;
    CUdeviceptr items[DAHL_ITEMS];
};

static CUdeviceptr buffer_at(const struct call *call, int64_t number)
{
    return (CUdeviceptr)STARPU_VECTOR_GET_PTR(call->interfaces[number]);
}

/* Of a buffer, a constant or scratch; 0 where it is not on this GPU. */
static CUdeviceptr address(const struct call *call, const int64_t *words)
{
    CUdeviceptr base = 0;
    if (words[0] == BUFFER)
        base = buffer_at(call, words[1]);
    else if (words[0] == CONSTANT)
        base = dahl_constant_on(call->gpu->device, (const void *)call->record->args[words[1]]);
    else if (words[0] == SCRATCH)
        base = (CUdeviceptr)atomic_load_explicit(&call->gpu->scratch, memory_order_acquire);
    return base ? base + (CUdeviceptr)words[2] : 0;
}

static int fill(const struct call *call, const int64_t *words, union value *value)
{
    switch (words[0]) {
    case BUFFER:
    case CONSTANT:
    case SCRATCH:
        value->address = address(call, words);
        return value->address ? 0 : -1;
    case ITEMS:
        memset(value->items, 0, sizeof(value->items));
        for (int64_t i = 0; i < words[2]; i++)
            value->items[i] = buffer_at(call, words[1] + i);
        return 0;
    case INT32:
        value->int32 = (int32_t)words[1];
        return 0;
    case FLOAT32:
        memcpy(&value->float32, &words[1], sizeof(value->float32));
        return 0;
    case SCALAR:
        value->word = call->record->args[words[1]];
        return 0;
    case FAILURE:
        value->address = call->failure;
        return 0;
    }
    return -1;
}

static const int64_t *launch(const struct call *call, const int64_t *at, int *error)
{
    union value values[MAX_ARGUMENTS];
    void *pointers[MAX_ARGUMENTS];
    int64_t n = at[8];
    const int64_t *words = at + 9;
    if (n > MAX_ARGUMENTS)
        *error = CUDA_ERROR_INVALID_VALUE;
    for (int64_t i = 0; i < n && !*error; i++, words += ARGUMENT_WORDS) {
        pointers[i] = &values[i];
        if (fill(call, words, &values[i]))
            *error = CUDA_ERROR_INVALID_VALUE;
    }
    if (!*error)
        *error = dahl_cuda.launch(call->gpu->functions[at[0]], at[1], at[2], at[3], at[4], at[5], at[6], at[7],
                                  (CUstream)call->stream, pointers, NULL);
    return at + 9 + n * ARGUMENT_WORDS;
}

/* Row-major c = alpha op(a) op(b) + beta c is column-major c' = alpha op(b)' op(a)' + beta c'. */
static const int64_t *multiply(const struct call *call, const int64_t *at, int *error)
{
    int m = at[0], n = at[1], k = at[2], lda = at[12], ldb = at[13], ldc = at[14];
    int transpose_a = at[15] != 0, transpose_b = at[16] != 0, batch = at[19];
    const float *a = (const float *)address(call, at + 3), *b = (const float *)address(call, at + 6);
    float *c = (float *)address(call, at + 9), alpha, beta;
    memcpy(&alpha, &at[17], sizeof(alpha));
    memcpy(&beta, &at[18], sizeof(beta));
    if (!a || !b || !c || !call->gpu->blas)
        *error = CUDA_ERROR_INVALID_VALUE;
    else if (batch == 1)
        *error = dahl_cuda.sgemm(call->gpu->blas, transpose_b, transpose_a, n, m, k, &alpha, b, ldb, a, lda, &beta, c, ldc);
    else
        *error = dahl_cuda.sgemm_batched(call->gpu->blas, transpose_b, transpose_a, n, m, k, &alpha, b, ldb, at[21], a, lda,
                                         at[20], &beta, c, ldc, at[22], batch);
    return at + 23;
}

static const int64_t *clear(const struct call *call, const int64_t *at, int *error)
{
    CUdeviceptr target = address(call, at);
    *error = target ? cudaMemsetAsync((void *)target, 0, at[3], call->stream) : CUDA_ERROR_INVALID_VALUE;
    return at + 4;
}

static int run(const struct call *call, const int64_t *program)
{
    int error = 0;
    const int64_t *at = program + 1;
    for (int64_t i = 0; i < program[0] && !error; i++) {
        int64_t command = *at++;
        if (command == LAUNCH)
            at = launch(call, at, &error);
        else if (command == GEMM)
            at = multiply(call, at, &error);
        else if (command == CLEAR)
            at = clear(call, at, &error);
        else
            error = CUDA_ERROR_INVALID_VALUE;
    }
    return error;
}

/* STARPU_CUDA_ASYNC: returns once everything is on the stream. */
void dahl_run_cuda(void *interfaces[], void *arg)
{
    struct dahl_record *record = arg;
    int worker = starpu_worker_get_id();
    struct dahl_gpu *gpu = dahl_gpu_of(worker);
    struct call call = {.gpu = gpu, .record = record, .interfaces = interfaces, .stream = starpu_cuda_get_local_stream()};
    record->failure = NULL;
    if (gpu)
        atomic_fetch_add_explicit(&gpu->under_way, 1, memory_order_relaxed);
    record->gpu_worker = worker;
    if (atomic_load_explicit(&dahl_state.cancelled, memory_order_relaxed))
        return;
    if (!gpu || !record->program) {
        if (record->codelet->cpu) /* the empty task has nothing to run anywhere */
            dahl_fail(DAHL_GPU_FAILED, record, worker, CUDA_ERROR_NOT_INITIALIZED);
        return;
    }
    if (gpu->blas && !gpu->blas_has_stream)
        gpu->blas_has_stream = dahl_cuda.blas_stream(gpu->blas, call.stream) == 0;
    unsigned word = gpu->launched++ % DAHL_FAILURE_WORDS;
    gpu->failures[word] = 0;
    record->failure = &gpu->failures[word];
    call.failure = gpu->failures_at + word * sizeof(int32_t);
    int error = run(&call, record->program);
    if (error)
        dahl_fail(error == CUDA_ERROR_OUT_OF_MEMORY ? DAHL_GPU_MEMORY : DAHL_GPU_FAILED, record, worker, error);
}

/* By the worker, once the task has ended. */
void dahl_cuda_ended(struct dahl_record *record)
{
    if (record->gpu_worker < 0)
        return;
    struct dahl_gpu *gpu = dahl_gpu_of(record->gpu_worker);
    if (gpu)
        atomic_fetch_sub_explicit(&gpu->under_way, 1, memory_order_relaxed);
    if (record->failure && *(volatile int32_t *)record->failure)
        dahl_fail(DAHL_KERNEL_FAILED, record, record->gpu_worker, *record->failure);
}
#else
void dahl_cuda_ended(struct dahl_record *record)
{
    (void)record;
}
#endif
