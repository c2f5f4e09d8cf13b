/* Shared by the C files only. */
#ifndef DAHL_INTERNAL_H
#define DAHL_INTERNAL_H
#include <starpu.h>
#include <starpu_scheduler.h>
#include <stdatomic.h>
#include "dahl.h"

#define DAHL_POISON 0x5eed

struct dahl_codelet {
    struct starpu_codelet cl; /* first: a task's cl is the dahl_codelet */
    struct starpu_perfmodel length_model;
    struct starpu_perfmodel energy_model;
    dahl_kernel cpu;
    int32_t id;
    int32_t repeats;
    int32_t nmodes;
    int32_t modes[STARPU_NMAXBUFS];
    char *name;
    char *symbol;
};

/* Rides on every task as its cl_arg; StarPU frees it with the task. */
struct dahl_record {
    struct dahl_codelet *codelet;
    struct starpu_task *task;
    const double *costs;
    int64_t tag;
    int64_t footprint;
    int64_t job;
    int64_t round; /* number of the submission: tasks of an earlier one go first */
    int32_t graph, place, rank;
    double b_level_s;
    double expected_s; /* on the worker that it was handed to */
    double started_s;
    const int64_t *program;
    int32_t *failure;   /* where its kernels on a GPU write what they find wrong */
    int32_t gpu_worker; /* that has begun it, -1 before */
    int64_t nargs;
    int64_t args[];
};

struct dahl_state {
    atomic_int running;
    atomic_int cancelled;
    atomic_int failed;
    atomic_llong tasks;
    dahl_failure failure;
    int simgrid;
    int trace;
    int nworkers;
    int nnodes;
    int cpu_worker_of_device[STARPU_NMAXWORKERS];
    int gpu_worker_of_device[STARPU_NMAXWORKERS];
    dahl_policy policy;
    int has_policy;
};

extern struct dahl_state dahl_state;
extern struct starpu_sched_policy dahl_placement_policy;
extern struct starpu_sched_policy dahl_pull_policy;

void dahl_fail(int status, const struct dahl_record *record, int worker, int64_t answer);
void dahl_trace_callback(void *arg);
void dahl_trace_reset(void);
double dahl_noise_factor(int64_t job);
void dahl_submitting(void);
void dahl_ran_reset(void);
int dahl_ran_take(int worker, double *start_s, double *end_s);
struct starpu_sched_policy *dahl_poll_wrap(struct starpu_sched_policy *policy, double poll_us);
uint64_t dahl_poll_pushed(void);
void dahl_feed_reset(void);
void dahl_feed_started(int worker);
void dahl_feed_ended(int worker);
void dahl_idle_init(void);
void dahl_idle_deinit(void);
void dahl_run_cuda(void *interfaces[], void *arg);
void dahl_cuda_ended(struct dahl_record *record);
int dahl_gpu_busy(int worker);
void dahl_cuda_close(void);
void dahl_constants_may_change(void);
int dahl_constants_renew(void);

static inline struct dahl_record *dahl_record_of(struct starpu_task *task)
{
#ifdef DAHL_EXPORTED
    /* Of tasks that the program itself put on a worker the policy hears nothing. */
    return task->execute_on_a_specific_worker ? NULL : task->sched_data;
#else
    /* Every task of this binding has its callback set; StarPU's own internal tasks do not. */
    return task->callback_func == dahl_trace_callback ? task->cl_arg : NULL;
#endif
}
#endif
