/* A policy in a library of its own, for STARPU_SCHED_LIB: what its parts share. */
#ifndef DAHL_EXPORT_H
#define DAHL_EXPORT_H
#include "policy.h"

/* What a policy has to know before it is asked. */
enum { DAHL_NEEDS_NOTHING = 0, DAHL_NEEDS_LENGTHS = 1, DAHL_NEEDS_COSTS = 2 };

/* Written by dahl/starpu/library.py for each policy. */
struct dahl_exported {
    const char *name;        /* as STARPU_SCHED takes it */
    const char *other_name;  /* the policy's class, accepted too */
    const char *description; /* with its parameters */
    dahl_place place;        /* this one or */
    dahl_pick pick;          /* that one */
    dahl_hook started;
    dahl_hook ended;
    int64_t nmemory;
    double answer_limit_s;
    int needs;
};

extern const struct dahl_exported dahl_exported;

/* A StarPU program offers no errors to raise: a line on stderr, and the process ends with status 1. */
_Noreturn void dahl_stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Watts of each worker, from DAHL_WATTS_FILE and the environment; NaN where they are given nowhere. */
struct dahl_export_watts {
    double base_w;
    double idle_w[STARPU_NMAXWORKERS];
    double busy_w[STARPU_NMAXWORKERS];
    int32_t power_domain[STARPU_NMAXWORKERS];
    int32_t worker_class[STARPU_NMAXWORKERS];
};

void dahl_export_read_watts(struct dahl_export_watts *watts, int nworkers);

/* ---- what the program's tasks are to the policy ---- */

/* Tasks of one codelet that are expected to cost the same; costs is a row as in dahl_node. */
struct dahl_export_kind {
    const struct starpu_codelet *cl;
    struct dahl_codelet *codelet;
    uint32_t footprint;
    int64_t number;
    int turn;
    double *costs;
    struct dahl_export_kind *next;
};

/* Seconds on each worker by StarPU's models, NaN where it cannot run. Tells whether all of them are known. */
int dahl_export_lengths(struct starpu_task *task, double *length_s);
/* The kind of a task with these lengths, its costs brought up to date. With the lock held. */
struct dahl_export_kind *dahl_export_kind_of(struct starpu_task *task, const double *length_s);
/* The next worker in turn that can run tasks of this kind. With the lock held. */
int dahl_export_next_worker(struct dahl_export_kind *kind, struct starpu_task *task);
void dahl_export_free_kinds(void);

/* ---- DAHL_POLICY_STATS ---- */

void dahl_export_count(int worker, const struct dahl_codelet *codelet, int spread, double length_s);
void dahl_export_write_counts(void);
#endif
