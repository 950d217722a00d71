/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying one image into another. Threads take the next piece of the source in turn (which is where extents
 * are looked up, under `mutex`), and read, look for zeroes, compress and write side by side.
 */
#include "cli/image.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 2 << 20, GRAIN = 4096, MAX_THREADS = 16, DEFAULT_MOST = 8 };

struct copy {
    const struct img_copy *c;
    pthread_mutex_t mutex;
    struct blk_extent x; /* what lies at the cursor, up to `known` */
    uint64_t known;
    uint64_t size, at, done, unit; /* unit: of compressed writes; 0: none */
    uint64_t moved;                /* bytes that were read and written */
    struct timespec began;
    struct err err;
    int rc;
};

struct piece {
    uint64_t offset, length;
    bool data, zero; /* neither: leave the target as it is */
};

bool img_is_zero(const void *p, size_t n)
{
    const char *b = p;

    return n == 0 || (b[0] == 0 && memcmp(b, b + 1, n - 1) == 0);
}

/* Mutex held. What lies at the cursor; false at the end or after a failure. */
static bool take_piece(struct copy *k, struct piece *p)
{
    struct blk_extent x;
    uint64_t room;

    if (k->rc != 0 || k->at >= k->size) {
        return false;
    }
    if (k->at >= k->known) { /* an extent is asked for once, however many pieces it makes */
        k->rc = k->c->layer ? blk_map_layer(k->c->from, k->at, &k->x, &k->err)
                            : blk_map(k->c->from, k->at, &k->x, &k->err);
        if (k->rc != 0 && k->c->salvage) { /* reading tells what is lost */
            k->x = (struct blk_extent){ .length = GRAIN - k->at % GRAIN, .data = true };
            k->rc = 0;
        }
        if (k->rc != 0) {
            return false;
        }
        k->known = k->at + k->x.length;
    }
    x = k->x;
    x.length = k->known - k->at;
    *p = (struct piece){ .offset = k->at,
                         .length = x.length < k->size - k->at ? x.length : k->size - k->at,
                         .data = x.data };
    p->zero = !x.data && (!k->c->layer || x.present) && !k->c->to_is_zero;
    room = CHUNK - k->at % CHUNK;
    if (k->unit) { /* whole units: a hole must cover them */
        uint64_t end = (p->offset + p->length) / k->unit * k->unit;

        if (!p->data && end > p->offset) {
            p->length = end - p->offset;
        } else if (!p->data && p->offset + p->length < k->size) {
            p->data = true;
        }
        room = k->unit;
    }
    if (p->data) {
        p->length = k->unit ? room : p->length < room ? p->length : room;
        p->length = p->length < k->size - p->offset ? p->length : k->size - p->offset;
    }
    k->at += p->length;
    return true;
}

static int copy_zero(struct copy *k, uint64_t offset, uint64_t length)
{
    return k->c->to_is_zero ? 0 : blk_zero(k->c->to, offset, length, BLK_UNMAP);
}

static int write_plain(struct copy *k, const struct piece *p, const char *mem)
{
    uint64_t done = 0;
    int rc = 0;

    while (done < p->length && rc == 0) {
        uint64_t run = 0, grain = GRAIN - (p->offset + done) % GRAIN;
        bool zero = false, first = true;

        /* pieces of one kind; short runs of zeroes are data */
        while (done + run < p->length) {
            uint64_t n = first ? grain : GRAIN;
            bool is;

            n = n < p->length - done - run ? n : p->length - done - run;
            is = k->c->sparse && img_is_zero(mem + done + run, n);
            if (!first && is != zero) {
                break;
            }
            zero = is;
            first = false;
            run += n;
        }
        rc = zero ? copy_zero(k, p->offset + done, run)
                  : blk_pwrite(k->c->to, p->offset + done, mem + done, run);
        done += run;
    }
    return rc;
}

static int write_compressed(struct copy *k, const struct piece *p, char *mem)
{
    struct iovec iov = { .iov_base = mem, .iov_len = p->length };
    struct blk_req r = { .op = BLK_WRITE,
                         .flags = BLK_COMPRESS,
                         .offset = p->offset,
                         .length = p->length,
                         .iov = &iov,
                         .n_iov = 1 };

    if (img_is_zero(mem, p->length)) {
        return copy_zero(k, p->offset, p->length);
    }
    return blk_run(k->c->to, &r);
}

/* What of it can be read; the rest is zeroes. */
static void salvage(struct copy *k, const struct piece *p, char *mem)
{
    for (uint64_t at = 0; at < p->length; at += GRAIN) {
        uint64_t n = p->length - at < GRAIN ? p->length - at : GRAIN;
        int rc = blk_pread(k->c->from, p->offset + at, mem + at, n);

        if (rc != 0) {
            memset(mem + at, 0, n);
            fprintf(stderr, "vmctl: warning: %s at offset %llu: %s; zeroes stand for it\n",
                    blk_path(k->c->from), (unsigned long long)(p->offset + at), strerror(-rc));
        }
    }
}

static int copy_piece(struct copy *k, const struct piece *p, char *mem, const char **what)
{
    int rc;

    *what = blk_path(k->c->to);
    if (!p->data) {
        return p->zero ? copy_zero(k, p->offset, p->length) : 0;
    }
    rc = blk_pread(k->c->from, p->offset, mem, p->length);
    if (rc != 0 && k->c->salvage) {
        salvage(k, p, mem);
        rc = 0;
    }
    if (rc != 0) {
        *what = blk_path(k->c->from);
        return rc;
    }
    return k->unit ? write_compressed(k, p, mem) : write_plain(k, p, mem);
}

/* Mutex held, also while waiting: the others would have to wait as well. */
static void keep_to_rate(const struct copy *k)
{
    struct timespec now, rest;
    double due, is;

    if (!k->c->rate) {
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    is = (double)(now.tv_sec - k->began.tv_sec) +
         (double)(now.tv_nsec - k->began.tv_nsec) / 1e9;
    due = (double)k->moved / (double)k->c->rate - is;
    if (due > 0) {
        rest.tv_sec = (time_t)due;
        rest.tv_nsec = (long)((due - (double)rest.tv_sec) * 1e9);
        (void)nanosleep(&rest, NULL);
    }
}

static void *copy_thread(void *arg)
{
    struct copy *k = arg;
    char *mem = xalloc_aligned(4096, CHUNK);
    struct piece p;

    pthread_mutex_lock(&k->mutex);
    while (take_piece(k, &p)) {
        const char *what = NULL;
        int rc;

        pthread_mutex_unlock(&k->mutex);
        rc = copy_piece(k, &p, mem, &what);
        pthread_mutex_lock(&k->mutex);
        if (rc != 0 && k->rc == 0) {
            k->rc = err_errno(&k->err, -rc, "%s at offset %llu", what,
                              (unsigned long long)p.offset);
        }
        k->done += p.length;
        k->moved += p.data ? p.length : 0;
        img_progress(k->c->progress, k->done, k->size);
        keep_to_rate(k);
    }
    pthread_mutex_unlock(&k->mutex);
    free(mem);
    return NULL;
}

static unsigned thread_count(unsigned asked)
{
    /* twice the processors: while one waits for a disk another computes */
    long n = asked ? (long)asked : 2 * sysconf(_SC_NPROCESSORS_ONLN);

    n = n < 1 ? 1 : n;
    n = !asked && n > DEFAULT_MOST ? DEFAULT_MOST : n;
    return n > MAX_THREADS ? MAX_THREADS : (unsigned)n;
}

int img_copy(const struct img_copy *c, struct err *e)
{
    struct copy k = { .c = c, .size = blk_size(c->from) };
    unsigned n = thread_count(c->threads), started = 0;
    pthread_t thread[MAX_THREADS];

    k.size = k.size < blk_size(c->to) ? k.size : blk_size(c->to);
    if (c->compress) {
        struct blk_image_info i;
        int rc = blk_info(c->to, &i, e);

        if (rc != 0) {
            return rc;
        }
        k.unit = i.cluster_size;
        blk_info_done(&i);
        if (!k.unit) {
            return err_set(e, -ENOTSUP, "images of format %s are not compressed",
                           blk_driver_name(c->to));
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &k.began);
    pthread_mutex_init(&k.mutex, NULL);
    for (; started + 1 < n; started++) {
        if (pthread_create(&thread[started], NULL, copy_thread, &k) != 0) {
            break; /* with fewer, then */
        }
    }
    copy_thread(&k);
    while (started > 0) {
        pthread_join(thread[--started], NULL);
    }
    pthread_mutex_destroy(&k.mutex);
    if (k.rc != 0) {
        *e = k.err;
    }
    return k.rc;
}
