/* A loop that reads counters at a timer's ticks, and holds what it read until it is taken.
 *
 * Between two ticks the caches forget whatever ran before, so that each Python function on the way costs microseconds.
 * Here a tick is a few system calls; Python counts, writes and shows many readings at once.
 * Two batches: one fills up under the mutex, the other is with Python.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "ticks.h"

struct ticks {
    int32_t files;
    int32_t form;
    int32_t capacity;
    int *descriptors;
    atomic_int stopped;
    pthread_mutex_t mutex; /* who reads: a tick, or an edge of a window */
    ticks_batch batches[2];
    int filling;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int is_blank(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* The number that `bytes` say, or -1: blanks, digits, blanks, as bytes.strip() and isdigit() have it. */
static int64_t parse_digits(const char *bytes, int length)
{
    int at = 0;
    int64_t value = 0;
    while (at < length && is_blank(bytes[at]))
        at++;
    while (length > at && is_blank(bytes[length - 1]))
        length--;
    if (at == length)
        return -1;
    for (; at < length; at++) {
        if (bytes[at] < '0' || bytes[at] > '9')
            return -1;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, bytes[at] - '0', &value))
            return -1;
    }
    return value;
}

static int64_t parse_uint64(const char *bytes, int length)
{
    int64_t value;
    if (length != sizeof(value))
        return -1;
    memcpy(&value, bytes, sizeof(value));
    return value; /* below 0 where it is above 2^63 - 1 */
}

static ssize_t read_file(const ticks *loop, int file, char *bytes)
{
    ssize_t length;
    do {
        length = loop->form == TICKS_DIGITS ? pread(loop->descriptors[file], bytes, TICKS_BYTES, 0)
                                            : read(loop->descriptors[file], bytes, sizeof(int64_t));
    } while (length < 0 && errno == EINTR);
    return length;
}

/* Reads every file once; with the mutex. */
static int read_all(ticks *loop, int64_t woken_ns, int64_t ticks_passed)
{
    ticks_batch *batch = &loop->batches[loop->filling];
    if (batch->readings == loop->capacity)
        return -ENOBUFS;
    int32_t cell = batch->readings * loop->files;
    int64_t before_ns = now_ns();
    for (int file = 0; file < loop->files; file++, cell++) {
        char *bytes = batch->bytes + (size_t)cell * TICKS_BYTES;
        ssize_t length = read_file(loop, file, bytes);
        int error = errno;
        int64_t after_ns = now_ns();
        int64_t counts = 0;
        int32_t state = 0;
        if (length < 0) {
            state = error;
            length = 0;
        } else {
            counts = loop->form == TICKS_DIGITS ? parse_digits(bytes, length) : parse_uint64(bytes, length);
            if (counts < 0) {
                counts = 0;
                state = TICKS_NO_COUNT;
            }
        }
        batch->t_ns[cell] = before_ns + (after_ns - before_ns) / 2;
        batch->counts[cell] = counts;
        batch->states[cell] = state;
        batch->lengths[cell] = (int32_t)length;
        batch->failed += state != 0;
        before_ns = after_ns;
    }
    batch->woken_ns[batch->readings] = woken_ns;
    batch->ticks[batch->readings] = ticks_passed;
    batch->readings++;
    return 0;
}

static int make_batch(ticks_batch *batch, size_t readings, size_t cells)
{
    batch->woken_ns = calloc(readings, sizeof(int64_t));
    batch->ticks = calloc(readings, sizeof(int64_t));
    batch->t_ns = calloc(cells, sizeof(int64_t));
    batch->counts = calloc(cells, sizeof(int64_t));
    batch->states = calloc(cells, sizeof(int32_t));
    batch->lengths = calloc(cells, sizeof(int32_t));
    batch->bytes = calloc(cells, TICKS_BYTES);
    return batch->woken_ns && batch->ticks && batch->t_ns && batch->counts && batch->states && batch->lengths &&
           batch->bytes;
}

ticks *ticks_new(int32_t files, const int *descriptors, int32_t form, int32_t capacity)
{
    ticks *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return NULL;
    pthread_mutex_init(&loop->mutex, NULL);
    loop->files = files;
    loop->form = form;
    loop->capacity = capacity;
    /* One more, since nothing of no bytes may be NULL, too. */
    size_t cells = (size_t)files * (size_t)capacity + 1;
    loop->descriptors = calloc((size_t)files + 1, sizeof(int));
    if (!loop->descriptors || !make_batch(&loop->batches[0], (size_t)capacity, cells) ||
        !make_batch(&loop->batches[1], (size_t)capacity, cells)) {
        ticks_free(loop);
        return NULL;
    }
    memcpy(loop->descriptors, descriptors, (size_t)files * sizeof(int));
    return loop;
}

void ticks_free(ticks *loop)
{
    for (int index = 0; index < 2; index++) {
        ticks_batch *batch = &loop->batches[index];
        void *arrays[] = {batch->woken_ns, batch->ticks,   batch->t_ns, batch->counts,
                          batch->states,   batch->lengths, batch->bytes};
        for (size_t array = 0; array < sizeof(arrays) / sizeof(arrays[0]); array++)
            free(arrays[array]);
    }
    pthread_mutex_destroy(&loop->mutex);
    free(loop->descriptors);
    free(loop);
}

int ticks_run(ticks *loop, int timer, int32_t readings)
{
    for (;;) {
        uint64_t passed;
        ssize_t length = read(timer, &passed, sizeof(passed));
        int64_t woken_ns = now_ns();
        if (atomic_load(&loop->stopped))
            return 0;
        if (length < 0 && errno == EINTR)
            continue;
        if (length != sizeof(passed))
            return length < 0 ? -errno : -EIO;
        pthread_mutex_lock(&loop->mutex);
        int status = read_all(loop, woken_ns, (int64_t)passed);
        int enough = loop->batches[loop->filling].readings >= readings;
        pthread_mutex_unlock(&loop->mutex);
        if (status)
            return status;
        if (enough)
            return 1;
    }
}

int ticks_read(ticks *loop)
{
    pthread_mutex_lock(&loop->mutex);
    int status = read_all(loop, 0, 0);
    pthread_mutex_unlock(&loop->mutex);
    return status;
}

const ticks_batch *ticks_take(ticks *loop)
{
    pthread_mutex_lock(&loop->mutex);
    const ticks_batch *taken = &loop->batches[loop->filling];
    loop->filling = 1 - loop->filling;
    ticks_batch *next = &loop->batches[loop->filling];
    next->readings = 0;
    next->failed = 0;
    pthread_mutex_unlock(&loop->mutex);
    return taken;
}

void ticks_stop(ticks *loop)
{
    atomic_store(&loop->stopped, 1);
}
