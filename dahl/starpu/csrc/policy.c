/* What the two policy families share: the lock, the workers' accounts, and the records that a policy sees.
 *
 * Locking: one mutex guards the accounts and the queues. It is taken inside starpu_worker_relax_on/off, so that
 * a worker waiting for it can still be woken or shut down, and no worker is woken while it is held.
 */
#include <math.h>
#include <string.h>
#include "policy.h"

struct dahl_accounts dahl_accounts;

void dahl_accounts_init(void)
{
    memset(&dahl_accounts, 0, sizeof(dahl_accounts));
    STARPU_PTHREAD_MUTEX_INIT(&dahl_accounts.mutex, NULL);
    for (int64_t i = 0; i < dahl_state.policy.nmemory; i++)
        dahl_state.policy.memory[i] = 0.0;
}

void dahl_accounts_deinit(void)
{
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
    view->available_s = dahl_accounts.available_at_s[worker] > now ? dahl_accounts.available_at_s[worker] - now : 0.0;
    view->idle_w = dahl_state.policy.idle_w[worker];
    view->busy_w = dahl_state.policy.busy_w[worker];
    view->power_domain = dahl_state.policy.power_domain[worker];
    view->queued = dahl_accounts.queued[worker];
    view->arch = starpu_worker_get_type(worker) == STARPU_CPU_WORKER ? 0 : 1;
    view->memory_node = (int32_t)starpu_worker_get_memory_node(worker);
    view->worker_class = dahl_state.policy.worker_class[worker];
    view->reserved = 0;
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

dahl_system_view dahl_view_system(double now)
{
    dahl_system_view view = {.now_s = now, .base_w = dahl_state.policy.base_w, .ready_count = dahl_accounts.ready_count};
    view.running_count = dahl_accounts.running;
    for (int w = 0; w < dahl_state.nworkers; w++)
        view.idle_w += dahl_state.policy.idle_w[w];
    return view;
}

void dahl_account_start(int worker, const struct dahl_record *record, double transfer_s, double now)
{
    double length = length_of(record, worker);
    double from = dahl_accounts.available_at_s[worker] > now ? dahl_accounts.available_at_s[worker] : now;
    dahl_accounts.available_at_s[worker] = from + (isnan(length) ? 0.0 : length) + (isnan(transfer_s) ? 0.0 : transfer_s);
    dahl_accounts.queued[worker]++;
    dahl_accounts.running++;
}

void dahl_account_end(int worker)
{
    double now = dahl_clock_s();
    dahl_accounts.queued[worker]--;
    dahl_accounts.running--;
    if (dahl_accounts.queued[worker] == 0 || dahl_accounts.available_at_s[worker] < now)
        dahl_accounts.available_at_s[worker] = now;
}

void dahl_choose_implementation(int worker, struct starpu_task *task)
{
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
