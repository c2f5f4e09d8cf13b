/* In the place of the CUDA runtime: devices, their memory, streams, events and copies. */
#define _GNU_SOURCE
#include "stand_in.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICES stand_in_setting("STAND_IN_DEVICES", 1)
#define MIB (1024L * 1024L)
#define MAX_BLOCKS 65536

long stand_in_setting(const char *name, long value)
{
    const char *text = getenv(name);
    return text ? atol(text) : value;
}

/* ---- streams ---- */

struct work { void (*run)(void *); void *data; struct work *next; };

struct CUstream_st {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct work *first, **last;
    int pending, ends;
};

struct CUevent_st { pthread_mutex_t mutex; pthread_cond_t changed; int recorded, reached; };

static pthread_mutex_t all_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct CUstream_st *streams[4096];
static int nstreams;
static __thread int device;
static __thread cudaError_t last_error;

static cudaError_t answer(cudaError_t error)
{
    if (error)
        last_error = error;
    return error;
}

static void *serve(void *arg)
{
    struct CUstream_st *stream = arg;
    pthread_mutex_lock(&stream->mutex);
    for (;;) {
        while (!stream->first && !stream->ends)
            pthread_cond_wait(&stream->changed, &stream->mutex);
        struct work *work = stream->first;
        if (!work)
            break;
        stream->first = work->next;
        if (!stream->first)
            stream->last = &stream->first;
        pthread_mutex_unlock(&stream->mutex);
        work->run(work->data);
        free(work->data);
        free(work);
        pthread_mutex_lock(&stream->mutex);
        stream->pending--;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&stream->mutex);
    return NULL;
}

void stand_in_enqueue(cudaStream_t stream, void (*run)(void *), void *data)
{
    if (!stream) { /* the null stream waits */
        cudaDeviceSynchronize();
        run(data);
        free(data);
        return;
    }
    struct work *work = malloc(sizeof(*work));
    *work = (struct work){run, data, NULL};
    pthread_mutex_lock(&stream->mutex);
    *stream->last = work;
    stream->last = &work->next;
    stream->pending++;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->mutex);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *made, unsigned flags)
{
    (void)flags;
    struct CUstream_st *stream = calloc(1, sizeof(*stream));
    pthread_mutex_init(&stream->mutex, NULL);
    pthread_cond_init(&stream->changed, NULL);
    stream->last = &stream->first;
    pthread_create(&stream->thread, NULL, serve, stream);
    pthread_mutex_lock(&all_mutex);
    streams[nstreams++] = stream;
    pthread_mutex_unlock(&all_mutex);
    *made = stream;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    pthread_mutex_lock(&all_mutex);
    for (int i = 0; i < nstreams; i++)
        if (streams[i] == stream)
            streams[i--] = streams[--nstreams];
    pthread_mutex_unlock(&all_mutex);
    pthread_mutex_lock(&stream->mutex);
    stream->ends = 1;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->mutex);
    pthread_join(stream->thread, NULL);
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    pthread_mutex_lock(&stream->mutex);
    while (stream->pending)
        pthread_cond_wait(&stream->changed, &stream->mutex);
    pthread_mutex_unlock(&stream->mutex);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    pthread_mutex_lock(&stream->mutex);
    int pending = stream->pending;
    pthread_mutex_unlock(&stream->mutex);
    return pending ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    pthread_mutex_lock(&all_mutex);
    for (int i = 0; i < nstreams; i++)
        cudaStreamSynchronize(streams[i]);
    pthread_mutex_unlock(&all_mutex);
    return cudaSuccess;
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *made, unsigned flags)
{
    (void)flags;
    struct CUevent_st *event = calloc(1, sizeof(*event));
    pthread_mutex_init(&event->mutex, NULL);
    pthread_cond_init(&event->changed, NULL);
    *made = event;
    return cudaSuccess;
}

static void wait_for(struct CUevent_st *event)
{
    pthread_mutex_lock(&event->mutex);
    while (event->reached < event->recorded)
        pthread_cond_wait(&event->changed, &event->mutex);
    pthread_mutex_unlock(&event->mutex);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    wait_for(event);
    free(event);
    return cudaSuccess;
}

static void reach(void *data)
{
    struct CUevent_st *event = *(struct CUevent_st **)data;
    pthread_mutex_lock(&event->mutex);
    event->reached++;
    pthread_cond_broadcast(&event->changed);
    pthread_mutex_unlock(&event->mutex);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    pthread_mutex_lock(&event->mutex);
    event->recorded++;
    pthread_mutex_unlock(&event->mutex);
    struct CUevent_st **data = malloc(sizeof(*data));
    *data = event;
    stand_in_enqueue(stream, reach, data);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    pthread_mutex_lock(&event->mutex);
    int left = event->recorded - event->reached;
    pthread_mutex_unlock(&event->mutex);
    return left ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    wait_for(event);
    return cudaSuccess;
}

/* ---- memory: a device's is main memory that nothing else has, full of NaN ---- */

static struct { char *at; size_t bytes; int device; } blocks[MAX_BLOCKS];
static int nblocks;
static size_t used[16];

static size_t all_bytes(void)
{
    return (size_t)stand_in_setting("STAND_IN_MEMORY_MIB", 4096) * MIB;
}

static size_t taken_bytes(void)
{
    return (size_t)stand_in_setting("STAND_IN_TAKEN_MIB", 0) * MIB + used[device];
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all)
{
    if (stand_in_setting("STAND_IN_EXCLUSIVE", 0))
        return answer(cudaErrorDevicesUnavailable);
    *all = all_bytes();
    *left = taken_bytes() < *all ? *all - taken_bytes() : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **at, size_t bytes)
{
    pthread_mutex_lock(&all_mutex);
    cudaError_t error = cudaSuccess;
    if (taken_bytes() + bytes > all_bytes() || nblocks == MAX_BLOCKS) {
        error = cudaErrorMemoryAllocation;
    } else {
        *at = aligned_alloc(256, (bytes + 255) & ~(size_t)255);
        memset(*at, 0xff, bytes);
        blocks[nblocks].at = *at;
        blocks[nblocks].bytes = bytes;
        blocks[nblocks++].device = device;
        used[device] += bytes;
    }
    pthread_mutex_unlock(&all_mutex);
    return answer(error);
}

cudaError_t cudaFree(void *at)
{
    if (!at)
        return cudaSuccess;
    cudaDeviceSynchronize();
    pthread_mutex_lock(&all_mutex);
    for (int i = 0; i < nblocks; i++)
        if (blocks[i].at == at) {
            used[blocks[i].device] -= blocks[i].bytes;
            blocks[i] = blocks[--nblocks];
            pthread_mutex_unlock(&all_mutex);
            free(at);
            return cudaSuccess;
        }
    pthread_mutex_unlock(&all_mutex);
    return answer(cudaErrorInvalidValue);
}

/* Whether a range lies within one block of some device. */
static int on_device(const void *at, size_t bytes)
{
    int found = 0;
    pthread_mutex_lock(&all_mutex);
    for (int i = 0; i < nblocks && !found; i++)
        found = (const char *)at >= blocks[i].at && (const char *)at + bytes <= blocks[i].at + blocks[i].bytes;
    pthread_mutex_unlock(&all_mutex);
    return found;
}

cudaError_t cudaHostAlloc(void **at, size_t bytes, unsigned flags)
{
    (void)flags;
    *at = aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095);
    return *at ? cudaSuccess : answer(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *at)
{
    free(at);
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void **on_it, void *at, unsigned flags)
{
    (void)flags;
    *on_it = at;
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *at, size_t bytes, unsigned flags)
{
    (void)at, (void)bytes, (void)flags;
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *at)
{
    (void)at;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *at)
{
    memset(attributes, 0, sizeof(*attributes));
    attributes->type = on_device(at, 1) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}

struct copy { char *to; const char *from; size_t to_pitch, from_pitch, width, rows; };

static void copy_rows(void *data)
{
    struct copy *copy = data;
    for (size_t i = 0; i < copy->rows; i++)
        memcpy(copy->to + i * copy->to_pitch, copy->from + i * copy->from_pitch, copy->width);
}

/* A copy must say truly where from and where to it goes. */
static int fits(const struct copy *copy, enum cudaMemcpyKind kind)
{
    size_t to = (copy->rows - 1) * copy->to_pitch + copy->width;
    size_t from = (copy->rows - 1) * copy->from_pitch + copy->width;
    int to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    int from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return on_device(copy->to, to) == to_device && on_device(copy->from, from) == from_device;
}

static cudaError_t enqueue_copy(struct copy copy, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    if (!copy.rows || !copy.width)
        return cudaSuccess;
    if (!fits(&copy, kind))
        return answer(cudaErrorInvalidValue);
    struct copy *data = malloc(sizeof(*data));
    *data = copy;
    stand_in_enqueue(stream, copy_rows, data);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return enqueue_copy((struct copy){to, from, bytes, bytes, bytes, 1}, kind, stream);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    return cudaMemcpyAsync(to, from, bytes, kind, NULL);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows,
                              enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return enqueue_copy((struct copy){to, from, to_pitch, from_pitch, width, rows}, kind, stream);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows,
                         enum cudaMemcpyKind kind)
{
    return cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, kind, NULL);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int on, const void *from, int of, size_t bytes, cudaStream_t stream)
{
    (void)on, (void)of;
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemcpyPeer(void *to, int on, const void *from, int of, size_t bytes)
{
    return cudaMemcpyPeerAsync(to, on, from, of, bytes, NULL);
}

cudaError_t cudaMemcpy3DPeerAsync(const struct cudaMemcpy3DPeerParms *p, cudaStream_t stream)
{
    return cudaMemcpy2DAsync(p->dstPtr.ptr, p->dstPtr.pitch, p->srcPtr.ptr, p->srcPtr.pitch, p->extent.width,
                             p->extent.height, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemcpy3DPeer(const struct cudaMemcpy3DPeerParms *p)
{
    return cudaMemcpy3DPeerAsync(p, NULL);
}

struct fill { char *at; int value; size_t bytes; };

static void fill_block(void *data)
{
    struct fill *fill = data;
    memset(fill->at, fill->value, fill->bytes);
}

cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream)
{
    if (!on_device(at, bytes))
        return answer(cudaErrorInvalidValue);
    struct fill *data = malloc(sizeof(*data));
    *data = (struct fill){at, value, bytes};
    stand_in_enqueue(stream, fill_block, data);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *at, int value, size_t bytes)
{
    return cudaMemsetAsync(at, value, bytes, NULL);
}

/* ---- devices ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    cudaError_t error = stand_in_setting("STAND_IN_ERROR", 0);
    if (error)
        return answer(error);
    *count = DEVICES;
    return *count ? cudaSuccess : answer(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int number)
{
    if (number < 0 || number >= DEVICES)
        return answer(cudaErrorInvalidDevice);
    device = number;
    return cudaSuccess;
}

cudaError_t cudaDeviceReset(void)
{
    cudaDeviceSynchronize();
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int number)
{
    (void)number;
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9
             : attribute == cudaDevAttrComputeMode          ? (int)stand_in_setting("STAND_IN_COMPUTE_MODE", 0)
                                                            : 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int number)
{
    snprintf(text, size, "0000:%02X:00.0", 0xe0 + number);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int number)
{
    memset(properties, 0, sizeof(*properties));
    snprintf(properties->name, sizeof(properties->name), "stand-in for a GPU");
    properties->totalGlobalMem = all_bytes();
    properties->pciBusID = 0xe0 + number;
    properties->concurrentKernels = 1;
    properties->major = 9;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int one, int other)
{
    *can = one != other;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int other, unsigned flags)
{
    (void)other, (void)flags;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = stand_in_setting("STAND_IN_DRIVER", CUDART_VERSION);
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorDevicesUnavailable: return "CUDA-capable device(s) is/are busy or unavailable";
    case cudaErrorSystemDriverMismatch: return "system has unsupported display driver / cuda driver combination";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    default: return "an error of the stand-in";
    }
}
