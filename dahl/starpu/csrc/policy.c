/* What the two policy families share: the lock, the workers' accounts, and the records that a policy sees.
 *
 * Locking: one mutex guards the accounts and the queues. It is taken inside starpu_worker_relax_on/off, so that
 * a worker waiting for it can still be woken or shut down, and no worker is woken while it is held.
 */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "policy.h"

struct dahl_accounts dahl_accounts;
static struct { dahl_decision *rows; int64_t count, capacity, decisions; } explained;

void dahl_accounts_init(unsigned context)
{
    /* Else StarPU takes every priority for 0. */
    if (!starpu_sched_ctx_min_priority_is_set(context))
        starpu_sched_ctx_set_min_priority(context, INT_MIN);
    if (!starpu_sched_ctx_max_priority_is_set(context))
        starpu_sched_ctx_set_max_priority(context, INT_MAX);
    memset(&dahl_accounts, 0, sizeof(dahl_accounts));
    STARPU_PTHREAD_MUTEX_INIT(&dahl_accounts.mutex, NULL);
    explained.count = explained.decisions = 0;
    dahl_watch_start();
}

void dahl_accounts_deinit(void)
{
    dahl_watch_stop();
    STARPU_PTHREAD_MUTEX_DESTROY(&dahl_accounts.mutex);
}

void dahl_lock(void)
{
    starpu_worker_relax_on();
    STARPU_PTHREAD_MUTEX_LOCK(&dahl_accounts.mutex);
    starpu_worker_relax_off();
}

void dahl_unlock(void)
{
    STARPU_PTHREAD_MUTEX_UNLOCK(&dahl_accounts.mutex);
}

double dahl_clock_s(void)
{
    return starpu_timing_now() * 1e-6;
}

/* ---- what the policy sees ---- */

static double known(double seconds)
{
    return isnan(seconds) ? 0.0 : seconds;
}

static void add(_Atomic double *sum, double seconds)
{
    double before = atomic_load_explicit(sum, memory_order_relaxed);
    atomic_store_explicit(sum, before + seconds, memory_order_relaxed);
}

static double length_of(const struct dahl_record *record, int worker)
{
    if (record && record->costs)
        return record->costs[worker];
    if (!record || !record->codelet->cl.model)
        return NAN;
    double us = starpu_task_worker_expected_length(record->task, worker, record->task->sched_ctx, 0);
    return isfinite(us) && us > 0 ? us * 1e-6 : NAN;
}

static int64_t queued_on(int worker)
{
    return atomic_load_explicit(&dahl_accounts.progress[worker].queued, memory_order_relaxed);
}

/* How long until a worker is done with what it has. One that is late still has the rest of its queue before it, as in
 * StarPU's dmda: what it runs now ends at once, or its length after the last end, whichever is later. */
static double available_s(int worker, double now)
{
    const struct dahl_progress *done = &dahl_accounts.progress[worker];
    if (!queued_on(worker))
        return 0.0;
    double runs_s = atomic_load_explicit(&done->runs_s, memory_order_relaxed);
    double rest_s = dahl_accounts.handed_s[worker] - atomic_load_explicit(&done->ended_s, memory_order_relaxed) - runs_s;
    double end_s = atomic_load_explicit(&done->ended_at_s, memory_order_relaxed) + runs_s;
    double late_s = (end_s > now ? end_s - now : 0.0) + (rest_s > 0 ? rest_s : 0.0);
    double planned_s = dahl_accounts.available_at_s[worker] - now;
    return planned_s > late_s ? planned_s : late_s;
}

static int arch_of(int worker)
{
    return starpu_worker_get_type(worker) == STARPU_CPU_WORKER ? 0 : 1;
}

/* Tasks of this binding say in their codelet where they run, and have one implementation for each architecture. */
int dahl_can_run(struct starpu_task *task, int worker)
{
#ifndef DAHL_EXPORTED
    const struct dahl_record *record = dahl_record_of(task);
    if (record)
        return (record->codelet->cl.where & (arch_of(worker) ? STARPU_CUDA : STARPU_CPU)) != 0;
#endif
    return starpu_worker_can_execute_task_first_impl(worker, task, NULL);
}

static void fill_worker(dahl_worker_view *view, struct starpu_task *task, int worker, double now, double transfer_s)
{
    const struct dahl_record *record = dahl_record_of(task);
    view->arch = arch_of(worker);
    view->can_run = dahl_can_run(task, worker);
    view->length_s = view->can_run ? length_of(record, worker) : NAN;
    view->energy_j = view->can_run && record && record->costs ? record->costs[dahl_state.nworkers + worker] : NAN;
    view->transfer_s = transfer_s;
    view->available_s = available_s(worker, now);
    view->idle_w = dahl_state.policy.idle_w[worker];
    view->busy_w = dahl_state.policy.busy_w[worker];
    view->score = NAN;
    view->power_domain = dahl_state.policy.power_domain[worker];
    view->queued = queued_on(worker);
    view->memory_node = (int32_t)starpu_worker_get_memory_node(worker);
    view->worker_class = dahl_state.policy.worker_class[worker];
    view->rank = 0;
}

/* Workers of one memory node share the expected transfer, so it is asked for once a node. */
void dahl_fill_workers(dahl_worker_view *views, struct starpu_task *task, double now)
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

/* The replayed watts in force at a moment: those of the last pair that is not later. */
static double replayed_w(double now)
{
    int64_t low = 0, high = dahl_state.policy.nreplay;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (dahl_state.policy.replay[2 * middle] <= now)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? dahl_state.policy.replay[2 * low - 1] : NAN;
}

/* Watts that are older are none: whoever reads the counters has died, or hangs. */
#define STALE_S 5.0

/* Another thread or process writes them meanwhile. */
static double live(int which)
{
    double value;
    __atomic_load(&dahl_state.policy.live[which], &value, __ATOMIC_ACQUIRE);
    return value;
}

dahl_system_view dahl_view_system(double now)
{
    const dahl_policy *policy = &dahl_state.policy;
    dahl_system_view view = {.now_s = now, .base_w = policy->base_w, .ready_count = dahl_accounts.ready_count};
    view.modelled_w = policy->base_w;
    for (int w = 0; w < dahl_state.nworkers; w++) {
        view.idle_w += policy->idle_w[w];
        int64_t queued = queued_on(w);
        view.running_count += queued;
        view.modelled_w += queued ? policy->busy_w[w] : policy->idle_w[w];
    }
    if (policy->replay) {
        view.measured_w = replayed_w(now);
        return view;
    }
#ifndef DAHL_EXPORTED
    if (dahl_state.simgrid) {
        double net_w;
        view.measured_age_s = now - dahl_meter(now, &net_w);
        view.measured_w = policy->base_w + view.idle_w + net_w;
        return view;
    }
#endif
    /* The stamp first, as it is written last: watts are then at least as new as their stamp. */
    view.measured_age_s = now - live(0);
    view.measured_w = view.measured_age_s <= STALE_S ? live(1) : NAN;
    return view;
}

dahl_task_view dahl_view_task(struct starpu_task *task, double ready_s)
{
    const struct dahl_record *record = dahl_record_of(task);
    return (dahl_task_view){
        .id = record ? record->job : -1,
        .footprint = record ? record->footprint : 0,
        .ready_s = ready_s,
        .b_level_s = record ? record->b_level_s : NAN,
        .codelet = record ? record->codelet->id : -1,
        .priority = task->priority,
        .graph = record ? record->graph : -1,
        .place = record ? record->place : -1,
    };
}

/* ---- telling the policy what happens ---- */

static void tell(dahl_hook hook, struct starpu_task *task, int worker, double length_s, double now)
{
    dahl_task_view view = dahl_view_task(task, NAN);
    dahl_system_view system = dahl_view_system(now);
    int32_t status = DAHL_POISON;
    dahl_asking();
    hook(&status, &view, worker, length_s, &system, dahl_state.policy.memory, dahl_state.policy.nmemory);
    dahl_answered();
    if (status != 0)
        dahl_fail(DAHL_POLICY_RAISED, dahl_record_of(task), worker, -1);
}

void dahl_task_started(struct starpu_task *task, unsigned context)
{
    (void)context;
    struct dahl_record *record = dahl_record_of(task);
    if (!record)
        return;
    add(&dahl_accounts.progress[starpu_worker_get_id()].runs_s, record->expected_s);
#ifndef DAHL_EXPORTED
    dahl_draws_begin(starpu_worker_get_id(), record);
#endif
    if (!dahl_state.policy.started && !dahl_state.policy.ended)
        return;
    record->started_s = dahl_clock_s();
    if (!dahl_state.policy.started || atomic_load(&dahl_state.failed))
        return;
    dahl_lock();
    tell(dahl_state.policy.started, task, starpu_worker_get_id(), NAN, record->started_s);
    dahl_unlock();
}

/* With the lock held. */
void dahl_tell_end(struct starpu_task *task, int worker, double now)
{
    const struct dahl_record *record = dahl_record_of(task);
    if (record && dahl_state.policy.ended && !atomic_load(&dahl_state.failed))
        tell(dahl_state.policy.ended, task, worker, now - record->started_s, now);
}

/* ---- the decision log ---- */

/* With the lock held. chosen is a worker, or -1 where the asker stays idle. */
void dahl_explain(struct starpu_task *task, const dahl_worker_view *views, int asker, int chosen, double now)
{
    if (!dahl_state.policy.explain)
        return;
    const struct dahl_record *record = dahl_record_of(task);
    if (explained.count + dahl_state.nworkers > explained.capacity) {
        int64_t capacity = 2 * (explained.capacity + dahl_state.nworkers) + 1024;
        dahl_decision *grown = realloc(explained.rows, capacity * sizeof(*grown));
        if (!grown) {
            dahl_fail(DAHL_NO_MEMORY, record, asker, capacity);
            return;
        }
        explained.rows = grown;
        explained.capacity = capacity;
    }
    for (int w = 0; w < dahl_state.nworkers; w++)
        if (views[w].can_run)
            explained.rows[explained.count++] = (dahl_decision){
                .decision = explained.decisions,
                .task = record ? record->job : -1,
                .now_s = now,
                .length_s = views[w].length_s,
                .energy_j = views[w].energy_j,
                .transfer_s = views[w].transfer_s,
                .available_s = views[w].available_s,
                .score = views[w].score,
                .codelet = record ? record->codelet->id : -1,
                .asker = asker,
                .worker = w,
                .chosen = w == chosen,
            };
    explained.decisions++;
}

int64_t dahl_decision_count(void)
{
    return explained.count;
}

int dahl_decision_take(dahl_decision *decisions, int64_t capacity)
{
    if (atomic_load(&dahl_state.running) && starpu_task_nsubmitted() > 0)
        return DAHL_TASKS_PENDING;
    if (capacity < explained.count)
        return DAHL_BAD_ARGUMENT;
    memcpy(decisions, explained.rows, explained.count * sizeof(*decisions));
    explained.count = 0;
    return DAHL_OK;
}

/* ---- the workers' accounts ---- */

/* With the lock held. */
void dahl_account_start(int worker, struct dahl_record *record, double transfer_s, double now)
{
    double expected_s = known(length_of(record, worker));
    if (record)
        record->expected_s = expected_s;
    /* Its data come while the worker runs what it has, as StarPU's dmda hopes too. */
    dahl_accounts.available_at_s[worker] = now + fmax(available_s(worker, now), known(transfer_s)) + expected_s;
    dahl_accounts.handed_s[worker] += expected_s;
    dahl_accounts.progress[worker].queued++;
}

/* By the worker itself, with or without the lock. */
void dahl_account_end(int worker, const struct dahl_record *record, double now)
{
    struct dahl_progress *done = &dahl_accounts.progress[worker];
    if (record) {
        add(&done->runs_s, -record->expected_s);
        add(&done->ended_s, record->expected_s);
    }
    atomic_store_explicit(&done->ended_at_s, now, memory_order_relaxed);
    done->queued--;
#ifndef DAHL_EXPORTED
    if (record)
        dahl_draws_end(worker);
#endif
}

void dahl_choose_implementation(int worker, struct starpu_task *task)
{
#ifndef DAHL_EXPORTED
    if (dahl_record_of(task))
        return;
#endif
    unsigned implementation = 0;
    starpu_worker_can_execute_task_first_impl(worker, task, &implementation);
    starpu_task_set_implementation(task, implementation);
}

/* Workers ask by themselves when they start. */
void dahl_add_workers(unsigned context, int *ids, unsigned n)
{
    (void)context;
    (void)ids;
    (void)n;
}
