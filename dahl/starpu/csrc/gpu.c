/* What tasks on NVIDIA GPUs need before they run: pointers into the driver and cuBLAS, compiled functions, memory of
 * each worker's own, and copies of constants. All of it is made by the thread that submits, between tasks; workers only
 * read it. Everything lies in the primary context of a device, which StarPU's workers use too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gpu.h"

#ifndef STARPU_USE_CUDA
int dahl_has_cuda(void) { return 0; }
int dahl_cuda_probe(dahl_gpu_probe *probe) { (void)probe; return DAHL_NO_GPU; }
int dahl_cuda_memory(int device, uint64_t *free_bytes, uint64_t *total_bytes)
{
    (void)device, (void)free_bytes, (void)total_bytes;
    return DAHL_NO_GPU;
}
int dahl_cuda_open(const char *driver) { (void)driver; return DAHL_NO_GPU; }
int dahl_cuda_blas(const char *library) { (void)library; return DAHL_NO_GPU; }
int dahl_cuda_load(int worker, const void *image, const char *const *names, const int64_t *numbers, int64_t n)
{
    (void)worker, (void)image, (void)names, (void)numbers, (void)n;
    return DAHL_NO_GPU;
}
int dahl_cuda_reserve(uint64_t bytes) { (void)bytes; return DAHL_NO_GPU; }
int dahl_cuda_constant(const void *host, uint64_t bytes, int32_t writable)
{
    (void)host, (void)bytes, (void)writable;
    return DAHL_NO_GPU;
}
const char *dahl_cuda_trouble(void) { return ""; }
int dahl_gpu_busy(int worker) { (void)worker; return 0; }
void dahl_cuda_close(void) {}
void dahl_constants_may_change(void) {}
int dahl_constants_renew(void) { return DAHL_OK; }
#else

#define MAX_CONSTANTS 256
#define MAX_MODULES 256
#define MAX_BLOCKS 256
#define BLAS_PEDANTIC 2 /* CUBLAS_PEDANTIC_MATH: float32 stays float32 */

struct dahl_cuda_api dahl_cuda;
static struct dahl_gpu *gpus[STARPU_NMAXWORKERS];
static struct { int device; CUmodule module; } modules[MAX_MODULES];
static int nmodules;
/* Scratch that a larger one has replaced: tasks that run may still use it. */
static struct { int device; void *at; } replaced[MAX_BLOCKS];
static int nreplaced;
static struct {
    const char *host;
    uint64_t bytes;
    int32_t writable;
    void *copy[STARPU_MAXCUDADEVS];
} constants[MAX_CONSTANTS];
static atomic_int nconstants;
static atomic_int constants_changed;
static char trouble[256];

int dahl_has_cuda(void)
{
    return 1;
}

const char *dahl_cuda_trouble(void)
{
    return trouble;
}

static int failed(const char *doing, const char *why)
{
    snprintf(trouble, sizeof(trouble), "%s: %s", doing, why);
    return DAHL_GPU_FAILED;
}

static int runtime_status(cudaError_t error, const char *doing)
{
    if (error == cudaSuccess)
        return DAHL_OK;
    cudaGetLastError(); /* takes it back, where it is no lasting one */
    failed(doing, cudaGetErrorString(error));
    return error == cudaErrorMemoryAllocation ? DAHL_GPU_MEMORY : DAHL_GPU_FAILED;
}

static int driver_status(CUresult error, const char *doing)
{
    if (error == CUDA_SUCCESS)
        return DAHL_OK;
    const char *words = NULL;
    dahl_cuda.error_string(error, &words);
    failed(doing, words ? words : "an error that the driver does not name");
    return error == CUDA_ERROR_OUT_OF_MEMORY ? DAHL_GPU_MEMORY : DAHL_GPU_FAILED;
}

/* ---- before StarPU starts ---- */

/* Asks the CUDA runtime, which needs no running StarPU, what there is; leaves no context behind. */
int dahl_cuda_probe(dahl_gpu_probe *probe)
{
    memset(probe, 0, sizeof(*probe));
    cudaError_t error = cudaGetDeviceCount(&probe->count);
    cudaDriverGetVersion(&probe->driver);
    cudaRuntimeGetVersion(&probe->runtime);
    probe->error = error;
    snprintf(probe->words, sizeof(probe->words), "%s", cudaGetErrorString(error));
    if (error != cudaSuccess) {
        cudaGetLastError();
        probe->count = 0;
        return DAHL_OK;
    }
    if (probe->count > STARPU_MAXCUDADEVS)
        probe->count = STARPU_MAXCUDADEVS;
    for (int device = 0; device < probe->count; device++) {
        int major = 0, minor = 0, mode = 0;
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
        cudaDeviceGetAttribute(&mode, cudaDevAttrComputeMode, device);
        probe->device[device].capability = 10 * major + minor;
        probe->device[device].compute_mode = mode;
        struct cudaDeviceProp properties;
        if (cudaGetDeviceProperties(&properties, device) == cudaSuccess)
            snprintf(probe->device[device].name, sizeof(probe->device[device].name), "%.63s", properties.name);
        cudaDeviceGetPCIBusId(probe->device[device].pci_bus_id, sizeof(probe->device[device].pci_bus_id), device);
    }
    return DAHL_OK;
}

/* Opens the device, whose context StarPU's worker then shares. */
int dahl_cuda_memory(int device, uint64_t *free_bytes, uint64_t *total_bytes)
{
    size_t left = 0, all = 0;
    int status = runtime_status(cudaSetDevice(device), "choosing it");
    status = status ? status : runtime_status(cudaMemGetInfo(&left, &all), "asking for its memory");
    *free_bytes = left;
    *total_bytes = all;
    return status;
}

/* ---- once StarPU runs ---- */

struct dahl_gpu *dahl_gpu_of(int worker)
{
    return gpus[worker];
}

int dahl_gpu_busy(int worker)
{
    return gpus[worker] && atomic_load_explicit(&gpus[worker]->under_way, memory_order_relaxed) > 0;
}

static int take(void *library, const char *name, void *into)
{
    void *found = dlsym(library, name);
    if (!found)
        return failed(name, "the library does not have it");
    memcpy(into, &found, sizeof(found));
    return DAHL_OK;
}

static int make_gpu(int worker)
{
    struct dahl_gpu *gpu = calloc(1, sizeof(*gpu));
    if (!gpu)
        return DAHL_NO_MEMORY;
    gpus[worker] = gpu;
    gpu->device = starpu_worker_get_devid(worker);
    int status = runtime_status(cudaSetDevice(gpu->device), "choosing a GPU");
    if (!status)
        status = runtime_status(cudaHostAlloc((void **)&gpu->failures, DAHL_FAILURE_WORDS * sizeof(int32_t),
                                              cudaHostAllocMapped | cudaHostAllocPortable),
                                "allocating memory that the GPU reads");
    if (status)
        return status;
    memset(gpu->failures, 0, DAHL_FAILURE_WORDS * sizeof(int32_t));
    return runtime_status(cudaHostGetDevicePointer((void **)&gpu->failures_at, gpu->failures, 0),
                          "mapping memory for the GPU");
}

int dahl_cuda_open(const char *driver)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    void *library = dlopen(driver, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return failed("loading the driver", dlerror());
    int status = take(library, "cuModuleLoadData", &dahl_cuda.module_load);
    status = status ? status : take(library, "cuModuleUnload", &dahl_cuda.module_unload);
    status = status ? status : take(library, "cuModuleGetFunction", &dahl_cuda.module_function);
    status = status ? status : take(library, "cuLaunchKernel", &dahl_cuda.launch);
    status = status ? status : take(library, "cuGetErrorString", &dahl_cuda.error_string);
    for (int w = 0; w < dahl_state.nworkers && !status; w++)
        if (starpu_worker_get_type(w) == STARPU_CUDA_WORKER)
            status = make_gpu(w);
    return status;
}

int dahl_cuda_blas(const char *path)
{
    if (dahl_cuda.blas_create)
        return DAHL_OK;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return failed("loading cuBLAS", dlerror());
    int status = take(library, "cublasSetStream_v2", &dahl_cuda.blas_stream);
    status = status ? status : take(library, "cublasSetMathMode", &dahl_cuda.blas_math);
    status = status ? status : take(library, "cublasDestroy_v2", &dahl_cuda.blas_destroy);
    status = status ? status : take(library, "cublasSgemm_v2", &dahl_cuda.sgemm);
    status = status ? status : take(library, "cublasSgemmStridedBatched", &dahl_cuda.sgemm_batched);
    status = status ? status : take(library, "cublasCreate_v2", &dahl_cuda.blas_create);
    for (int w = 0; w < dahl_state.nworkers && !status; w++) {
        if (!gpus[w])
            continue;
        status = runtime_status(cudaSetDevice(gpus[w]->device), "choosing a GPU");
        if (!status && (dahl_cuda.blas_create(&gpus[w]->blas) || dahl_cuda.blas_math(gpus[w]->blas, BLAS_PEDANTIC)))
            status = failed("starting cuBLAS", "it refuses; is there memory left on the GPU?");
    }
    return status;
}

int dahl_cuda_load(int worker, const void *image, const char *const *names, const int64_t *numbers, int64_t n)
{
    if (worker < 0 || worker >= dahl_state.nworkers || !gpus[worker] || nmodules == MAX_MODULES)
        return DAHL_BAD_ARGUMENT;
    struct dahl_gpu *gpu = gpus[worker];
    int status = runtime_status(cudaSetDevice(gpu->device), "choosing a GPU");
    CUmodule module;
    if (!status)
        status = driver_status(dahl_cuda.module_load(&module, image), "loading compiled functions");
    if (status)
        return status;
    modules[nmodules].device = gpu->device;
    modules[nmodules++].module = module;
    for (int64_t i = 0; i < n && !status; i++) {
        if (numbers[i] < 0 || numbers[i] >= DAHL_MAX_FUNCTIONS)
            return DAHL_BAD_ARGUMENT;
        status = driver_status(dahl_cuda.module_function(&gpu->functions[numbers[i]], module, names[i]), names[i]);
    }
    return status;
}

/* ---- memory ---- */

int dahl_cuda_reserve(uint64_t bytes)
{
    for (int w = 0; w < dahl_state.nworkers; w++) {
        struct dahl_gpu *gpu = gpus[w];
        if (!gpu || bytes <= gpu->scratch_bytes)
            continue;
        if (nreplaced == MAX_BLOCKS)
            return DAHL_NO_MEMORY;
        void *grown = NULL;
        int status = runtime_status(cudaSetDevice(gpu->device), "choosing a GPU");
        if (!status)
            status = runtime_status(cudaMalloc(&grown, bytes), "allocating scratch memory");
        if (status)
            return status;
        char *before = atomic_exchange(&gpu->scratch, grown);
        if (before) {
            replaced[nreplaced].device = gpu->device;
            replaced[nreplaced++].at = before;
        }
        gpu->scratch_bytes = bytes;
    }
    return DAHL_OK;
}

static int copy_constant(int number, int device)
{
    void *at = constants[number].copy[device];
    int status = runtime_status(cudaSetDevice(device), "choosing a GPU");
    if (!status)
        status = runtime_status(cudaMemcpy(at, constants[number].host, constants[number].bytes, cudaMemcpyHostToDevice),
                                "copying a constant");
    /* A copy of pageable memory returns before it has arrived; StarPU's streams do not wait for it. */
    return status ? status : runtime_status(cudaDeviceSynchronize(), "copying a constant");
}

int dahl_cuda_constant(const void *host, uint64_t bytes, int32_t writable)
{
    int count = atomic_load(&nconstants);
    for (int i = 0; i < count; i++)
        if (constants[i].host == host && constants[i].bytes == bytes)
            return DAHL_OK;
    if (count == MAX_CONSTANTS)
        return DAHL_NO_MEMORY;
    constants[count].host = host;
    constants[count].bytes = bytes;
    constants[count].writable = writable;
    memset(constants[count].copy, 0, sizeof(constants[count].copy));
    for (int w = 0; w < dahl_state.nworkers; w++) {
        if (!gpus[w] || constants[count].copy[gpus[w]->device])
            continue;
        int device = gpus[w]->device;
        int status = runtime_status(cudaSetDevice(device), "choosing a GPU");
        if (!status)
            status = runtime_status(cudaMalloc(&constants[count].copy[device], bytes), "allocating a constant's copy");
        status = status ? status : copy_constant(count, device);
        if (status)
            return status;
    }
    atomic_store(&nconstants, count + 1);
    constants_changed = 1; /* whoever lays tasks out fills in afterwards what they read */
    return DAHL_OK;
}

/* The copy of a constant, by its address in main memory; 0 where there is none. */
CUdeviceptr dahl_constant_on(int device, const void *host)
{
    int count = atomic_load_explicit(&nconstants, memory_order_acquire);
    for (int i = 0; i < count; i++)
        if (constants[i].host == host)
            return (CUdeviceptr)constants[i].copy[device];
    return 0;
}

void dahl_constants_may_change(void)
{
    constants_changed = 1;
}

/* Before the first task after a wait for all, and of all: only then can a constant have been changed. */
int dahl_constants_renew(void)
{
    if (!constants_changed)
        return DAHL_OK;
    constants_changed = 0;
    int count = atomic_load(&nconstants);
    for (int i = 0; i < count; i++)
        for (int device = 0; device < STARPU_MAXCUDADEVS; device++) {
            if (!constants[i].writable || !constants[i].copy[device])
                continue;
            int status = copy_constant(i, device);
            if (status)
                return status;
        }
    return DAHL_OK;
}

/* ---- the end: no task is left, StarPU still runs ---- */

static void free_gpu(int worker)
{
    struct dahl_gpu *gpu = gpus[worker];
    gpus[worker] = NULL;
    cudaSetDevice(gpu->device);
    if (gpu->blas)
        dahl_cuda.blas_destroy(gpu->blas);
    cudaFree(atomic_load(&gpu->scratch));
    cudaFreeHost(gpu->failures);
    free(gpu);
}

void dahl_cuda_close(void)
{
    for (int i = 0; i < atomic_load(&nconstants); i++)
        for (int device = 0; device < STARPU_MAXCUDADEVS; device++)
            if (constants[i].copy[device]) {
                cudaSetDevice(device);
                cudaFree(constants[i].copy[device]);
            }
    atomic_store(&nconstants, 0);
    for (int i = 0; i < nreplaced; i++) {
        cudaSetDevice(replaced[i].device);
        cudaFree(replaced[i].at);
    }
    for (int i = 0; i < nmodules; i++) {
        cudaSetDevice(modules[i].device);
        dahl_cuda.module_unload(modules[i].module);
    }
    nreplaced = nmodules = 0;
    for (int w = 0; w < STARPU_NMAXWORKERS; w++)
        if (gpus[w])
            free_gpu(w);
    memset(&dahl_cuda, 0, sizeof(dahl_cuda));
}
#endif
