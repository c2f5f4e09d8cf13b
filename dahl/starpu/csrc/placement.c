/* Placement: a policy is asked when a task becomes ready, and answers a worker. */
#include "policy.h"

static void init_placement(unsigned context)
{
    (void)context;
    dahl_accounts_init();
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
    const struct dahl_record *record = dahl_record_of(task);
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
    dahl_explain(task, views, -1, (int)answer, now);
    return (int)answer;
}

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
    return starpu_push_local_task(worker, task, 0);
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
    .pre_exec_hook = dahl_task_started,
    .post_exec_hook = placed_ended,
    .prefetches = 1,
    .policy_name = "dahl-placement",
    .policy_description = "asks a compiled function for a worker",
    .worker_type = STARPU_WORKER_LIST,
};
