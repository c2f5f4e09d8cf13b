/* In the place of the driver: modules are libraries for the host, whose path the image holds; a launch is a call. */
#define _GNU_SOURCE
#include "stand_in.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PARAMETERS 64
#define ITEMS_BYTES 256 /* a structure of 32 pointers */

typedef void (*host_function)(void **, const int *, const int *, int, _Bool);
typedef const char *(*host_types)(void);

struct CUfunc_st { host_function call; int count; int bytes[MAX_PARAMETERS]; };
/* A library for the host has one block at a time, and so one thread. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    const char *path = image;
    if (strncmp(path, "STAND-IN:", 9))
        return CUDA_ERROR_INVALID_IMAGE;
    *module = dlopen(path + 9, RTLD_NOW | RTLD_LOCAL);
    return *module ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

CUresult cuModuleUnload(CUmodule module)
{
    (void)module; /* the functions' own threads may still be on its stacks */
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    char symbol[256];
    snprintf(symbol, sizeof(symbol), "types_%s", name);
    host_types types = (host_types)dlsym(module, symbol);
    snprintf(symbol, sizeof(symbol), "host_%s", name);
    host_function call = (host_function)dlsym(module, symbol);
    if (!types || !call)
        return CUDA_ERROR_NOT_FOUND;
    struct CUfunc_st *made = calloc(1, sizeof(*made));
    made->call = call;
    for (const char *type = types(); *type; type = strchr(type, ',') + 1) {
        int items = !strncmp(type, "Items", 5), small = !strncmp(type, "Int32,", 6) || !strncmp(type, "Float32,", 8);
        made->bytes[made->count++] = items ? ITEMS_BYTES : small ? 4 : 8;
    }
    *function = made;
    return CUDA_SUCCESS;
}

struct launch {
    const struct CUfunc_st *function;
    int grid[3], block[3], shared;
    char values[MAX_PARAMETERS][ITEMS_BYTES];
};

static void run(void *data)
{
    struct launch *launch = data;
    void *parameters[MAX_PARAMETERS];
    for (int i = 0; i < launch->function->count; i++)
        parameters[i] = launch->values[i];
    pthread_mutex_lock(&turn);
    launch->function->call(parameters, launch->grid, launch->block, launch->shared, 0);
    pthread_mutex_unlock(&turn);
}

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, CUstream stream, void **parameters, void **extra)
{
    (void)extra;
    if (!function)
        return CUDA_ERROR_INVALID_HANDLE;
    struct launch *launch = malloc(sizeof(*launch));
    *launch = (struct launch){.function = function, .grid = {gx, gy, gz}, .block = {bx, by, bz}, .shared = shared};
    for (int i = 0; i < function->count; i++)
        memcpy(launch->values[i], parameters[i], function->bytes[i]);
    stand_in_enqueue(stream, run, launch);
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **words)
{
    *words = error == CUDA_ERROR_INVALID_IMAGE ? "device kernel image is invalid"
             : error == CUDA_ERROR_NOT_FOUND   ? "named symbol not found"
                                               : "an error of the stand-in";
    return CUDA_SUCCESS;
}
