/* Locks and conditions of a simulation without a turn through SimGrid's scheduler.
 *
 * A simulation is one thread: only one actor runs at a time, until it blocks. So a free lock can be taken by setting a
 * flag, where SimGrid's own goes to the scheduler and back (two context switches), a hundred times per task of StarPU.
 * libstarpu finds these functions before libsimgrid's, because this library heads the list in which its symbols are
 * looked up. Who has to wait does so on a semaphore of SimGrid's; waiters go in the order in which they came.
 */
#include <starpu.h>

#ifdef STARPU_SIMGRID
#include <simgrid/actor.h>
#include <simgrid/cond.h>
#include <simgrid/mutex.h>
#include <simgrid/semaphore.h>
#include <stdlib.h>

struct waiter {
    sg_sem_t woken;
    struct waiter *next;
};

struct queue {
    struct waiter *first, *last;
};

struct lock {
    int taken;
    struct queue waiting;
};

static struct waiter *unused;

static struct waiter *enqueue(struct queue *queue)
{
    struct waiter *waiter = unused;
    if (waiter) {
        unused = waiter->next;
    } else {
        waiter = malloc(sizeof(*waiter));
        if (!waiter)
            abort();
        waiter->woken = sg_sem_init(0);
    }
    waiter->next = NULL;
    if (queue->first)
        queue->last->next = waiter;
    else
        queue->first = waiter;
    queue->last = waiter;
    return waiter;
}

static struct waiter *dequeue(struct queue *queue)
{
    struct waiter *waiter = queue->first;
    if (waiter)
        queue->first = waiter->next;
    return waiter;
}

static int withdraw(struct queue *queue, struct waiter *waiter)
{
    struct waiter *before = NULL;
    for (struct waiter *at = queue->first; at; before = at, at = at->next)
        if (at == waiter) {
            if (before)
                before->next = at->next;
            else
                queue->first = at->next;
            if (queue->last == at)
                queue->last = before;
            return 1;
        }
    return 0;
}

static void give_back(struct waiter *waiter)
{
    waiter->next = unused;
    unused = waiter;
}

/* ---- locks ---- */

sg_mutex_t sg_mutex_init(void)
{
    struct lock *lock = calloc(1, sizeof(*lock));
    if (!lock)
        abort();
    return (sg_mutex_t)lock;
}

void sg_mutex_destroy(const_sg_mutex_t mutex)
{
    free((void *)mutex);
}

void sg_mutex_lock(sg_mutex_t mutex)
{
    struct lock *lock = (struct lock *)mutex;
    if (!lock->taken) {
        lock->taken = 1;
        return;
    }
    struct waiter *waiter = enqueue(&lock->waiting);
    sg_sem_acquire(waiter->woken); /* the lock is handed over */
    give_back(waiter);
}

int sg_mutex_try_lock(sg_mutex_t mutex)
{
    struct lock *lock = (struct lock *)mutex;
    if (lock->taken)
        return 0;
    return lock->taken = 1;
}

void sg_mutex_unlock(sg_mutex_t mutex)
{
    struct lock *lock = (struct lock *)mutex;
    struct waiter *waiter = dequeue(&lock->waiting);
    if (waiter)
        sg_sem_release(waiter->woken);
    else
        lock->taken = 0;
}

/* ---- conditions ---- */

sg_cond_t sg_cond_init(void)
{
    struct queue *queue = calloc(1, sizeof(*queue));
    if (!queue)
        abort();
    return (sg_cond_t)queue;
}

void sg_cond_destroy(const_sg_cond_t cond)
{
    free((void *)cond);
}

void sg_cond_wait(sg_cond_t cond, sg_mutex_t mutex)
{
    struct waiter *waiter = enqueue((struct queue *)cond);
    sg_mutex_unlock(mutex);
    sg_sem_acquire(waiter->woken);
    give_back(waiter);
    sg_mutex_lock(mutex);
}

int sg_cond_wait_for(sg_cond_t cond, sg_mutex_t mutex, double delay)
{
    struct queue *queue = (struct queue *)cond;
    struct waiter *waiter = enqueue(queue);
    sg_mutex_unlock(mutex);
    int late = sg_sem_acquire_timeout(waiter->woken, delay > 0 ? delay : 0);
    if (late && !withdraw(queue, waiter)) { /* it was chosen just before, and its wake-up is on the way */
        sg_sem_acquire(waiter->woken);
        late = 0;
    }
    give_back(waiter);
    sg_mutex_lock(mutex);
    return late;
}

void sg_cond_notify_one(sg_cond_t cond)
{
    struct waiter *waiter = dequeue((struct queue *)cond);
    if (waiter)
        sg_sem_release(waiter->woken);
}

void sg_cond_notify_all(sg_cond_t cond)
{
    struct queue *queue = (struct queue *)cond;
    struct queue woken = *queue; /* who comes while these are woken waits for the next time */
    queue->first = NULL;
    for (struct waiter *waiter; (waiter = dequeue(&woken));)
        sg_sem_release(waiter->woken);
}
#endif
