/* Watts of the workers, from a file and from the environment; docs/export.md describes both. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "export.h"

/* Watts of a kind of worker (device -1) or of one of its devices. */
struct entry {
    char arch[16];
    int device;
    double idle_w, busy_w;
    int domain; /* -1: not given */
};

static struct entry entries[STARPU_NMAXWORKERS];
static int nentries;

static void check_watts(const char *where, double idle_w, double busy_w)
{
    if (!isfinite(idle_w) || !isfinite(busy_w) || idle_w < 0 || busy_w < idle_w)
        dahl_stop("%s: watts must be 0 <= idle <= busy, got idle %g and busy %g", where, idle_w, busy_w);
}

static void add_entry(const char *where, const char *key, double idle_w, double busy_w, int domain)
{
    struct entry entry = {.device = -1, .idle_w = idle_w, .busy_w = busy_w, .domain = domain};
    size_t letters = strcspn(key, "0123456789");
    if (letters == 0 || letters >= sizeof(entry.arch) || key[letters + strspn(key + letters, "0123456789")])
        dahl_stop("%s: '%s' names no worker; write cpu, cuda, or one device as in cuda1", where, key);
    memcpy(entry.arch, key, letters);
    if (key[letters])
        entry.device = atoi(key + letters);
    check_watts(where, idle_w, busy_w);
    if (nentries == STARPU_NMAXWORKERS)
        dahl_stop("%s: more than %d entries", where, STARPU_NMAXWORKERS);
    entries[nentries++] = entry;
}

static void read_line(const char *where, char *line, double *base_w)
{
    char key[32], rest[2];
    double idle_w, busy_w;
    int domain = -1;
    line[strcspn(line, "#\n")] = '\0';
    if (!line[strspn(line, " \t\r")])
        return;
    if (sscanf(line, " base %lf %1s", &idle_w, rest) == 1) {
        check_watts(where, idle_w, idle_w);
        *base_w = idle_w;
        return;
    }
    int found = sscanf(line, "%31s %lf %lf %d %1s", key, &idle_w, &busy_w, &domain, rest);
    if ((found != 3 && found != 4) || (found == 4 && domain < 0))
        dahl_stop("%s: expected `base WATTS` or `cpu IDLE_WATTS BUSY_WATTS [DOMAIN]`, got `%s`", where, line);
    add_entry(where, key, idle_w, busy_w, domain);
}

static void read_file(const char *path, double *base_w)
{
    FILE *file = fopen(path, "r");
    if (!file)
        dahl_stop("DAHL_WATTS_FILE is %s, which cannot be read: %s", path, strerror(errno));
    char line[256], where[512];
    for (int number = 1; fgets(line, sizeof(line), file); number++) {
        snprintf(where, sizeof(where), "%s:%d", path, number);
        read_line(where, line, base_w);
    }
    fclose(file);
}

static double from_environment(const char *name)
{
    const char *value = getenv(name);
    if (!value || !*value)
        return NAN;
    char *end;
    double watts = strtod(value, &end);
    if (*end || !isfinite(watts) || watts < 0)
        dahl_stop("%s must be watts, 0 or more, got '%s'", name, value);
    return watts;
}

static void read_environment(double *base_w)
{
    static const char *const archs[] = {"cpu", "cuda", "opencl", "hip"};
    double base = from_environment("DAHL_BASE_W");
    if (!isnan(base))
        *base_w = base;
    for (size_t i = 0; i < sizeof(archs) / sizeof(archs[0]); i++) {
        char idle[32], busy[32], upper[16] = "";
        for (size_t j = 0; archs[i][j]; j++)
            upper[j] = (char)toupper((unsigned char)archs[i][j]);
        snprintf(idle, sizeof(idle), "DAHL_%s_IDLE_W", upper);
        snprintf(busy, sizeof(busy), "DAHL_%s_BUSY_W", upper);
        double idle_w = from_environment(idle), busy_w = from_environment(busy);
        if (isnan(idle_w) != isnan(busy_w))
            dahl_stop("%s is set and %s is not: both are needed", isnan(idle_w) ? busy : idle, isnan(idle_w) ? idle : busy);
        if (!isnan(idle_w))
            add_entry(idle, archs[i], idle_w, busy_w, -1);
    }
}

/* An entry for the device comes before one for its arch, a later one before an earlier one. Returns -1 for none. */
static int entry_of(const char *arch, int device)
{
    int found = -1;
    for (int i = 0; i < nentries; i++)
        if (!strcasecmp(entries[i].arch, arch)
            && (entries[i].device == device || (entries[i].device == -1 && (found < 0 || entries[found].device == -1))))
            found = i;
    return found;
}

/* Workers are alike where arch and entry are. */
static int class_of(int worker, const int *entry_of_worker, const int32_t *classes)
{
    int next = 0;
    for (int other = 0; other < worker; other++) {
        if (starpu_worker_get_type(other) == starpu_worker_get_type(worker)
            && entry_of_worker[other] == entry_of_worker[worker])
            return classes[other];
        if (classes[other] >= next)
            next = classes[other] + 1;
    }
    return next;
}

void dahl_export_read_watts(struct dahl_export_watts *watts, int nworkers)
{
    int entry_of_worker[STARPU_NMAXWORKERS];
    const char *path = getenv("DAHL_WATTS_FILE");
    nentries = 0;
    watts->base_w = NAN;
    if (path && *path)
        read_file(path, &watts->base_w);
    read_environment(&watts->base_w);
    for (int w = 0; w < nworkers; w++) {
        const char *arch = starpu_worker_get_type_as_string(starpu_worker_get_type(w));
        int device = starpu_worker_get_devid(w);
        int i = entry_of_worker[w] = entry_of(arch, device);
        watts->idle_w[w] = i < 0 ? NAN : entries[i].idle_w;
        watts->busy_w[w] = i < 0 ? NAN : entries[i].busy_w;
        int is_cpu = starpu_worker_get_type(w) == STARPU_CPU_WORKER;
        watts->power_domain[w] = i >= 0 && entries[i].domain >= 0 ? entries[i].domain : is_cpu ? 0 : 1 + device;
        watts->worker_class[w] = class_of(w, entry_of_worker, watts->worker_class);
        if (i < 0 && dahl_exported.needs == DAHL_NEEDS_COSTS)
            dahl_stop("the watts of %s workers are unknown: write a line `%s IDLE_WATTS BUSY_WATTS` into the file that"
                      " DAHL_WATTS_FILE names, or export the policy with --needs lengths", arch, arch);
    }
    if (isnan(watts->base_w) && dahl_exported.needs == DAHL_NEEDS_COSTS)
        dahl_stop("the watts of the machine without its workers are unknown: set DAHL_BASE_W");
}
