/* A watch over a policy's answers: one that never comes would hang the run, so it ends the process. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "policy.h"

static atomic_ullong questions; /* odd while a policy is being asked */
static pthread_t thread;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t stopped;
static int running, stop;

void dahl_asking(void)
{
    atomic_fetch_add_explicit(&questions, 1, memory_order_relaxed);
}

void dahl_answered(void)
{
    atomic_fetch_add_explicit(&questions, 1, memory_order_relaxed);
}

static void *watch(void *unused)
{
    (void)unused;
    unsigned long long seen = 0;
    struct timespec until;
    pthread_mutex_lock(&mutex);
    while (!stop) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)dahl_state.policy.answer_limit_s;
        until.tv_nsec += (long)(1e9 * (dahl_state.policy.answer_limit_s - (double)(time_t)dahl_state.policy.answer_limit_s));
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&stopped, &mutex, &until);
        unsigned long long now = atomic_load(&questions);
        if (!stop && (now & 1) && now == seen) {
            fprintf(stderr, "policy %s has not answered for %g s: the run is ended\n", dahl_state.policy.name,
                    dahl_state.policy.answer_limit_s);
            abort();
        }
        seen = now;
    }
    pthread_mutex_unlock(&mutex);
    return NULL;
}

void dahl_watch_start(void)
{
    if (dahl_state.policy.answer_limit_s <= 0)
        return;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&stopped, &attributes);
    pthread_condattr_destroy(&attributes);
    stop = 0;
    running = pthread_create(&thread, NULL, watch, NULL) == 0;
}

void dahl_watch_stop(void)
{
    if (!running)
        return;
    pthread_mutex_lock(&mutex);
    stop = 1;
    pthread_cond_signal(&stopped);
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);
    running = 0;
}
