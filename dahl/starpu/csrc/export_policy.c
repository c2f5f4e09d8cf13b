/* A policy in a library of its own: StarPU loads it by STARPU_SCHED_LIB, no Python is in the process.
 *
 * The policy itself runs on the same C layer as in the bindings (policy.c, placement.c, pull.c). That layer takes a
 * dahl_record for each task; here it is made when a task becomes ready and rides on the task's sched_data. Tasks of
 * unknown cost never reach the policy: they are spread over the workers in turn until StarPU's models know them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "export.h"

struct dahl_state dahl_state;

static struct starpu_sched_policy exported;
static const struct starpu_sched_policy *inner;
static struct dahl_export_watts watts;
static const double no_live_watts[2] = {NAN, NAN};
static int installed, told_calibration, told_no_model;

void dahl_stop(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "policy %s: ", dahl_exported.name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    fflush(NULL);
    _Exit(1);
}

void dahl_fail(int status, const struct dahl_record *record, int worker, int64_t answer)
{
    char about[128] = "a task of StarPU's own";
    if (record)
        snprintf(about, sizeof(about), "task %lld (%s)", (long long)record->job,
                 record->task->name ? record->task->name : record->codelet->name);
    if (status == DAHL_POLICY_RAISED)
        fprintf(stderr, "policy %s raised at %s\n", dahl_exported.name, about);
    else if (status == DAHL_POLICY_BAD_ANSWER)
        fprintf(stderr, "policy %s answered %lld for %s, which is none of the workers or rows that can take it\n",
                dahl_exported.name, (long long)answer, about);
    else if (status == DAHL_POLICY_STARVED)
        fprintf(stderr, "policy %s left every worker idle while %s waited\n", dahl_exported.name, about);
    else
        fprintf(stderr, "policy %s failed with status %d at %s on worker %d\n", dahl_exported.name, status, about, worker);
    fflush(NULL);
    abort();
}

/* ---- starting and stopping ---- */

static void init_exported(unsigned context)
{
    if (installed)
        dahl_stop("it can schedule one context of a program, and this program makes more");
    installed = 1;
    told_calibration = told_no_model = 0;
    memset(&dahl_state, 0, sizeof(dahl_state));
    dahl_state.nworkers = (int)starpu_worker_get_count();
    dahl_export_read_watts(&watts, dahl_state.nworkers);
    double *memory = calloc((size_t)dahl_exported.nmemory, sizeof(double));
    if (!memory)
        dahl_stop("no memory for %lld numbers of its own", (long long)dahl_exported.nmemory);
    dahl_state.policy = (dahl_policy){
        .name = dahl_exported.name,
        .place = dahl_exported.place,
        .pick = dahl_exported.pick,
        .started = dahl_exported.started,
        .ended = dahl_exported.ended,
        .memory = memory,
        .nmemory = dahl_exported.nmemory,
        .base_w = watts.base_w,
        .idle_w = watts.idle_w,
        .busy_w = watts.busy_w,
        .power_domain = watts.power_domain,
        .worker_class = watts.worker_class,
        .live = no_live_watts,
        .answer_limit_s = dahl_exported.answer_limit_s,
    };
    dahl_state.has_policy = 1;
    inner->init_sched(context);
    atomic_store(&dahl_state.running, 1);
}

static void deinit_exported(unsigned context)
{
    atomic_store(&dahl_state.running, 0);
    inner->deinit_sched(context);
    dahl_export_write_counts();
    dahl_export_free_kinds();
    free(dahl_state.policy.memory);
    dahl_state.policy.memory = NULL;
    installed = 0;
}

/* ---- tasks ---- */

static void tell_spread(const struct starpu_task *task, const char *name, const double *length_s)
{
    int *told = task->cl->model ? &told_calibration : &told_no_model;
    if (*told)
        return;
    *told = 1;
    if (!task->cl->model) {
        fprintf(stderr, "policy %s: %s has no performance model: tasks without one are spread over the workers\n",
                dahl_exported.name, name);
        return;
    }
    char worker_name[64] = "some worker";
    for (int w = dahl_state.nworkers - 1; w >= 0; w--)
        if (isnan(length_s[w]) && starpu_worker_can_execute_task_first_impl(w, (struct starpu_task *)task, NULL))
            starpu_worker_get_name(w, worker_name, sizeof(worker_name));
    fprintf(stderr,
            "policy %s: StarPU does not know yet how long %s takes on %s: "
            "tasks of unknown length are spread over the workers until it does\n",
            dahl_exported.name, name, worker_name);
}

static struct dahl_record *new_record(struct starpu_task *task, const struct dahl_export_kind *kind)
{
    struct dahl_record *record = calloc(1, sizeof(*record));
    if (!record)
        dahl_stop("no memory for a task");
    record->codelet = kind->codelet;
    record->task = task;
    record->costs = kind->costs;
    record->footprint = kind->number;
    record->job = atomic_fetch_add(&dahl_state.tasks, 1);
    record->b_level_s = NAN;
    record->graph = record->place = -1;
    return record;
}

static int push_exported(struct starpu_task *task)
{
    double length_s[dahl_state.nworkers];
    int ask = dahl_export_lengths(task, length_s) || dahl_exported.needs == DAHL_NEEDS_NOTHING;
    int worker = -1;
    dahl_lock();
    dahl_state.nnodes = (int)starpu_memory_nodes_get_count();
    struct dahl_export_kind *kind = dahl_export_kind_of(task, length_s);
    struct dahl_record *record = new_record(task, kind);
    task->sched_data = record;
    if (!ask) {
        worker = dahl_export_next_worker(kind, task);
        record->tag = 1; /* spread */
        tell_spread(task, kind->codelet->name, length_s);
        dahl_account_start(worker, record, 0.0, dahl_clock_s());
        dahl_accounts.handed[worker]++;
    }
    dahl_unlock();
    if (ask)
        return inner->push_task(task);
    dahl_choose_implementation(worker, task);
    return starpu_push_local_task(worker, task, 0);
}

static void started(struct starpu_task *task, unsigned context)
{
    struct dahl_record *record = dahl_record_of(task);
    if (!record) /* the program put it on a worker itself */
        return;
    record->started_s = dahl_clock_s();
    if (inner->pre_exec_hook)
        inner->pre_exec_hook(task, context);
}

static void ended(struct starpu_task *task, unsigned context)
{
    struct dahl_record *record = dahl_record_of(task);
    if (!record)
        return;
    double length_s = dahl_clock_s() - record->started_s;
    int worker = starpu_worker_get_id();
    if (record->tag) {
        dahl_lock();
        dahl_accounts.handed[worker]--;
        dahl_unlock();
    }
    inner->post_exec_hook(task, context);
    dahl_export_count(worker, record->codelet, record->tag != 0, length_s);
    task->sched_data = NULL;
    free(record);
}

/* ---- what StarPU looks up ---- */

#define VISIBLE __attribute__((visibility("default")))

/* Whether the StarPU of this process simulates: only then it has this function. */
static int program_simulates(void)
{
    Dl_info where;
    void *library = dladdr((void *)starpu_init, &where) ? dlopen(where.dli_fname, RTLD_NOLOAD | RTLD_LAZY) : NULL;
    int found = library && dlsym(library, "starpu_energy_use");
    if (library)
        dlclose(library);
    return found;
}

static struct starpu_sched_policy *exported_policy(void)
{
#ifdef STARPU_SIMGRID
    const int simulates = 1;
#else
    const int simulates = 0;
#endif
    int major, minor, release;
    starpu_get_version(&major, &minor, &release);
    if (major != STARPU_MAJOR_VERSION || minor != STARPU_MINOR_VERSION || release != STARPU_RELEASE_VERSION)
        dahl_stop("made for StarPU %d.%d.%d, but this program runs %d.%d.%d: export it again with --prefix",
                  STARPU_MAJOR_VERSION, STARPU_MINOR_VERSION, STARPU_RELEASE_VERSION, major, minor, release);
    if (simulates != program_simulates())
        dahl_stop("made for a StarPU that %s, but this program's %s: export it again with --prefix",
                  simulates ? "simulates" : "runs natively", simulates ? "runs natively" : "simulates");
    inner = dahl_exported.place ? &dahl_placement_policy : &dahl_pull_policy;
    exported = *inner;
    exported.init_sched = init_exported;
    exported.deinit_sched = deinit_exported;
    exported.push_task = push_exported;
    exported.pre_exec_hook = started;
    exported.post_exec_hook = ended;
    exported.policy_name = dahl_exported.name;
    exported.policy_description = dahl_exported.description;
    return &exported;
}

VISIBLE struct starpu_sched_policy *starpu_get_sched_lib_policy(const char *name)
{
    if (strcmp(name, dahl_exported.name) && strcmp(name, dahl_exported.other_name))
        return NULL;
    return exported_policy();
}

VISIBLE struct starpu_sched_policy **starpu_get_sched_lib_policies(void)
{
    static struct starpu_sched_policy *policies[2];
    policies[0] = exported_policy();
    return policies;
}
