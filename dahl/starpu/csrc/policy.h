/* What the two policy families share: the lock, the workers' accounts, and the records that a policy sees. */
#ifndef DAHL_POLICY_H
#define DAHL_POLICY_H
#include "internal.h"

/* What a worker notes about itself, without the lock. */
struct dahl_progress {
    _Alignas(64) atomic_llong queued; /* tasks handed to it and not done; who hands one over adds it */
    _Atomic double runs_s;     /* expected seconds of what it runs: one task, or none; a GPU may have more at a time */
    _Atomic double ended_s;    /* expected seconds of what it has ended */
    _Atomic double ended_at_s; /* when the last of it did */
};

/* Guarded by the mutex, but for progress. */
struct dahl_accounts {
    starpu_pthread_mutex_t mutex;
    int64_t ready_count; /* tasks that wait in a queue of ours */
    double available_at_s[STARPU_NMAXWORKERS]; /* as planned; counts only while something is queued */
    double handed_s[STARPU_NMAXWORKERS];       /* expected seconds of all tasks so far */
    struct dahl_progress progress[STARPU_NMAXWORKERS];
    int64_t handed[STARPU_NMAXWORKERS]; /* of those, given past the policy: in exported policies only */
};

extern struct dahl_accounts dahl_accounts;

void dahl_accounts_init(unsigned context);
void dahl_accounts_deinit(void);
void dahl_lock(void);
void dahl_unlock(void);
double dahl_clock_s(void);
void dahl_fill_workers(dahl_worker_view *views, struct starpu_task *task, double now);
dahl_system_view dahl_view_system(double now);
void dahl_account_start(int worker, struct dahl_record *record, double transfer_s, double now);
void dahl_account_end(int worker, const struct dahl_record *record, double now);
int dahl_can_run(struct starpu_task *task, int worker);
dahl_task_view dahl_view_task(struct starpu_task *task, double ready_s);
void dahl_task_started(struct starpu_task *task, unsigned context);
void dahl_tell_end(struct starpu_task *task, int worker, double now);
void dahl_explain(struct starpu_task *task, const dahl_worker_view *views, int asker, int chosen, double now);
void dahl_draws_begin(int worker, const struct dahl_record *record);
void dahl_draws_end(int worker);
double dahl_meter(double now, double *net_w);
void dahl_asking(void);
void dahl_answered(void);
void dahl_watch_start(void);
void dahl_watch_stop(void);
void dahl_choose_implementation(int worker, struct starpu_task *task);
void dahl_add_workers(unsigned context, int *ids, unsigned n);
#endif
