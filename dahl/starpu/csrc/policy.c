/* The two policy families: placement (asked when a task becomes ready, answers a worker) and pull
 * (one queue; an idle worker asks, and may be told to stay idle). A policy is a compiled function;
 * queues, locks, sleeping, waking and prefetching are here, once for both.
 *
 * Locking: one mutex guards everything below. It is taken inside starpu_worker_relax_on/off, so that
 * a worker waiting for it can still be woken or shut down, and no worker is woken while it is held.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"

struct waiting {
    struct starpu_task *task;
    struct waiting *next;
    int64_t sequence;
    double ready_s;
};

/* Ready tasks of one kind: the same codelet, cost row and priority. */
struct task_class {
    struct dahl_codelet *codelet;
    const double *costs;
    int64_t footprint;
    int priority;
    struct waiting *head, *tail;
    int64_t count;
};

static struct {
    starpu_pthread_mutex_t mutex;
    struct task_class *classes;
    int nclasses, classes_capacity;
    dahl_ready_view *ready;
    int *class_of_row;
    dahl_worker_view *workers;
    int rows_capacity;
    int64_t ready_count, sequence, generation;
    struct waiting *spare;
    /* by worker */
    double available_at_s[STARPU_NMAXWORKERS];
    int64_t queued[STARPU_NMAXWORKERS];
    int64_t asked_generation[STARPU_NMAXWORKERS];
    char idle[STARPU_NMAXWORKERS];
    int64_t running;
} q;

static void lock(void)
{
    starpu_worker_relax_on();
    STARPU_PTHREAD_MUTEX_LOCK(&q.mutex);
    starpu_worker_relax_off();
}

static void unlock(void)
{
    STARPU_PTHREAD_MUTEX_UNLOCK(&q.mutex);
}

static void init_policy(unsigned context)
{
    (void)context;
    memset(&q, 0, sizeof(q));
    STARPU_PTHREAD_MUTEX_INIT(&q.mutex, NULL);
    q.generation = 1;
    for (int i = 0; i < dahl_state.policy.nmemory; i++)
        dahl_state.policy.memory[i] = 0.0;
}

static void free_chain(struct waiting *chain)
{
    while (chain) {
        struct waiting *next = chain->next;
        free(chain);
        chain = next;
    }
}

static void deinit_policy(unsigned context)
{
    (void)context;
    STARPU_PTHREAD_MUTEX_DESTROY(&q.mutex);
    for (int i = 0; i < q.nclasses; i++)
        free_chain(q.classes[i].head);
    free_chain(q.spare);
    free(q.classes);
    free(q.ready);
    free(q.class_of_row);
    free(q.workers);
    memset(&q, 0, sizeof(q));
}

static void add_workers(unsigned context, int *ids, unsigned n)
{
    (void)context;
    (void)ids;
    (void)n;
}

static double now_s(void)
{
    return starpu_timing_now() * 1e-6;
}

/* ---- what the policy sees ---- */

static double length_of(const struct dahl_record *record, int worker)
{
    if (record && record->costs)
        return record->costs[worker];
    if (!record || !record->codelet->cl.model)
        return NAN;
    double us = starpu_task_worker_expected_length(record->task, worker, record->task->sched_ctx, 0);
    return isfinite(us) && us > 0 ? us * 1e-6 : NAN;
}

static void fill_worker(dahl_worker_view *view, struct starpu_task *task, int worker, double now, double transfer_s)
{
    const struct dahl_record *record = dahl_record_of(task);
    view->can_run = starpu_worker_can_execute_task_first_impl(worker, task, NULL);
    view->length_s = view->can_run ? length_of(record, worker) : NAN;
    view->energy_j = view->can_run && record && record->costs ? record->costs[dahl_state.nworkers + worker] : NAN;
    view->transfer_s = transfer_s;
    view->available_s = q.available_at_s[worker] > now ? q.available_at_s[worker] - now : 0.0;
    view->idle_w = dahl_state.policy.idle_w[worker];
    view->busy_w = dahl_state.policy.busy_w[worker];
    view->power_domain = dahl_state.policy.power_domain[worker];
    view->queued = q.queued[worker];
    view->arch = starpu_worker_get_type(worker) == STARPU_CPU_WORKER ? 0 : 1;
    view->memory_node = (int32_t)starpu_worker_get_memory_node(worker);
    view->worker_class = dahl_state.policy.worker_class[worker];
    view->reserved = 0;
}

/* Workers of one memory node share the expected transfer, so it is asked for once a node. */
static void fill_workers(dahl_worker_view *views, struct starpu_task *task, double now)
{
    double transfer_of_node[STARPU_MAXNODES];
    for (int i = 0; i < dahl_state.nnodes; i++)
        transfer_of_node[i] = NAN;
    for (int w = 0; w < dahl_state.nworkers; w++) {
        unsigned node = starpu_worker_get_memory_node(w);
        if (isnan(transfer_of_node[node]))
            transfer_of_node[node] =
                dahl_state.nnodes > 1 ? starpu_task_expected_data_transfer_time_for(task, w) * 1e-6 : 0.0;
        fill_worker(&views[w], task, w, now, transfer_of_node[node]);
    }
}

static dahl_system_view system_view(double now)
{
    dahl_system_view view = {.now_s = now, .base_w = dahl_state.policy.base_w, .ready_count = q.ready_count};
    view.running_count = q.running;
    for (int w = 0; w < dahl_state.nworkers; w++)
        view.idle_w += dahl_state.policy.idle_w[w];
    return view;
}

static void account_start(int worker, const struct dahl_record *record, double transfer_s, double now)
{
    double length = length_of(record, worker);
    double from = q.available_at_s[worker] > now ? q.available_at_s[worker] : now;
    q.available_at_s[worker] = from + (isnan(length) ? 0.0 : length) + (isnan(transfer_s) ? 0.0 : transfer_s);
    q.queued[worker]++;
    q.running++;
}

static void account_end(int worker)
{
    double now = now_s();
    q.queued[worker]--;
    q.running--;
    if (q.queued[worker] == 0 || q.available_at_s[worker] < now)
        q.available_at_s[worker] = now;
}

static int first_eligible(struct starpu_task *task)
{
    for (int w = 0; w < dahl_state.nworkers; w++)
        if (starpu_worker_can_execute_task_first_impl(w, task, NULL))
            return w;
    return -1;
}

/* ---- placement ---- */

static int ask_place(struct starpu_task *task, const dahl_worker_view *views, double now)
{
    const struct dahl_record *record = dahl_record_of(task);
    dahl_task_view view = {
        .id = record ? record->job : -1,
        .footprint = record ? record->footprint : 0,
        .ready_s = now,
        .codelet = record ? record->codelet->id : -1,
        .priority = task->priority,
    };
    dahl_system_view system = system_view(now);
    int32_t status = DAHL_POISON;
    int64_t answer = -1;
    dahl_state.policy.place(&status, &answer, &view, views, dahl_state.nworkers, &system, dahl_state.policy.memory,
                            dahl_state.policy.nmemory);
    if (status != 0) {
        dahl_fail(DAHL_POLICY_RAISED, record, -1, answer);
        return -1;
    }
    if (answer < 0 || answer >= dahl_state.nworkers || !views[answer].can_run) {
        dahl_fail(DAHL_POLICY_BAD_ANSWER, record, -1, answer);
        return -1;
    }
    return (int)answer;
}

static int push_placed(struct starpu_task *task)
{
    dahl_worker_view views[dahl_state.nworkers];
    lock();
    double now = now_s();
    fill_workers(views, task, now);
    /* After a failure what is left only has to drain: any worker that can will do. */
    int worker = atomic_load(&dahl_state.failed) ? -1 : ask_place(task, views, now);
    if (worker < 0)
        worker = first_eligible(task);
    account_start(worker, dahl_record_of(task), views[worker].transfer_s, now);
    unlock();
    unsigned implementation = 0;
    starpu_worker_can_execute_task_first_impl(worker, task, &implementation);
    starpu_task_set_implementation(task, implementation);
    if (dahl_state.nnodes > 1 && starpu_get_prefetch_flag())
        starpu_prefetch_task_input_for(task, worker);
    return starpu_push_local_task(worker, task, 0);
}

static void placed_ended(struct starpu_task *task, unsigned context)
{
    (void)task;
    (void)context;
    int worker = starpu_worker_get_id();
    lock();
    account_end(worker);
    unlock();
}

struct starpu_sched_policy dahl_placement_policy = {
    .init_sched = init_policy,
    .deinit_sched = deinit_policy,
    .add_workers = add_workers,
    .push_task = push_placed,
    .post_exec_hook = placed_ended,
    .prefetches = 1,
    .policy_name = "dahl-placement",
    .policy_description = "asks a compiled function for a worker",
    .worker_type = STARPU_WORKER_LIST,
};

/* ---- pull ---- */

static struct task_class *class_for(const struct starpu_task *task, const struct dahl_record *record)
{
    struct dahl_codelet *codelet = record ? record->codelet : NULL;
    const double *costs = record ? record->costs : NULL;
    for (int i = 0; i < q.nclasses; i++)
        if (q.classes[i].codelet == codelet && q.classes[i].costs == costs && q.classes[i].priority == task->priority)
            return &q.classes[i];
    if (q.nclasses == q.classes_capacity) {
        int capacity = q.classes_capacity ? 2 * q.classes_capacity : 32;
        struct task_class *grown = realloc(q.classes, capacity * sizeof(*grown));
        STARPU_ASSERT_MSG(grown, "no memory for %d task classes", capacity);
        q.classes = grown;
        q.classes_capacity = capacity;
    }
    q.classes[q.nclasses] = (struct task_class){
        .codelet = codelet, .costs = costs, .footprint = record ? record->footprint : 0, .priority = task->priority};
    return &q.classes[q.nclasses++];
}

static void enqueue(struct starpu_task *task)
{
    struct waiting *item = q.spare;
    if (item)
        q.spare = item->next;
    else
        item = malloc(sizeof(*item));
    STARPU_ASSERT_MSG(item, "no memory for a ready task");
    *item = (struct waiting){.task = task, .sequence = q.sequence++, .ready_s = now_s()};
    struct task_class *c = class_for(task, dahl_record_of(task));
    if (c->tail)
        c->tail->next = item;
    else
        c->head = item;
    c->tail = item;
    c->count++;
    q.ready_count++;
    q.generation++;
}

static struct starpu_task *dequeue(struct task_class *c)
{
    struct waiting *item = c->head;
    struct starpu_task *task = item->task;
    c->head = item->next;
    if (!c->head)
        c->tail = NULL;
    c->count--;
    q.ready_count--;
    q.generation++;
    item->next = q.spare;
    q.spare = item;
    return task;
}

static void reserve_rows(int rows)
{
    if (rows <= q.rows_capacity)
        return;
    q.rows_capacity = 2 * rows;
    q.ready = realloc(q.ready, q.rows_capacity * sizeof(*q.ready));
    q.class_of_row = realloc(q.class_of_row, q.rows_capacity * sizeof(*q.class_of_row));
    q.workers = realloc(q.workers, (size_t)q.rows_capacity * dahl_state.nworkers * sizeof(*q.workers));
    STARPU_ASSERT_MSG(q.ready && q.class_of_row && q.workers, "no memory for %d rows", q.rows_capacity);
}

/* One row for each kind of ready task that this worker can run; returns their number. */
static int fill_ready(int worker, double now)
{
    reserve_rows(q.nclasses);
    int rows = 0;
    for (int i = 0; i < q.nclasses; i++) {
        struct task_class *c = &q.classes[i];
        if (!c->head || !starpu_worker_can_execute_task_first_impl(worker, c->head->task, NULL))
            continue;
        q.ready[rows] = (dahl_ready_view){
            .count = c->count,
            .sequence = c->head->sequence,
            .footprint = c->footprint,
            .ready_s = c->head->ready_s,
            .codelet = c->codelet ? c->codelet->id : -1,
            .priority = c->priority,
        };
        fill_workers(&q.workers[(size_t)rows * dahl_state.nworkers], c->head->task, now);
        q.class_of_row[rows++] = i;
    }
    return rows;
}

static int oldest_row(int rows)
{
    int oldest = 0;
    for (int i = 1; i < rows; i++)
        if (q.ready[i].sequence < q.ready[oldest].sequence)
            oldest = i;
    return oldest;
}

/* Returns a row, or -1 where the worker is to stay idle. */
static int ask_pick(int worker, int rows, double now)
{
    if (atomic_load(&dahl_state.failed))
        return oldest_row(rows);
    dahl_system_view system = system_view(now);
    int32_t status = DAHL_POISON;
    int64_t answer = -1;
    dahl_state.policy.pick(&status, &answer, worker, q.ready, rows, q.workers, dahl_state.nworkers, &system,
                           dahl_state.policy.memory, dahl_state.policy.nmemory);
    if (status == 0 && answer >= -1 && answer < rows)
        return (int)answer;
    const struct dahl_record *record = dahl_record_of(q.classes[q.class_of_row[0]].head->task);
    dahl_fail(status ? DAHL_POLICY_RAISED : DAHL_POLICY_BAD_ANSWER, record, worker, answer);
    return oldest_row(rows);
}

/* An idle worker that has not been asked since something last changed, or -1. */
static int next_to_ask(void)
{
    if (q.ready_count == 0)
        return -1;
    for (int w = 0; w < dahl_state.nworkers; w++)
        if (q.idle[w] && q.asked_generation[w] != q.generation)
            return w;
    return -1;
}

/* Nobody runs, everybody has declined what there is: nothing would ever change again. */
static int starved(void)
{
    if (q.ready_count == 0 || q.running > 0 || atomic_load(&dahl_state.failed))
        return 0;
    for (int w = 0; w < dahl_state.nworkers; w++)
        if (!q.idle[w] || q.asked_generation[w] != q.generation)
            return 0;
    return 1;
}

static void wake(int worker)
{
    if (worker >= 0)
        starpu_wake_worker_relax_light(worker);
}

static int push_pulled(struct starpu_task *task)
{
    lock();
    enqueue(task);
    int next = next_to_ask();
    starpu_push_task_end(task);
    unlock();
    wake(next);
    return 0;
}

static struct starpu_task *take(int worker, int row, double now)
{
    struct starpu_task *task = dequeue(&q.classes[q.class_of_row[row]]);
    double transfer_s = q.workers[(size_t)row * dahl_state.nworkers + worker].transfer_s;
    account_start(worker, dahl_record_of(task), transfer_s, now);
    q.idle[worker] = 0;
    return task;
}

static struct starpu_task *pop_pulled(unsigned context)
{
    (void)context;
    int worker = starpu_worker_get_id_check();
    struct starpu_task *task = NULL;
    lock();
    double now = now_s();
    int rows = q.ready_count ? fill_ready(worker, now) : 0;
    int row = rows ? ask_pick(worker, rows, now) : -1;
    if (row >= 0) {
        task = take(worker, row, now);
    } else {
        q.idle[worker] = 1;
        q.asked_generation[worker] = q.generation;
        if (starved()) {
            for (int i = 0; i < q.nclasses; i++)
                if (q.classes[i].head) {
                    dahl_fail(DAHL_POLICY_STARVED, dahl_record_of(q.classes[i].head->task), worker, -1);
                    break;
                }
            q.generation++; /* ask everybody again: with the failure set they take what there is */
        }
    }
    int next = next_to_ask();
    unlock();
    if (next != worker)
        wake(next);
    else if (!task)
        starpu_wake_worker_relax_light(worker);
    if (task) {
        unsigned implementation = 0;
        starpu_worker_can_execute_task_first_impl(worker, task, &implementation);
        starpu_task_set_implementation(task, implementation);
    }
    return task;
}

static void pulled_ended(struct starpu_task *task, unsigned context)
{
    (void)task;
    (void)context;
    int worker = starpu_worker_get_id();
    lock();
    account_end(worker);
    q.generation++;
    int next = next_to_ask();
    unlock();
    if (next != worker)
        wake(next);
}

struct starpu_sched_policy dahl_pull_policy = {
    .init_sched = init_policy,
    .deinit_sched = deinit_policy,
    .add_workers = add_workers,
    .push_task = push_pulled,
    .pop_task = pop_pulled,
    .post_exec_hook = pulled_ended,
    .policy_name = "dahl-pull",
    .policy_description = "idle workers ask a compiled function what to take",
    .worker_type = STARPU_WORKER_LIST,
};
