/* Placement: a policy is asked when a task becomes ready, and answers a worker.
 *
 * Each worker has a queue of its own, in order. Whoever pushes holds StarPU's lock of that worker, which waits while
 * the worker looks for a task; the worker itself takes from its queue without a lock, as under StarPU's dmda.
 */
#include <stdint.h>
#include <string.h>
#include "policy.h"

/* Tasks by their prev and next. */
static struct { _Alignas(64) struct starpu_task *first, *last; } queues[STARPU_NMAXWORKERS];

static void init_placement(unsigned context)
{
    memset(queues, 0, sizeof(queues));
    dahl_accounts_init(context);
}

static void deinit_placement(unsigned context)
{
    (void)context;
    dahl_accounts_deinit();
}

static int first_eligible(struct starpu_task *task)
{
    for (int w = 0; w < dahl_state.nworkers; w++)
        if (dahl_can_run(task, w))
            return w;
    return -1;
}

static int ask_place(struct starpu_task *task, dahl_worker_view *views, double now)
{
    struct dahl_record *record = dahl_record_of(task);
    dahl_task_view view = dahl_view_task(task, now);
    dahl_system_view system = dahl_view_system(now);
    int32_t status = DAHL_POISON;
    int64_t answer = -1;
    dahl_asking();
    dahl_state.policy.place(&status, &answer, &view, views, dahl_state.nworkers, &system, dahl_state.policy.memory,
                            dahl_state.policy.nmemory);
    dahl_answered();
    if (status != 0) {
        dahl_fail(DAHL_POLICY_RAISED, record, -1, answer);
        return -1;
    }
    if (answer < 0 || answer >= dahl_state.nworkers || !views[answer].can_run) {
        dahl_fail(DAHL_POLICY_BAD_ANSWER, record, -1, answer);
        return -1;
    }
    if (record)
        record->rank = views[answer].rank;
    dahl_explain(task, views, -1, (int)answer, now);
    return (int)answer;
}

/* ---- the workers' queues ---- */

static int32_t rank_of(struct starpu_task *task)
{
    const struct dahl_record *record = dahl_record_of(task);
    return record ? record->rank : 0;
}

/* Whether the worker may take either first: of equal priority, and no rank between them. */
static int interchangeable(struct starpu_task *one, struct starpu_task *other)
{
    return one == other || (one->priority == other->priority && !rank_of(one) && !rank_of(other));
}

/* The application's priority; where the policy gave ranks, the order of submissions, and of one submission the rank;
 * else the task that came first. */
static int goes_before(struct starpu_task *one, struct starpu_task *other)
{
    const struct dahl_record *mine = dahl_record_of(one), *theirs = dahl_record_of(other);
    if (one->priority != other->priority)
        return one->priority > other->priority;
    if (interchangeable(one, other) || !mine || !theirs)
        return 0;
    return mine->round != theirs->round ? mine->round < theirs->round : mine->rank > theirs->rank;
}

/* With the worker locked. From the end, where most tasks belong. */
static void insert(int worker, struct starpu_task *task)
{
    struct starpu_task *before = queues[worker].last;
    while (before && goes_before(task, before))
        before = before->prev;
    struct starpu_task *after = before ? before->next : queues[worker].first;
    task->prev = before;
    task->next = after;
    *(before ? &before->next : &queues[worker].first) = task;
    *(after ? &after->prev : &queues[worker].last) = task;
}

static void take_out(int worker, struct starpu_task *task)
{
    *(task->prev ? &task->prev->next : &queues[worker].first) = task->next;
    *(task->next ? &task->next->prev : &queues[worker].last) = task->prev;
    task->prev = task->next = NULL;
}

struct missing { size_t bytes, not_coming; };

/* What a task reads and the worker's memory does not have, and how much of it is not on its way yet: hints, taken
 * without the data's locks as StarPU does. */
static struct missing missing_of(struct starpu_task *task, unsigned node)
{
    struct missing missing = {0, 0};
    for (unsigned i = 0; i < STARPU_TASK_GET_NBUFFERS(task); i++) {
        int valid, loading;
        if (!(STARPU_TASK_GET_MODE(task, i) & STARPU_R))
            continue;
        starpu_data_query_status2(STARPU_TASK_GET_HANDLE(task, i), (int)node, NULL, &valid, &loading, NULL);
        if (valid)
            continue;
        missing.bytes += starpu_data_get_size(STARPU_TASK_GET_HANDLE(task, i));
        if (!loading)
            missing.not_coming += starpu_data_get_size(STARPU_TASK_GET_HANDLE(task, i));
    }
    return missing;
}

/* So many tasks are looked at for their data: a long queue would make each decision slow. */
#define LOOKS 64

/* The first task; where memories differ, of its equals the one of which the fewest bytes still have to come. */
static struct starpu_task *next_of(int worker)
{
    struct starpu_task *best = queues[worker].first;
    if (!best || !best->next || dahl_state.nnodes <= 1) /* in this order: workers look for tasks before nnodes is set */
        return best;
    unsigned node = starpu_worker_get_memory_node(worker);
    struct missing least = {SIZE_MAX, SIZE_MAX};
    int looks = 0;
    for (struct starpu_task *task = best; task && looks < LOOKS && interchangeable(task, queues[worker].first);
         task = task->next, looks++) {
        struct missing missing = missing_of(task, node);
        if (missing.bytes < least.bytes || (missing.bytes == least.bytes && missing.not_coming < least.not_coming)) {
            least = missing;
            best = task;
        }
        if (least.bytes == 0)
            break;
    }
    return best;
}

static struct starpu_task *pop_placed(unsigned context)
{
    (void)context;
    int worker = starpu_worker_get_id_check();
    struct starpu_task *task = next_of(worker);
    if (task)
        take_out(worker, task);
    return task;
}

static void hand_over(int worker, struct starpu_task *task)
{
    starpu_worker_lock(worker);
    insert(worker, task);
#if !defined(STARPU_NON_BLOCKING_DRIVERS) || defined(STARPU_SIMGRID)
    starpu_wake_worker_locked(worker);
#endif
    starpu_push_task_end(task);
    starpu_worker_unlock(worker);
}

/* ---- StarPU's calls ---- */

static int push_placed(struct starpu_task *task)
{
    dahl_worker_view views[dahl_state.nworkers];
    dahl_lock();
    double now = dahl_clock_s();
    dahl_fill_workers(views, task, now);
    /* After a failure what is left only has to drain: any worker that can will do. */
    int worker = atomic_load(&dahl_state.failed) ? -1 : ask_place(task, views, now);
    if (worker < 0)
        worker = first_eligible(task);
    dahl_account_start(worker, dahl_record_of(task), views[worker].transfer_s, now);
    dahl_unlock();
    dahl_choose_implementation(worker, task);
    if (dahl_state.nnodes > 1 && starpu_get_prefetch_flag())
        starpu_prefetch_task_input_for(task, worker);
    hand_over(worker, task);
    return 0;
}

static void placed_ended(struct starpu_task *task, unsigned context)
{
    (void)context;
    int worker = starpu_worker_get_id();
    double now = dahl_clock_s();
    dahl_account_end(worker, dahl_record_of(task), now);
    if (!dahl_state.policy.ended)
        return;
    dahl_lock();
    dahl_tell_end(task, worker, now);
    dahl_unlock();
}

struct starpu_sched_policy dahl_placement_policy = {
    .init_sched = init_placement,
    .deinit_sched = deinit_placement,
    .add_workers = dahl_add_workers,
    .push_task = push_placed,
    .pop_task = pop_placed,
    .pre_exec_hook = dahl_task_started,
    .post_exec_hook = placed_ended,
    .prefetches = 1,
    .policy_name = "dahl-placement",
    .policy_description = "asks a compiled function for a worker",
    .worker_type = STARPU_WORKER_LIST,
};
