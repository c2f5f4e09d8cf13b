/* Starting and stopping StarPU, workers, data, waiting, and entering a simulation. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"

#define MAX_PLUGS 100000

struct dahl_state dahl_state;
static struct { starpu_data_handle_t last, *plugs; int nplugs; } order;

static void forget_order(void);

int dahl_is_simgrid(void)
{
#ifdef STARPU_SIMGRID
    return 1;
#else
    return 0;
#endif
}

void dahl_version(int *major, int *minor, int *release)
{
    starpu_get_version(major, minor, release);
}

int dahl_limits(int *max_cpus, int *max_gpus, int *max_buffers)
{
    *max_cpus = STARPU_MAXCPUS;
    *max_gpus = STARPU_MAXCUDADEVS;
    *max_buffers = STARPU_NMAXBUFS;
    return DAHL_OK;
}

int dahl_predefined_scheduler(int index, const char **name, const char **description)
{
    struct starpu_sched_policy **policies = starpu_sched_get_predefined_policies();
    for (int i = 0; policies[i]; i++)
        if (i == index) {
            *name = policies[i]->policy_name;
            *description = policies[i]->policy_description;
            return DAHL_OK;
        }
    return DAHL_BAD_ARGUMENT;
}

static struct starpu_sched_policy *predefined(const char *name)
{
    struct starpu_sched_policy **policies = starpu_sched_get_predefined_policies();
    for (int i = 0; policies[i]; i++)
        if (!strcmp(policies[i]->policy_name, name))
            return policies[i];
    return NULL;
}

static struct starpu_sched_policy *asked_for(const dahl_config *config)
{
    if (config->policy)
        return config->policy->place ? &dahl_placement_policy : &dahl_pull_policy;
    return predefined(config->scheduler);
}

static void index_workers(void)
{
    for (int i = 0; i < STARPU_NMAXWORKERS; i++)
        dahl_state.cpu_worker_of_device[i] = dahl_state.gpu_worker_of_device[i] = -1;
    dahl_state.nworkers = starpu_worker_get_count();
    dahl_state.nnodes = starpu_memory_nodes_get_count();
    for (int w = 0; w < dahl_state.nworkers; w++) {
        int device = starpu_worker_get_devid(w);
        if (device < 0 || device >= STARPU_NMAXWORKERS)
            continue;
        if (starpu_worker_get_type(w) == STARPU_CPU_WORKER)
            dahl_state.cpu_worker_of_device[device] = w;
        else if (starpu_worker_get_type(w) == STARPU_CUDA_WORKER)
            dahl_state.gpu_worker_of_device[device] = w;
    }
}

int dahl_init(const dahl_config *config)
{
    if (atomic_load(&dahl_state.running))
        return DAHL_ALREADY_RUNNING;
    if (config->cpu_workers < 0 || config->gpu_workers < 0 || !(config->poll_us >= 0))
        return DAHL_BAD_ARGUMENT;
    if (!config->policy && !config->scheduler)
        return DAHL_BAD_ARGUMENT;
    struct starpu_sched_policy *policy = asked_for(config);
    if (!policy)
        return DAHL_UNKNOWN_SCHEDULER;

    struct starpu_conf conf;
    starpu_conf_init(&conf);
    conf.precedence_over_environment_variables = 1;
    conf.ncpus = config->cpu_workers;
    conf.ncuda = config->gpu_workers;
    conf.nopencl = 0;
    conf.catch_signals = 0;
    conf.sched_policy_name = NULL;
    conf.sched_policy = dahl_poll_wrap(policy, config->poll_us);
    dahl_state.has_policy = config->policy != NULL;
    if (config->policy)
        dahl_state.policy = *config->policy;
    atomic_store(&dahl_state.cancelled, 0);
    atomic_store(&dahl_state.failed, 0);
    atomic_store(&dahl_state.tasks, 0);
    memset(&dahl_state.failure, 0, sizeof(dahl_state.failure));
    dahl_state.simgrid = dahl_is_simgrid();
    dahl_state.trace = config->trace;
    dahl_trace_reset();
    dahl_feed_reset();
    dahl_ran_reset();

    int rc = starpu_init(&conf);
    if (rc == -ENODEV)
        return DAHL_NO_WORKER;
    if (rc)
        return DAHL_INIT_FAILED;
    /* only now: its lock is made by starpu_init and gone after starpu_shutdown */
    starpu_profiling_status_set(config->trace ? STARPU_PROFILING_ENABLE : STARPU_PROFILING_DISABLE);
    index_workers();
    if (config->policy && dahl_state.nworkers > config->npower) {
        starpu_shutdown();
        return DAHL_BAD_ARGUMENT;
    }
    dahl_idle_init();
    atomic_store(&dahl_state.running, 1);
    return DAHL_OK;
}

int dahl_shutdown(void)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    starpu_task_wait_for_all();
    forget_order();
    dahl_cuda_close();
    dahl_idle_deinit();
    starpu_shutdown();
    atomic_store(&dahl_state.running, 0);
    return DAHL_OK;
}

int dahl_worker_count(void)
{
    return atomic_load(&dahl_state.running) ? dahl_state.nworkers : 0;
}

int dahl_worker_info(int worker, dahl_worker *info)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    if (worker < 0 || worker >= dahl_state.nworkers)
        return DAHL_BAD_ARGUMENT;
    info->id = worker;
    info->arch = starpu_worker_get_type(worker) == STARPU_CPU_WORKER ? 0 : 1;
    info->device = starpu_worker_get_devid(worker);
    info->memory_node = starpu_worker_get_memory_node(worker);
    starpu_worker_get_name(worker, info->name, sizeof(info->name));
    return DAHL_OK;
}

double dahl_now_s(void)
{
    return atomic_load(&dahl_state.running) ? starpu_timing_now() * 1e-6 : NAN;
}

double dahl_energy_used_j(void)
{
#ifdef STARPU_SIMGRID
    return starpu_energy_used();
#else
    return NAN;
#endif
}

int dahl_set_base_w(double base_w)
{
    dahl_state.policy.base_w = base_w;
    return DAHL_OK;
}

int dahl_pause(void)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    starpu_pause();
    return DAHL_OK;
}

int dahl_resume(void)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    starpu_resume();
    return DAHL_OK;
}

int dahl_cancel(void)
{
    atomic_store(&dahl_state.cancelled, 1);
    return DAHL_OK;
}

/* The first failure is kept: later ones are its consequences. Kernels are skipped from then on. */
void dahl_fail(int status, const struct dahl_record *record, int worker, int64_t answer)
{
    int expected = 0;
    if (atomic_compare_exchange_strong(&dahl_state.failed, &expected, 1)) {
        dahl_state.failure.codelet = record ? record->codelet->id : -1;
        dahl_state.failure.task = record ? record->job : -1;
        dahl_state.failure.worker = worker;
        dahl_state.failure.answer = answer;
        dahl_state.failure.status = status;
        atomic_store(&dahl_state.failed, 2);
    }
    atomic_store(&dahl_state.cancelled, 1);
}

static int outcome(void)
{
    if (atomic_load(&dahl_state.failed) == 2)
        return dahl_state.failure.status;
    return atomic_load(&dahl_state.cancelled) ? DAHL_CANCELLED : DAHL_OK;
}

int dahl_failure_get(dahl_failure *failure)
{
    *failure = dahl_state.failure;
    return DAHL_OK;
}

int dahl_wait_all(void)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    starpu_task_wait_for_all();
    dahl_constants_may_change();
    return outcome();
}

int dahl_wait_submitted(int64_t at_most)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    if (at_most < 0)
        return DAHL_BAD_ARGUMENT;
    starpu_task_wait_for_n_submitted((unsigned)at_most);
    return outcome();
}

int64_t dahl_submitted(void)
{
    return atomic_load(&dahl_state.running) ? starpu_task_nsubmitted() : 0;
}

/* ---- data ---- */

/* StarPU takes a task's data in the order of the addresses of their handles (sort_data_handles.c), so that the order of
 * transfers, and with it the schedule, would depend on what the heap looks like. In a simulation addresses rise as data
 * are registered: a handle that falls into a hole of the heap is left there, to fill it. */
static int in_order(starpu_data_handle_t handle)
{
    if (handle > order.last) {
        order.last = handle;
        return 1;
    }
    order.plugs = realloc(order.plugs, (order.nplugs + 1) * sizeof(*order.plugs));
    STARPU_ASSERT_MSG(order.plugs, "no memory for %d handles", order.nplugs);
    order.plugs[order.nplugs++] = handle;
    return 0;
}

static void forget_order(void)
{
    for (int i = 0; i < order.nplugs; i++)
        starpu_data_unregister_no_coherency(order.plugs[i]);
    free(order.plugs);
    memset(&order, 0, sizeof(order));
}

int dahl_data_register(void *array, uint64_t elements, uint64_t element_bytes, void **handle)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    if (!array || !elements || !element_bytes || elements > UINT32_MAX)
        return DAHL_BAD_ARGUMENT;
    starpu_data_handle_t registered;
    for (int tries = 0; tries <= MAX_PLUGS; tries++) {
        starpu_vector_data_register(&registered, STARPU_MAIN_RAM, (uintptr_t)array, (uint32_t)elements, element_bytes);
        if (!dahl_state.simgrid || in_order(registered)) {
            *handle = registered;
            return DAHL_OK;
        }
    }
    return DAHL_NO_MEMORY;
}

int dahl_data_unregister(void *handle)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    starpu_data_unregister(handle);
    return DAHL_OK;
}

/* Pages of another pinned array, or of a file that cannot be written, are not pinned: copies of them take longer. */
int dahl_data_pin(void *array, uint64_t bytes)
{
    return starpu_cuda_worker_get_count() > 0 && starpu_memory_pin(array, bytes) == 0;
}

int dahl_data_unpin(void *array, uint64_t bytes)
{
    starpu_memory_unpin(array, bytes);
    return DAHL_OK;
}

int dahl_data_acquire(void *handle, int mode)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    if (mode < 1 || mode > 3)
        return DAHL_BAD_ARGUMENT;
    if (starpu_data_acquire(handle, (enum starpu_data_access_mode)mode))
        return DAHL_BAD_ARGUMENT;
    int status = outcome();
    if (status != DAHL_OK) /* kernels were skipped: the values are not what they should be */
        starpu_data_release(handle);
    return status;
}

int dahl_data_release(void *handle)
{
    starpu_data_release(handle);
    return DAHL_OK;
}

/* ---- simulation ---- */

extern int dahl_main_callback(void); /* in Python */

#ifdef STARPU_SIMGRID
/* libstarpu calls this weak symbol as the main actor, on a raw context. */
int starpu_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return dahl_main_callback();
}

int dahl_simulate(int argc, char **argv, int *returned)
{
    /* The interpreter exports a main of its own, so libstarpu's is taken from libstarpu by name. */
    Dl_info where;
    if (!dladdr((void *)starpu_init, &where))
        return DAHL_NO_SIMGRID;
    void *library = dlopen(where.dli_fname, RTLD_NOLOAD | RTLD_LAZY);
    if (!library)
        return DAHL_NO_SIMGRID;
    int (*enter)(int, char **) = (int (*)(int, char **))dlsym(library, "main");
    if (!enter)
        return DAHL_NO_SIMGRID;
    *returned = enter(argc, argv);
    return DAHL_OK;
}
#else
int dahl_simulate(int argc, char **argv, int *returned)
{
    (void)argc;
    (void)argv;
    (void)returned;
    return DAHL_NO_SIMGRID;
}
#endif
