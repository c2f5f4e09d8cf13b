/* What only a simulation has: lengths that vary on purpose, when tasks really ran, and the watts of
 * what runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "policy.h"
#ifdef STARPU_SIMGRID
#include <simgrid/actor.h>
#include <simgrid/engine.h>
#include <simgrid/host.h>
#endif

/* ---- noise ---- */

static struct { double sigma; uint64_t seed; } noise;

int dahl_set_noise(double sigma, uint64_t seed)
{
    if (!(sigma >= 0) || !isfinite(sigma))
        return DAHL_BAD_ARGUMENT;
    noise.sigma = sigma;
    noise.seed = seed;
    return DAHL_OK;
}

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014) of a counter: the same number whoever asks, and when. */
static uint64_t mix(uint64_t counter)
{
    uint64_t x = counter * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static double uniform(uint64_t bits)
{
    return ((double)(bits >> 11) + 0.5) * 0x1p-53;
}

/* exp(sigma z - sigma^2 / 2) with a standard normal z (Box and Muller, 1958): its mean is 1. */
double dahl_noise_factor(int64_t job)
{
    if (noise.sigma == 0)
        return 1.0;
    uint64_t key = mix(mix(noise.seed + 1) + (uint64_t)job + 1);
    double z = sqrt(-2 * log(uniform(mix(key + 1)))) * cos(2 * M_PI * uniform(mix(key + 2)));
    return exp(noise.sigma * z - noise.sigma * noise.sigma / 2);
}

/* ---- what the runtime takes around a task on a real machine ----
 *
 * In a simulation StarPU's own code takes no time but some fixed microseconds, which are off where these are given
 * (dahl/starpu/overheads.py). A worker waits here before and after it
 * runs a task, longer where it was asleep, and the submitting thread before each submission. None of it is a task's
 * length. */

static struct { double before_s, after_s, wake_s, submit_s; } overheads;

int dahl_set_overheads(double before_s, double after_s, double wake_s, double submit_s)
{
    if (!(before_s >= 0 && after_s >= 0 && wake_s >= 0 && submit_s >= 0) || !isfinite(before_s) || !isfinite(after_s) ||
        !isfinite(wake_s) || !isfinite(submit_s))
        return DAHL_BAD_ARGUMENT;
    overheads.before_s = before_s;
    overheads.after_s = after_s;
    overheads.wake_s = wake_s;
    overheads.submit_s = submit_s;
    return DAHL_OK;
}

void dahl_submitting(void)
{
#ifdef STARPU_SIMGRID
    if (overheads.submit_s > 0)
        sg_actor_sleep_for(overheads.submit_s);
#endif
}

/* ---- a meter: as a counter of a real machine, it tells the mean of its last period ---- */

#define PERIOD_S 1e-3 /* of RAPL */

static struct { int64_t count; double net_w; } running[STARPU_NMAXWORKERS];
static struct { double now_s, joules, period_from_s, period_from_j, read_w, read_at_s; } meter;

static double net_w(void)
{
    double watts = 0;
    for (int w = 0; w < dahl_state.nworkers; w++)
        if (running[w].count)
            watts += running[w].net_w;
    return watts;
}

/* What ran until now has drawn the same watts since the last call. */
static void advance_meter(double now)
{
    double watts = net_w();
    while (meter.period_from_s + PERIOD_S <= now) {
        double end_s = meter.period_from_s + PERIOD_S;
        double end_j = meter.joules + watts * (end_s - meter.now_s);
        meter.read_w = (end_j - meter.period_from_j) / PERIOD_S;
        meter.read_at_s = meter.period_from_s = meter.now_s = end_s;
        meter.joules = meter.period_from_j = end_j;
    }
    meter.joules += watts * (now - meter.now_s);
    meter.now_s = now;
}

void dahl_draws_begin(int worker, const struct dahl_record *record)
{
    if (!dahl_state.simgrid || !record->costs)
        return;
    const double *actual = record->costs + 2 * dahl_state.nworkers;
    advance_meter(dahl_clock_s());
    running[worker].count++;
    running[worker].net_w = actual[dahl_state.nworkers + worker] / actual[worker];
}

void dahl_draws_end(int worker)
{
    if (!dahl_state.simgrid || running[worker].count == 0)
        return;
    advance_meter(dahl_clock_s());
    running[worker].count--;
}

/* Above the idle watts; returns when the reading was taken, in seconds. NaN before the first. */
double dahl_meter(double now, double *net)
{
    advance_meter(now);
    *net = meter.read_w;
    return meter.read_at_s;
}

/* ---- when tasks ran ----
 *
 * The driver of a GPU learns of a task's end some microseconds late, from a loop that looks for it. What the machine
 * draws ends with the task, so its times are taken where SimGrid runs it: libstarpu finds this sg_actor_execute before
 * libsimgrid's (see simgrid_locks.c). A worker's tasks end in the order in which they ran. */

#define SPANS 64 /* more than a driver has under way */

/* Simulated workers look for their next task this soon after the last. */
#define AWAKE_S 5e-6

static struct {
    struct { double start_s, end_s; } span[SPANS];
    unsigned pushed, popped;
    double free_s; /* when it could look for another */
} ran[STARPU_NMAXWORKERS];

void dahl_ran_reset(void)
{
    memset(ran, 0, sizeof(ran));
    memset(running, 0, sizeof(running));
    memset(&meter, 0, sizeof(meter));
    meter.read_w = meter.read_at_s = NAN;
}

int dahl_ran_take(int worker, double *start_s, double *end_s)
{
    if (ran[worker].popped == ran[worker].pushed)
        return 0;
    unsigned at = ran[worker].popped++ % SPANS;
    *start_s = ran[worker].span[at].start_s;
    *end_s = ran[worker].span[at].end_s;
    return 1;
}

#ifdef STARPU_SIMGRID
static void (*execute)(double);

static void find_execute(void)
{
    Dl_info where;
    void *library = dladdr((void *)simgrid_get_clock, &where) ? dlopen(where.dli_fname, RTLD_NOLOAD | RTLD_LAZY) : NULL;
    if (library)
        execute = (void (*)(double))dlsym(library, "sg_actor_execute");
    if (!execute)
        abort(); /* libstarpu calls a function that libsimgrid does not have */
}

/* A GPU's tasks run in an actor of their own, on the host CUDAn. */
static int worker_here(void)
{
    int worker = starpu_worker_get_id();
    if (worker >= 0)
        return worker;
    const char *host = sg_host_get_name(sg_host_self());
    return strncmp(host, "CUDA", 4) ? -1 : dahl_state.gpu_worker_of_device[atoi(host + 4)];
}

static void sleep_before(int worker)
{
    double slept = simgrid_get_clock() - ran[worker].free_s > AWAKE_S;
    double seconds = overheads.before_s + (slept ? overheads.wake_s : 0);
    if (seconds > 0)
        sg_actor_sleep_for(seconds);
}

void sg_actor_execute(double flops)
{
    if (!execute)
        find_execute();
    int worker = worker_here();
    if (worker >= 0)
        sleep_before(worker);
    double start_s = simgrid_get_clock();
    execute(flops);
    double end_s = simgrid_get_clock();
    if (worker < 0)
        return;
    if (overheads.after_s > 0)
        sg_actor_sleep_for(overheads.after_s);
    ran[worker].free_s = simgrid_get_clock();
    if (!dahl_state.trace)
        return;
    unsigned at = ran[worker].pushed++ % SPANS;
    ran[worker].span[at].start_s = start_s;
    ran[worker].span[at].end_s = end_s;
}
#endif
