/* Drives the C layer with a policy in C: drive_policies pull|placement TASKS
 *
 * Bursts of tasks on a few lanes of data, of random length, with hooks, live watts that change, a decision log, a trace,
 * pauses long enough for workers to fall asleep, and StarPU started twice. Prints how many tasks each worker ran.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "dahl.h"

enum { WORKERS = 2, LANES = 6, BURST = 30, FED = 4, MEMORY = 64 };

static double memory[MEMORY], live[2], idle_w[WORKERS] = {1, 1}, busy_w[WORKERS] = {8, 8};
static int32_t domain[WORKERS], worker_class[WORKERS];
/* Lengths, then energies: each kind of task saves 1 mJ on one of the workers, and waiting 0.1 ms costs 1.2 mJ. */
static double costs[2][2 * WORKERS] = {{1e-4, 1e-4, 1e-3, 2e-3}, {1e-4, 1e-4, 2e-3, 1e-3}};

static void check(int status, const char *what)
{
    if (status != DAHL_OK) {
        fprintf(stderr, "%s: status %d\n", what, status);
        exit(1);
    }
}

static void nap(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* ---- the kernel: lane[0] is a random state, lane[1] counts ---- */

static void delay(int32_t *status, void **buffers, int64_t n, int64_t *args, float *scratch)
{
    (void)n;
    (void)args;
    int64_t *lane = buffers[0];
    uint64_t x = (uint64_t)lane[0];
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    uint64_t turns = x & 0xff ? (x >> 8) & 0xff : (x >> 8) & 0xffff;
    for (volatile uint64_t i = 0; i < turns; i++)
        ;
    scratch[0] = (float)turns;
    lane[0] = (int64_t)x;
    lane[1]++;
    *status = 0;
}

/* ---- the policies ---- */

static void earliest_finish(int32_t *status, int64_t *answer, const dahl_task_view *task, dahl_worker_view *workers,
                            int64_t nworkers, const dahl_system_view *system, double *own, int64_t nmemory)
{
    (void)task;
    (void)nmemory;
    double best = INFINITY;
    for (int64_t w = 0; w < nworkers; w++) {
        workers[w].score = workers[w].available_s + workers[w].transfer_s + workers[w].length_s;
        if (workers[w].can_run && workers[w].score < best) {
            best = workers[w].score;
            *answer = w;
        }
    }
    own[0] += isnan(system->measured_w) ? 0 : 1;
    *status = 0;
}

/* As EagerEnergy: declines what another worker, soon free, does for less. */
static void cheap_enough(int32_t *status, int64_t *answer, int64_t worker, const dahl_ready_view *ready, int64_t nready,
                         dahl_worker_view *workers, int64_t nworkers, const dahl_system_view *system, double *own,
                         int64_t nmemory)
{
    (void)nmemory;
    *answer = -1;
    for (int64_t row = 0; row < nready; row++) {
        const dahl_worker_view *of = workers + row * nworkers;
        int64_t cheapest = worker;
        for (int64_t w = 0; w < nworkers; w++)
            if (of[w].can_run && of[w].energy_j < of[cheapest].energy_j)
                cheapest = w;
        double leave_j = of[cheapest].energy_j + of[cheapest].available_s * (system->base_w + system->idle_w);
        if (of[worker].energy_j <= leave_j && (*answer < 0 || ready[row].sequence < ready[*answer].sequence))
            *answer = row;
    }
    own[0] += isnan(system->measured_w) ? 0 : 1;
    *status = 0;
}

static void note(int32_t *status, const dahl_task_view *task, int64_t worker, double length_s,
                 const dahl_system_view *system, double *own, int64_t nmemory)
{
    (void)task;
    (void)system;
    (void)nmemory;
    own[isnan(length_s) ? 2 + worker : 4 + worker]++;
    *status = 0;
}

/* ---- a run ---- */

/* Workers submit so many bursts. */
static void feed_bursts(const dahl_graph *burst, int64_t at_most)
{
    int32_t which[FED] = {0};
    int64_t steps[FED] = {0}, submitted = 0;
    check(dahl_feed_start(burst, which, steps, FED, at_most), "feeding");
    while (submitted < FED)
        check(dahl_feed_wait(0.01, &submitted), "waiting for what is fed");
    check(dahl_feed_stop(), "ending the feed");
}

static void submit_bursts(dahl_codelet *codelet, void **lanes, int tasks)
{
    int64_t args[1] = {16};
    dahl_node nodes[BURST];
    void *handles[BURST];
    for (int i = 0; i < BURST; i++) {
        nodes[i] = (dahl_node){.codelet = codelet, .costs = costs[i % 2], .tag = i, .first_handle = i, .nhandles = 1,
                               .nargs = 1, .b_level_s = NAN};
        handles[i] = lanes[i % LANES];
    }
    unsigned seed = 7;
    for (int done = 0; done < tasks; done += BURST) {
        check(dahl_submit(nodes, BURST, handles, args, NULL, 0), "submitting");
        double now = dahl_now_s(), watts = 10 + done % 7;
        __atomic_store(&live[1], &watts, __ATOMIC_RELAXED);
        __atomic_store(&live[0], &now, __ATOMIC_RELAXED);
        if (rand_r(&seed) % 5 == 0 && done + (FED + 1) * BURST <= tasks) {
            dahl_graph burst = {.nodes = nodes, .n = BURST, .handles = handles, .args = args};
            feed_bursts(&burst, (int64_t[]){1, BURST, 3 * BURST}[rand_r(&seed) % 3]);
            done += FED * BURST;
        }
        check(dahl_wait_submitted((int64_t[]){0, 1, 10, 300, 300}[rand_r(&seed) % 5]), "waiting");
        if (rand_r(&seed) % 50 == 0) {
            check(dahl_wait_all(), "waiting for all");
            nap(1000000);
        }
        if (rand_r(&seed) % 100 == 0) {
            check(dahl_pause(), "pausing");
            nap(300000);
            check(dahl_resume(), "resuming");
        }
    }
    check(dahl_wait_all(), "waiting for all");
}

static void run(const char *kind, int tasks, int trace)
{
    dahl_policy policy = {
        .name = kind, .started = note, .ended = note, .memory = memory, .nmemory = MEMORY, .base_w = 10,
        .idle_w = idle_w, .busy_w = busy_w, .power_domain = domain, .worker_class = worker_class, .live = live,
        .explain = trace, .answer_limit_s = 30,
    };
    if (!strcmp(kind, "pull"))
        policy.pick = cheap_enough;
    else
        policy.place = earliest_finish;
    memset(memory, 0, sizeof(memory));
    dahl_config config = {
        .cpu_workers = WORKERS, .trace = trace, .policy = &policy, .npower = WORKERS, .poll_us = 50};
    check(dahl_init(&config), "starting");
    dahl_codelet *codelet;
    int32_t modes[1] = {3};
    check(dahl_codelet_new("delay", "delay", 0, delay, 1, modes, 1, 0, 1, &codelet), "making a codelet");
    int64_t data[LANES][2];
    void *lanes[LANES];
    for (int i = 0; i < LANES; i++) {
        data[i][0] = i + 1;
        data[i][1] = 0;
        check(dahl_data_register(data[i], 2, sizeof(int64_t), &lanes[i]), "registering");
    }
    submit_bursts(codelet, lanes, tasks);
    int64_t ran = 0;
    for (int i = 0; i < LANES; i++) {
        check(dahl_data_acquire(lanes[i], 1), "acquiring");
        ran += data[i][1];
        check(dahl_data_release(lanes[i]), "releasing");
    }
    if (trace) {
        int64_t traced = dahl_trace_count(), decided = dahl_decision_count();
        dahl_trace_record *records = malloc((size_t)traced * sizeof(*records));
        dahl_decision *decisions = malloc((size_t)decided * sizeof(*decisions));
        check(dahl_trace_take(records, traced), "taking the trace");
        check(dahl_decision_take(decisions, decided), "taking the decisions");
        printf("%s: traced %ld\n", kind, (long)traced);
        free(records);
        free(decisions);
    }
    for (int i = 0; i < LANES; i++)
        check(dahl_data_unregister(lanes[i]), "unregistering");
    check(dahl_shutdown(), "shutting down");
    dahl_codelet_free(codelet);
    printf("%s: ran %ld, ended on worker 0: %.0f, on worker 1: %.0f\n", kind, (long)ran, memory[4], memory[5]);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    run(argv[1], atoi(argv[2]), 0);
    run(argv[1], atoi(argv[2]), 1);
    return 0;
}
