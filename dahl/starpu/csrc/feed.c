/* Graphs that workers submit.
 *
 * Where each core has a worker, the thread that submits has no core of its own: it takes one from a worker, and the
 * others wait for that worker at the end of the mini-batch. A worker that has run out of tasks has nothing better to do.
 * So a list of graphs is left here, and at the end of a task a worker submits the next one where no task waits for a
 * worker, or where few are left.
 *
 * The list never comes to a halt: the end of the last task submits the next graph, and where somebody else is just
 * submitting they look once more when they are done.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <time.h>
#include "internal.h"

static struct {
    pthread_mutex_t submitting; /* held by whoever submits; nobody waits for it but start and stop */
    const dahl_graph *graphs;
    const int32_t *which;
    const int64_t *steps;
    int64_t count, at_most;
    atomic_llong next;
    atomic_int active;
} feed = {.submitting = PTHREAD_MUTEX_INITIALIZER};

/* For the thread that waits for the end of the list. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int status;
} end = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Each worker writes its own. */
static struct {
    _Alignas(64) atomic_llong started;
    atomic_llong finished;
} tasks_of[STARPU_NMAXWORKERS];

void dahl_feed_started(int worker)
{
    atomic_fetch_add_explicit(&tasks_of[worker].started, 1, memory_order_relaxed);
}

static int64_t started(void)
{
    int64_t count = 0;
    for (int w = 0; w < dahl_state.nworkers; w++)
        count += atomic_load_explicit(&tasks_of[w].started, memory_order_relaxed);
    return count;
}

static int64_t unfinished(void)
{
    int64_t count = atomic_load(&dahl_state.tasks);
    for (int w = 0; w < dahl_state.nworkers; w++)
        count -= atomic_load(&tasks_of[w].finished);
    return count;
}

static void stop(int status)
{
    atomic_store(&feed.active, 0);
    pthread_mutex_lock(&end.mutex);
    end.status = status;
    pthread_cond_signal(&end.changed);
    pthread_mutex_unlock(&end.mutex);
}

/* Called with the lock. */
static void submit_next(void)
{
    int64_t next = atomic_load(&feed.next);
    const dahl_graph *graph = &feed.graphs[feed.which[next]];
    int status = dahl_submit(graph->nodes, graph->n, graph->handles, graph->args, graph->strides, feed.steps[next]);
    if (status == DAHL_OK)
        atomic_store(&feed.next, ++next);
    if (status != DAHL_OK || next == feed.count)
        stop(status);
}

/* Called with the lock, which it frees: so many graphs, as long as not too many tasks are ahead. And another one where
 * all tasks have ended before the lock was free: none would end any more. */
static void submit_while(int64_t graphs)
{
    do {
        while (graphs-- > 0 && atomic_load(&feed.active) && unfinished() < feed.at_most)
            submit_next();
        pthread_mutex_unlock(&feed.submitting);
        atomic_thread_fence(memory_order_seq_cst); /* either this sees the last end, or that finds the lock free */
        graphs = 1;
    } while (atomic_load(&feed.active) && unfinished() == 0 && pthread_mutex_trylock(&feed.submitting) == 0);
}

void dahl_feed_ended(int worker)
{
    if (worker < 0)
        return;
    atomic_fetch_add(&tasks_of[worker].finished, 1);
    if (!atomic_load_explicit(&feed.active, memory_order_acquire))
        return;
    int64_t left = unfinished();
    if (left >= feed.at_most || (left > feed.at_most / 4 && dahl_poll_pushed() > (uint64_t)started()))
        return;
    atomic_thread_fence(memory_order_seq_cst);
    if (pthread_mutex_trylock(&feed.submitting) == 0)
        submit_while(1);
}

void dahl_feed_reset(void)
{
    for (int w = 0; w < STARPU_NMAXWORKERS; w++) {
        atomic_store(&tasks_of[w].started, 0);
        atomic_store(&tasks_of[w].finished, 0);
    }
}

int dahl_feed_start(const dahl_graph *graphs, const int32_t *which, const int64_t *steps, int64_t count,
                    int64_t at_most)
{
    if (!atomic_load(&dahl_state.running))
        return DAHL_NOT_RUNNING;
    if (count < 1 || at_most < 1 || dahl_state.simgrid)
        return DAHL_BAD_ARGUMENT;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_lock(&feed.submitting);
    pthread_cond_init(&end.changed, &attributes);
    pthread_condattr_destroy(&attributes);
    end.status = DAHL_OK;
    feed.graphs = graphs;
    feed.which = which;
    feed.steps = steps;
    feed.count = count;
    feed.at_most = at_most;
    atomic_store(&feed.next, 0);
    atomic_store(&feed.active, 1);
    submit_while(count);
    return DAHL_OK;
}

int dahl_feed_wait(double at_most_s, int64_t *submitted)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (int64_t)(at_most_s * 1e9);
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&end.mutex);
    while (atomic_load(&feed.active) && pthread_cond_timedwait(&end.changed, &end.mutex, &until) == 0)
        ;
    int status = end.status;
    pthread_mutex_unlock(&end.mutex);
    *submitted = atomic_load(&feed.next);
    return status;
}

/* What is not submitted yet never will be. */
int dahl_feed_stop(void)
{
    pthread_mutex_lock(&feed.submitting);
    atomic_store(&feed.active, 0);
    pthread_mutex_unlock(&feed.submitting);
    return DAHL_OK;
}
