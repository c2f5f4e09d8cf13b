/* Pull: ready tasks wait in one queue; an idle worker asks what to take, and may be told to stay idle.
 *
 * A worker that was told so sleeps until something changes: a task comes, is taken or ends. Each change is a new
 * generation; idle workers are then asked one after the other, each passing the question on, so that a task that
 * only the last of them wants still finds it, and a task that nobody wants costs each of them one question.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "policy.h"

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
    struct task_class *classes;
    int nclasses, classes_capacity;
    dahl_ready_view *ready;
    int *class_of_row;
    dahl_worker_view *workers;
    int rows_capacity;
    int64_t sequence, generation;
    struct waiting *spare;
    int64_t asked_generation[STARPU_NMAXWORKERS];
    char idle[STARPU_NMAXWORKERS];
} q;

static void init_pull(unsigned context)
{
    dahl_accounts_init(context);
    memset(&q, 0, sizeof(q));
    q.generation = 1;
}

static void free_chain(struct waiting *chain)
{
    while (chain) {
        struct waiting *next = chain->next;
        free(chain);
        chain = next;
    }
}

static void deinit_pull(unsigned context)
{
    (void)context;
    dahl_accounts_deinit();
    for (int i = 0; i < q.nclasses; i++)
        free_chain(q.classes[i].head);
    free_chain(q.spare);
    free(q.classes);
    free(q.ready);
    free(q.class_of_row);
    free(q.workers);
    memset(&q, 0, sizeof(q));
}

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
    *item = (struct waiting){.task = task, .sequence = q.sequence++, .ready_s = dahl_clock_s()};
    struct task_class *c = class_for(task, dahl_record_of(task));
    if (c->tail)
        c->tail->next = item;
    else
        c->head = item;
    c->tail = item;
    c->count++;
    dahl_accounts.ready_count++;
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
    dahl_accounts.ready_count--;
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

static double b_level_of(struct starpu_task *task)
{
    const struct dahl_record *record = dahl_record_of(task);
    return record ? record->b_level_s : NAN;
}

/* One row for each kind of ready task that this worker can run; returns their number. */
static int fill_ready(int worker, double now)
{
    reserve_rows(q.nclasses);
    int rows = 0;
    for (int i = 0; i < q.nclasses; i++) {
        struct task_class *c = &q.classes[i];
        if (!c->head || !dahl_can_run(c->head->task, worker))
            continue;
        q.ready[rows] = (dahl_ready_view){
            .count = c->count,
            .sequence = c->head->sequence,
            .footprint = c->footprint,
            .ready_s = c->head->ready_s,
            .b_level_s = b_level_of(c->head->task),
            .codelet = c->codelet ? c->codelet->id : -1,
            .priority = c->priority,
        };
        dahl_fill_workers(&q.workers[(size_t)rows * dahl_state.nworkers], c->head->task, now);
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

/* The log has the row that was taken, or where the worker stays idle the oldest one that it left. */
static void explain_pick(int worker, int rows, int answer, double now)
{
    if (!dahl_state.policy.explain)
        return;
    int row = answer >= 0 ? answer : oldest_row(rows);
    dahl_explain(q.classes[q.class_of_row[row]].head->task, &q.workers[(size_t)row * dahl_state.nworkers], worker,
                 answer >= 0 ? worker : -1, now);
}

/* Returns a row, or -1 where the worker is to stay idle. */
static int ask_pick(int worker, int rows, double now)
{
    if (atomic_load(&dahl_state.failed))
        return oldest_row(rows);
    dahl_system_view system = dahl_view_system(now);
    int32_t status = DAHL_POISON;
    int64_t answer = -1;
    dahl_asking();
    dahl_state.policy.pick(&status, &answer, worker, q.ready, rows, q.workers, dahl_state.nworkers, &system,
                           dahl_state.policy.memory, dahl_state.policy.nmemory);
    dahl_answered();
    if (status == 0 && answer >= -1 && answer < rows) {
        explain_pick(worker, rows, (int)answer, now);
        return (int)answer;
    }
    const struct dahl_record *record = dahl_record_of(q.classes[q.class_of_row[0]].head->task);
    dahl_fail(status ? DAHL_POLICY_RAISED : DAHL_POLICY_BAD_ANSWER, record, worker, answer);
    return oldest_row(rows);
}

/* An idle worker that has not been asked since something last changed, or -1. One that was handed a task asks when
 * that ends. */
static int next_to_ask(void)
{
    if (dahl_accounts.ready_count == 0)
        return -1;
    for (int w = 0; w < dahl_state.nworkers; w++)
        if (q.idle[w] && !dahl_accounts.handed[w] && q.asked_generation[w] != q.generation)
            return w;
    return -1;
}

/* Nobody runs, everybody has declined what there is: nothing would ever change again. */
static int starved(void)
{
    if (dahl_accounts.ready_count == 0 || atomic_load(&dahl_state.failed))
        return 0;
    for (int w = 0; w < dahl_state.nworkers; w++)
        if (!q.idle[w] || q.asked_generation[w] != q.generation || atomic_load(&dahl_accounts.progress[w].queued))
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
    dahl_lock();
    enqueue(task);
    int next = next_to_ask();
    starpu_push_task_end(task);
    dahl_unlock();
    wake(next);
    return 0;
}

static struct starpu_task *take(int worker, int row, double now)
{
    struct starpu_task *task = dequeue(&q.classes[q.class_of_row[row]]);
    double transfer_s = q.workers[(size_t)row * dahl_state.nworkers + worker].transfer_s;
    dahl_account_start(worker, dahl_record_of(task), transfer_s, now);
    q.idle[worker] = 0;
    return task;
}

static struct starpu_task *pop_pulled(unsigned context)
{
    (void)context;
    int worker = starpu_worker_get_id_check();
    struct starpu_task *task = NULL;
    dahl_lock();
    double now = dahl_clock_s();
    int rows = dahl_accounts.ready_count ? fill_ready(worker, now) : 0;
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
    dahl_unlock();
    if (next != worker)
        wake(next);
    else if (!task)
        starpu_wake_worker_relax_light(worker);
    if (task)
        dahl_choose_implementation(worker, task);
    return task;
}

static void pulled_ended(struct starpu_task *task, unsigned context)
{
    (void)context;
    int worker = starpu_worker_get_id();
    dahl_lock();
    double now = dahl_clock_s();
    dahl_account_end(worker, dahl_record_of(task), now);
    dahl_tell_end(task, worker, now);
    q.generation++;
    int next = next_to_ask();
    dahl_unlock();
    if (next != worker)
        wake(next);
}

struct starpu_sched_policy dahl_pull_policy = {
    .init_sched = init_pull,
    .deinit_sched = deinit_pull,
    .add_workers = dahl_add_workers,
    .push_task = push_pulled,
    .pop_task = pop_pulled,
    .pre_exec_hook = dahl_task_started,
    .post_exec_hook = pulled_ended,
    .policy_name = "dahl-pull",
    .policy_description = "idle workers ask a compiled function what to take",
    .worker_type = STARPU_WORKER_LIST,
};
