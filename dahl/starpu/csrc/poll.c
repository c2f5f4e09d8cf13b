/* Workers that run out of tasks look for more for a while before they sleep.
 *
 * Waking a sleeping worker takes tens of microseconds, as long as a small task. Each scheduling policy, StarPU's own or
 * one of ours, is wrapped: a worker whose policy has nothing for it watches the number of pushed tasks, for at most
 * poll_us after its last task. It does so in the relaxed state, in which others may lock it, wake it or hand it a task,
 * and lets others have the core between two looks. Then StarPU puts it to sleep as it would have done at once.
 *
 * No task is missed: the count rises after a task has been pushed. A worker watches only where the count has not
 * changed since before its last full round, in which it has looked into the list of tasks of its own too.
 */
#include <sched.h>
#include "internal.h"

#if defined(STARPU_SIMGRID) || defined(STARPU_NON_BLOCKING_DRIVERS)
struct starpu_sched_policy *dahl_poll_wrap(struct starpu_sched_policy *policy, double poll_us)
{
    (void)poll_us;
    return policy;
}

/* Not counted here: as many as there can be. */
uint64_t dahl_poll_pushed(void)
{
    return UINT64_MAX;
}
#else

/* Pauses between two looks at the clock, some microseconds; the count is read after each. */
#define PAUSES 64

static struct starpu_sched_policy wrapped;
static const struct starpu_sched_policy *inner;
static double limit_us;
static struct { _Alignas(64) atomic_ullong count; } pushes;

/* Each worker writes its own. */
static struct {
    _Alignas(64) double since_us; /* since when it has no task; 0: it has one */
    unsigned long long seen;      /* pushes before its last full round */
} looks[STARPU_NMAXWORKERS];

static unsigned long long pushed(void)
{
    return atomic_load_explicit(&pushes.count, memory_order_acquire);
}

/* Tasks handed to the policy so far; as many as there can be where they are not counted. */
uint64_t dahl_poll_pushed(void)
{
    return limit_us > 0 ? pushed() : UINT64_MAX;
}

static int push_counted(struct starpu_task *task)
{
    int status = inner->push_task(task);
    atomic_fetch_add_explicit(&pushes.count, 1, memory_order_release);
    return status;
}

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void watch(unsigned long long seen, double until_us)
{
    do {
        for (int i = 0; i < PAUSES; i++) {
            pause_briefly();
            if (pushed() != seen)
                return;
        }
        sched_yield();
    } while (starpu_timing_now() < until_us);
}

static struct starpu_task *pop_inner(unsigned context)
{
    return inner->pop_task ? inner->pop_task(context) : NULL;
}

static struct starpu_task *pop_polling(unsigned context)
{
    int worker = starpu_worker_get_id_check();
    unsigned long long seen = pushed();
    struct starpu_task *task = pop_inner(context);
    if (!task) {
        double now_us = starpu_timing_now();
        if (looks[worker].since_us == 0)
            looks[worker].since_us = now_us;
        double until_us = looks[worker].since_us + limit_us;
        if (dahl_gpu_busy(worker)) { /* its driver stays awake, and looks whether the task has ended */
            looks[worker].since_us = 0;
            return NULL;
        }
        if (now_us >= until_us)
            return NULL;
        /* The driver of a GPU has transfers to look after, too: another round of it is its watch. */
        if (seen == looks[worker].seen && starpu_worker_get_type(worker) == STARPU_CPU_WORKER) {
            starpu_worker_relax_on();
            watch(seen, until_us);
            starpu_worker_relax_off();
            task = pushed() != seen ? pop_inner(context) : NULL;
        }
        looks[worker].seen = seen;
    }
    if (task)
        looks[worker].since_us = 0;
    else
        starpu_wake_worker_relax_light(worker); /* itself: one more round before it sleeps */
    return task;
}

/* One policy at a time is wrapped. */
struct starpu_sched_policy *dahl_poll_wrap(struct starpu_sched_policy *policy, double poll_us)
{
    limit_us = poll_us;
    if (!(poll_us > 0))
        return policy;
    inner = policy;
    atomic_store(&pushes.count, 0);
    for (int w = 0; w < STARPU_NMAXWORKERS; w++)
        looks[w].since_us = 0;
    wrapped = *policy;
    wrapped.push_task = push_counted;
    wrapped.pop_task = pop_polling;
    return &wrapped;
}
#endif
