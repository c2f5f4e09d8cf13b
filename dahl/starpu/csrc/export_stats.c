/* Where the tasks of a program ran, for DAHL_POLICY_STATS. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "export.h"

struct count {
    const struct dahl_codelet *codelet;
    int64_t tasks, spread;
    double busy_s;
    struct count *next;
};

/* A worker adds to its own list, so no lock is needed. */
static struct count *counts_of[STARPU_NMAXWORKERS];

void dahl_export_count(int worker, const struct dahl_codelet *codelet, int spread, double length_s)
{
    if (!getenv("DAHL_POLICY_STATS"))
        return;
    struct count *count = counts_of[worker];
    while (count && count->codelet != codelet)
        count = count->next;
    if (!count) {
        count = calloc(1, sizeof(*count));
        if (!count)
            dahl_stop("no memory for DAHL_POLICY_STATS");
        count->codelet = codelet;
        count->next = counts_of[worker];
        counts_of[worker] = count;
    }
    count->tasks++;
    count->spread += spread;
    count->busy_s += length_s;
}

void dahl_export_write_counts(void)
{
    const char *path = getenv("DAHL_POLICY_STATS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (path && !file)
        fprintf(stderr, "policy %s: DAHL_POLICY_STATS is %s, which cannot be written: %s\n", dahl_exported.name, path,
                strerror(errno));
    if (file)
        fprintf(file, "worker\tname\tcodelet\ttasks\tspread\tbusy_s\n");
    for (int w = 0; w < dahl_state.nworkers; w++)
        while (counts_of[w]) {
            struct count *count = counts_of[w];
            char name[64];
            starpu_worker_get_name(w, name, sizeof(name));
            if (file)
                fprintf(file, "%d\t%s\t%s\t%lld\t%lld\t%.9f\n", w, name, count->codelet->name, (long long)count->tasks,
                        (long long)count->spread, count->busy_s);
            counts_of[w] = count->next;
            free(count);
        }
    if (file && fclose(file))
        fprintf(stderr, "policy %s: DAHL_POLICY_STATS cannot be written: %s\n", dahl_exported.name, strerror(errno));
}
