/* Putting the last awake worker to sleep.
 *
 * Drivers that can block leave the last awake worker looking for tasks without a pause (_starpu_get_worker_task and
 * _starpu_sched_ctx_last_worker_awake in StarPU), whatever the policy: a core stays busy while there is nothing to do.
 * CPU drivers call idle hooks between two looks, in a state where others may lock the worker. Here it waits on the
 * worker's own condition, which StarPU broadcasts under the worker's mutex for whatever concerns the worker.
 *
 * No task is missed: StarPU counts a task as ready before it pushes it and locks the mutex to wake a worker. Such a
 * wake-up comes either before this has the mutex, then the count tells, or once it waits. The limit on the sleep is
 * for what is no task, of which the hook cannot know: requests for data, contexts, shutting down.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <time.h>
#include "internal.h"

#if defined(STARPU_SIMGRID) || defined(STARPU_NON_BLOCKING_DRIVERS)
void dahl_idle_init(void) {}
void dahl_idle_deinit(void) {}
#else

/* Shorter gaps, such as between two steps of a program, do not pay for a wake-up. */
#define AWAKE_US 200.0
#define SLEEP_NS 10000000L

/* Each worker writes its own. */
static struct {
    _Alignas(64) int64_t tasks; /* submitted when it last looked */
    double since_us;
} idle[STARPU_NMAXWORKERS];
static int hook = -1;

static void sleep_on(starpu_pthread_cond_t *cond, starpu_pthread_mutex_t *mutex)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SLEEP_NS;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &until);
}

static unsigned sleep_while_idle(void *unused)
{
    (void)unused;
    int worker = starpu_worker_get_id();
    int64_t tasks = atomic_load(&dahl_state.tasks);
    double now_us = starpu_timing_now();
    if (worker < 0)
        return 1;
    if (tasks != idle[worker].tasks) {
        idle[worker].tasks = tasks;
        idle[worker].since_us = now_us;
    }
    if (now_us - idle[worker].since_us < AWAKE_US)
        return 1;
    starpu_pthread_mutex_t *mutex;
    starpu_pthread_cond_t *cond;
    starpu_worker_get_sched_condition(worker, &mutex, &cond);
    STARPU_PTHREAD_MUTEX_LOCK(mutex);
    if (starpu_task_nready() == 0)
        sleep_on(cond, mutex);
    STARPU_PTHREAD_MUTEX_UNLOCK(mutex);
    return 1;
}

void dahl_idle_init(void)
{
    for (int w = 0; w < STARPU_NMAXWORKERS; w++)
        idle[w].tasks = -1;
    hook = starpu_idle_hook_register(sleep_while_idle, NULL);
}

void dahl_idle_deinit(void)
{
    if (hook >= 0)
        starpu_idle_hook_deregister(hook);
    hook = -1;
}
#endif
