/* Codelets, their models, submission, the kernels' trampoline and the trace. */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"

/* ---- scratch memory, one block a worker ---- */

static struct { float *block; int64_t floats; } scratch_of[STARPU_NMAXWORKERS];

static float *scratch(int worker, int64_t floats)
{
    if (floats <= scratch_of[worker].floats)
        return scratch_of[worker].block;
    free(scratch_of[worker].block);
    scratch_of[worker].floats = 0;
    size_t bytes = ((size_t)floats * sizeof(float) + 63) & ~(size_t)63;
    scratch_of[worker].block = aligned_alloc(64, bytes);
    if (!scratch_of[worker].block)
        return NULL;
    scratch_of[worker].floats = floats;
    return scratch_of[worker].block;
}

/* ---- running a kernel ---- */

static void run_kernel(void *interfaces[], void *arg)
{
    struct dahl_record *record = arg;
    struct starpu_task *task = starpu_task_get_current();
    int worker = starpu_worker_get_id();
    dahl_feed_started(worker);
    if (atomic_load_explicit(&dahl_state.cancelled, memory_order_relaxed) || !record->codelet->cpu)
        return;
    int64_t n = STARPU_TASK_GET_NBUFFERS(task);
    void *buffers[n ? n : 1];
    for (int64_t i = 0; i < n; i++)
        buffers[i] = (void *)STARPU_VECTOR_GET_PTR(interfaces[i]);
    int64_t floats = record->nargs ? record->args[0] : 0;
    float *memory = floats > 0 ? scratch(worker, floats) : NULL;
    if (floats > 0 && !memory) {
        dahl_fail(DAHL_NO_MEMORY, record, worker, floats);
        return;
    }
    int32_t status = DAHL_POISON;
    record->codelet->cpu(&status, buffers, n, record->args, memory);
    if (status != 0)
        dahl_fail(DAHL_KERNEL_FAILED, record, worker, status);
}

/* ---- cost models ---- */

static int worker_of(const struct starpu_perfmodel_arch *arch)
{
    if (arch->ndevices != 1 || arch->devices[0].ncores > 1)
        return -1;
    int device = arch->devices[0].devid;
    if (device < 0 || device >= STARPU_NMAXWORKERS)
        return -1;
    return arch->devices[0].type == STARPU_CPU_WORKER ? dahl_state.cpu_worker_of_device[device]
                                                      : dahl_state.gpu_worker_of_device[device];
}

/* A task that runs asks for what it really takes, and only in a simulation; one that is still to be placed, for what is
 * expected of it. A GPU's pipeline asks while an earlier task still runs (start_job_on_cuda in driver_cuda.c). */
static int is_running(const struct starpu_task *task)
{
    return task->status == STARPU_TASK_RUNNING || starpu_task_get_current() == task;
}

static double length_us(struct starpu_task *task, struct starpu_perfmodel_arch *arch, unsigned nimpl)
{
    (void)nimpl;
    const struct dahl_record *record = dahl_record_of(task);
    int worker = worker_of(arch);
    if (!record || !record->costs || worker < 0)
        return NAN;
    if (!is_running(task))
        return record->costs[worker] * 1e6;
    return record->costs[2 * dahl_state.nworkers + worker] * 1e6 * dahl_noise_factor(record->job);
}

static double energy_j(struct starpu_task *task, struct starpu_perfmodel_arch *arch, unsigned nimpl)
{
    (void)nimpl;
    const struct dahl_record *record = dahl_record_of(task);
    int worker = worker_of(arch);
    if (!record || !record->costs || worker < 0)
        return NAN;
    if (!is_running(task))
        return record->costs[dahl_state.nworkers + worker];
    return record->costs[3 * dahl_state.nworkers + worker] * dahl_noise_factor(record->job);
}

/* ---- codelets ---- */

static void set_models(struct dahl_codelet *c, int32_t model)
{
    if (model == 1) {
        c->length_model.type = c->energy_model.type = STARPU_PER_ARCH;
        c->length_model.arch_cost_function = length_us;
        c->energy_model.arch_cost_function = energy_j;
        c->length_model.symbol = c->symbol;
        c->energy_model.symbol = c->symbol;
        c->cl.model = &c->length_model;
        c->cl.energy_model = &c->energy_model;
    } else if (model == 2) {
        c->length_model.type = STARPU_HISTORY_BASED;
        c->length_model.symbol = c->symbol;
        c->cl.model = &c->length_model;
    }
}

int dahl_codelet_new(const char *name, const char *symbol, int32_t id, dahl_kernel cpu, int32_t arch_mask,
                     const int32_t *modes, int32_t nmodes, int32_t repeats, int32_t model, dahl_codelet **codelet)
{
    if (nmodes > STARPU_NMAXBUFS || nmodes < 0 || !(arch_mask & 3) || (repeats && !nmodes))
        return DAHL_BAD_ARGUMENT;
    struct dahl_codelet *c = calloc(1, sizeof(*c));
    if (!c)
        return DAHL_NO_MEMORY;
    starpu_codelet_init(&c->cl);
    c->name = strdup(name);
    c->symbol = strdup(symbol);
    c->cpu = cpu;
    c->id = id;
    c->repeats = repeats;
    c->nmodes = nmodes;
    for (int32_t i = 0; i < nmodes; i++)
        c->modes[i] = modes[i];
    c->cl.name = c->name;
    if (arch_mask & 1)
        c->cl.cpu_funcs[0] = run_kernel;
#if defined(STARPU_SIMGRID) || defined(STARPU_USE_CUDA)
    if (arch_mask & 2) {
#ifdef STARPU_SIMGRID
        c->cl.cuda_funcs[0] = run_kernel; /* never called in a simulation */
#else
        c->cl.cuda_funcs[0] = dahl_run_cuda;
#endif
        c->cl.cuda_flags[0] = STARPU_CUDA_ASYNC;
    }
#endif
    if (repeats) {
        c->cl.nbuffers = STARPU_VARIABLE_NBUFFERS;
    } else {
        c->cl.nbuffers = nmodes;
        for (int32_t i = 0; i < nmodes; i++)
            c->cl.modes[i] = (enum starpu_data_access_mode)modes[i];
    }
    set_models(c, model);
    *codelet = c;
    return DAHL_OK;
}

/* StarPU keeps pointers to models until it shuts down: call this only afterwards. */
void dahl_codelet_free(dahl_codelet *codelet)
{
    if (!codelet)
        return;
    free(codelet->name);
    free(codelet->symbol);
    free(codelet);
}

/* ---- tasks ---- */

static int set_handles(struct starpu_task *task, const struct dahl_codelet *c, void **handles, int64_t n)
{
    starpu_data_handle_t *to = task->handles;
    enum starpu_data_access_mode *modes = task->modes;
    if (n > STARPU_NMAXBUFS) {
        task->dyn_handles = malloc(n * sizeof(*task->dyn_handles));
        task->dyn_modes = malloc(n * sizeof(*task->dyn_modes));
        if (!task->dyn_handles || !task->dyn_modes)
            return DAHL_NO_MEMORY;
        to = task->dyn_handles;
        modes = task->dyn_modes;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] = handles[i];
    if (c->repeats) {
        task->nbuffers = (int)n;
        for (int64_t i = 0; i < n; i++)
            modes[i] = (enum starpu_data_access_mode)c->modes[i < c->nmodes ? i : c->nmodes - 1];
    }
    return DAHL_OK;
}

static int submit_one(const dahl_node *node, int32_t place, int64_t round, void **handles, const int64_t *args,
                      const int64_t *strides, int64_t step)
{
    struct dahl_codelet *c = node->codelet;
    if (c->repeats ? node->nhandles < c->nmodes : node->nhandles != c->nmodes)
        return DAHL_BAD_ARGUMENT;
    struct dahl_record *record = malloc(sizeof(*record) + node->nargs * sizeof(int64_t));
    struct starpu_task *task = starpu_task_create();
    if (!record || !task)
        return DAHL_NO_MEMORY;
    record->codelet = c;
    record->task = task;
    record->costs = node->costs;
    record->tag = node->tag;
    record->footprint = node->footprint;
    record->b_level_s = node->b_level_s;
    record->round = round;
    record->graph = node->graph;
    record->place = node->graph < 0 ? -1 : place;
    record->rank = 0;
    record->started_s = NAN;
    record->program = node->program;
    record->failure = NULL;
    record->gpu_worker = -1;
    record->nargs = node->nargs;
    for (int64_t i = 0; i < node->nargs; i++)
        record->args[i] = args[node->first_arg + i] + (strides ? step * strides[node->first_arg + i] : 0);
    task->cl = &c->cl;
    task->cl_arg = record;
    task->cl_arg_size = sizeof(*record) + node->nargs * sizeof(int64_t);
    task->cl_arg_free = 1;
    task->priority = node->priority;
    task->callback_func = dahl_trace_callback;
    task->callback_arg = record;
    int status = set_handles(task, c, handles + node->first_handle, node->nhandles);
    /* of our own: StarPU numbers its jobs only where it traces them itself */
    record->job = atomic_fetch_add(&dahl_state.tasks, 1);
    if (status == DAHL_OK) {
        int rc = starpu_task_submit(task);
        if (rc == 0)
            return DAHL_OK;
        status = rc == -ENODEV ? DAHL_NO_ELIGIBLE_WORKER : DAHL_BAD_ARGUMENT;
    }
    task->destroy = 0;
    starpu_task_destroy(task);
    return status;
}

static atomic_llong rounds;

int dahl_submit(const dahl_node *nodes, int64_t n, void **handles, const int64_t *args, const int64_t *strides,
                int64_t step)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    if (atomic_load(&dahl_state.cancelled))
        return atomic_load(&dahl_state.failed) == 2 ? dahl_state.failure.status : DAHL_CANCELLED;
    int renewed = dahl_constants_renew();
    if (renewed != DAHL_OK)
        return renewed;
    int64_t round = n > 0 && nodes[0].graph >= 0 ? atomic_fetch_add(&rounds, 1) : atomic_load(&rounds);
    for (int64_t i = 0; i < n; i++) {
        dahl_submitting();
        int status = submit_one(&nodes[i], (int32_t)i, round, handles, args, strides, step);
        if (status != DAHL_OK)
            return status;
    }
    return DAHL_OK;
}

int dahl_submit_one(dahl_codelet *codelet, const uintptr_t *handles, int64_t nhandles, const int64_t *args,
                    int64_t nargs, uintptr_t costs, int64_t tag, int32_t priority, uintptr_t program)
{
    dahl_node node = {
        .codelet = codelet,
        .costs = (const double *)costs,
        .tag = tag,
        .nhandles = nhandles,
        .nargs = nargs,
        .b_level_s = NAN,
        .priority = priority,
        .program = (const int64_t *)program,
        .graph = -1,
    };
    return dahl_submit(&node, 1, (void **)handles, args, NULL, 0);
}

double dahl_expected_length_s(dahl_codelet *codelet, void **handles, int64_t nhandles, int worker)
{
    if (!atomic_load(&dahl_state.running) || !codelet->cl.model || worker < 0 || worker >= dahl_state.nworkers)
        return NAN;
    struct starpu_task *task = starpu_task_create();
    task->cl = &codelet->cl;
    if (set_handles(task, codelet, handles, nhandles) != DAHL_OK)
        return NAN;
    double us = starpu_task_expected_length(task, starpu_worker_get_perf_archtype(worker, STARPU_NMAX_SCHED_CTXS), 0);
    task->destroy = 0;
    starpu_task_destroy(task);
    return isfinite(us) && us > 0 ? us * 1e-6 : NAN;
}

/* ---- trace: each worker fills its own blocks, without a lock; they are read when no task is left ---- */

static struct { dahl_trace_record *records; int64_t count, capacity; } trace_of[STARPU_NMAXWORKERS];

static double seconds(const struct timespec *t)
{
    return (double)t->tv_sec + 1e-9 * (double)t->tv_nsec;
}

static void trace_task(struct dahl_record *record)
{
    const struct starpu_profiling_task_info *info = record->task->profiling_info;
    if (!dahl_state.trace || !info)
        return;
    int worker = info->workerid;
    if (worker < 0 || worker >= STARPU_NMAXWORKERS)
        return;
    double start_s = seconds(&info->start_time), end_s = seconds(&info->end_time);
    dahl_ran_take(worker, &start_s, &end_s);
    if (trace_of[worker].count == trace_of[worker].capacity) {
        int64_t capacity = trace_of[worker].capacity ? 2 * trace_of[worker].capacity : 4096;
        dahl_trace_record *grown = realloc(trace_of[worker].records, capacity * sizeof(*grown));
        if (!grown) {
            dahl_fail(DAHL_NO_MEMORY, record, worker, capacity);
            return;
        }
        trace_of[worker].records = grown;
        trace_of[worker].capacity = capacity;
    }
    trace_of[worker].records[trace_of[worker].count++] = (dahl_trace_record){
        .task = record->job,
        .tag = record->tag,
        .footprint = record->footprint,
        .codelet = record->codelet->id,
        .worker = worker,
        .submit_s = seconds(&info->submit_time),
        .ready_s = seconds(&info->push_start_time),
        .start_s = start_s,
        .end_s = end_s,
        .predicted_s = record->costs ? record->costs[worker] : NAN,
        .predicted_j = record->costs ? record->costs[dahl_state.nworkers + worker] : NAN,
    };
}

/* StarPU calls it on the worker once the tasks that waited for this one know that it has ended. */
void dahl_trace_callback(void *arg)
{
    dahl_cuda_ended(arg);
    trace_task(arg);
    dahl_feed_ended(starpu_worker_get_id());
}

void dahl_trace_reset(void)
{
    for (int w = 0; w < STARPU_NMAXWORKERS; w++)
        trace_of[w].count = 0;
}

int64_t dahl_trace_count(void)
{
    int64_t count = 0;
    for (int w = 0; w < STARPU_NMAXWORKERS; w++)
        count += trace_of[w].count;
    return count;
}

int dahl_trace_take(dahl_trace_record *records, int64_t capacity)
{
    if (atomic_load(&dahl_state.running) && starpu_task_nsubmitted() > 0)
        return DAHL_TASKS_PENDING;
    if (capacity < dahl_trace_count())
        return DAHL_BAD_ARGUMENT;
    int64_t at = 0;
    for (int w = 0; w < STARPU_NMAXWORKERS; w++) {
        memcpy(records + at, trace_of[w].records, trace_of[w].count * sizeof(*records));
        at += trace_of[w].count;
        trace_of[w].count = 0;
    }
    return DAHL_OK;
}
