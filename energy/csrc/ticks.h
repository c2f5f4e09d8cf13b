/* Reading counters at a timer's ticks without Python.
 *
 * The compiler includes this file and cffi parses it (without the lines that start with '#'),
 * so a declaration stands here once. Times are nanoseconds on CLOCK_MONOTONIC.
 */
#ifndef TICKS_H
#define TICKS_H
#include <stdint.h>

enum {
    TICKS_DIGITS = 0, /* a file holds decimal digits, read from its start, blanks around them */
    TICKS_UINT64 = 1, /* each read gives 8 bytes in the machine's order */
};
enum {
    TICKS_BYTES = 32,     /* as many are read at most; no counter's digits are longer */
    TICKS_NO_COUNT = -1,  /* the bytes are no number from 0 to 2^63 - 1 */
};

/* Readings in the order in which they were taken; each has a cell for every file. */
typedef struct {
    int32_t readings;
    int32_t failed;    /* cells without a count */
    int64_t *woken_ns; /* of each reading: when its tick had woken the loop */
    int64_t *ticks;    /* of each reading: how many ticks had passed, 0 for one that was asked for */
    int64_t *t_ns;     /* of each cell: the middle of its read */
    int64_t *counts;   /* of each cell, 0 without a count */
    int32_t *states;   /* of each cell: 0, what errno said, or TICKS_NO_COUNT */
    int32_t *lengths;  /* of each cell: bytes read */
    char *bytes;       /* of each cell: TICKS_BYTES */
} ticks_batch;

typedef struct ticks ticks;

/* NULL without memory. The descriptors stay the caller's. */
ticks *ticks_new(int32_t files, const int *descriptors, int32_t form, int32_t capacity);
/* Nobody may use it any more. */
void ticks_free(ticks *loop);

/* Read at each tick of `timer`, a timerfd, until `readings` are held: returns 1, 0 once stopped, or -errno. */
int ticks_run(ticks *loop, int timer, int32_t readings);
/* Read now, in between; 0, or -ENOBUFS where `capacity` readings are held already. */
int ticks_read(ticks *loop);
/* Hand out what is held, to be used until the next call, and hold nothing. One caller at a time. */
const ticks_batch *ticks_take(ticks *loop);
/* Let `ticks_run` return after the tick that comes next. */
void ticks_stop(ticks *loop);
#endif
