/* What a program's tasks cost: lengths by StarPU's own performance models, joules by watts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "export.h"

static struct dahl_export_kind *kinds;
static int64_t nkinds;
static int32_t ncodelets;

static void *allocated(void *memory)
{
    if (!memory)
        dahl_stop("no memory for another kind of task");
    return memory;
}

int dahl_export_lengths(struct starpu_task *task, double *length_s)
{
    int known = 1;
    for (int w = 0; w < dahl_state.nworkers; w++) {
        unsigned implementation = 0;
        length_s[w] = NAN;
        if (!starpu_worker_can_execute_task_first_impl(w, task, &implementation))
            continue;
        if (task->cl->model) {
            double us = starpu_task_worker_expected_length(task, w, task->sched_ctx, implementation);
            if (isfinite(us) && us > 0)
                length_s[w] = us * 1e-6;
        }
        known = known && !isnan(length_s[w]);
    }
    return known;
}

/* A history or regression tells tasks apart by their footprint, and what it expects changes as it learns. A cost
 * function may look at anything in a task: there only the costs themselves tell. */
static int learns(const struct starpu_codelet *cl)
{
    return cl->model
           && (cl->model->type == STARPU_HISTORY_BASED || cl->model->type == STARPU_REGRESSION_BASED
               || cl->model->type == STARPU_NL_REGRESSION_BASED);
}

static struct dahl_codelet *codelet_of(struct starpu_codelet *cl)
{
    for (struct dahl_export_kind *kind = kinds; kind; kind = kind->next)
        if (kind->cl == cl)
            return kind->codelet;
    struct dahl_codelet *codelet = allocated(calloc(1, sizeof(*codelet)));
    const char *name = cl->name ? cl->name : cl->model && cl->model->symbol ? cl->model->symbol : "unnamed";
    codelet->id = ncodelets++;
    codelet->name = allocated(strdup(name));
    return codelet;
}

static void set_costs(double *costs, const double *length_s)
{
    int n = dahl_state.nworkers;
    for (int w = 0; w < n; w++) {
        costs[w] = length_s[w];
        costs[n + w] = length_s[w] * (dahl_state.policy.busy_w[w] - dahl_state.policy.idle_w[w]);
    }
}

static struct dahl_export_kind *new_kind(struct starpu_task *task, uint32_t footprint, const double *costs)
{
    size_t bytes = 2 * (size_t)dahl_state.nworkers * sizeof(double);
    struct dahl_export_kind *kind = allocated(calloc(1, sizeof(*kind)));
    kind->cl = task->cl;
    kind->codelet = codelet_of(task->cl);
    kind->footprint = footprint;
    kind->number = nkinds++;
    kind->costs = memcpy(allocated(malloc(bytes)), costs, bytes);
    kind->next = kinds;
    kinds = kind;
    return kind;
}

struct dahl_export_kind *dahl_export_kind_of(struct starpu_task *task, const double *length_s)
{
    double costs[2 * dahl_state.nworkers];
    uint32_t footprint = starpu_task_data_footprint(task);
    if (task->cl->model)
        footprint = starpu_task_footprint(task->cl->model, task, NULL, 0);
    set_costs(costs, length_s);
    for (struct dahl_export_kind *kind = kinds; kind; kind = kind->next) {
        if (kind->cl != task->cl || kind->footprint != footprint)
            continue;
        if (!learns(task->cl) && memcmp(kind->costs, costs, sizeof(costs)))
            continue;
        memcpy(kind->costs, costs, sizeof(costs));
        return kind;
    }
    return new_kind(task, footprint, costs);
}

int dahl_export_next_worker(struct dahl_export_kind *kind, struct starpu_task *task)
{
    for (int tried = 0; tried < dahl_state.nworkers; tried++) {
        int worker = kind->turn;
        kind->turn = (kind->turn + 1) % dahl_state.nworkers;
        if (starpu_worker_can_execute_task_first_impl(worker, task, NULL))
            return worker;
    }
    return -1; /* not reached: StarPU refuses a task that no worker can run */
}

static int shares_codelet(const struct dahl_export_kind *kind)
{
    for (const struct dahl_export_kind *other = kind->next; other; other = other->next)
        if (other->codelet == kind->codelet)
            return 1;
    return 0;
}

void dahl_export_free_kinds(void)
{
    while (kinds) {
        struct dahl_export_kind *kind = kinds;
        if (!shares_codelet(kind)) {
            free(kind->codelet->name);
            free(kind->codelet);
        }
        kinds = kind->next;
        free(kind->costs);
        free(kind);
    }
    nkinds = ncodelets = 0;
}
