/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What block jobs do with data, a piece at a time, on workers.
 */
#include "engine/base/mem.h"
#include "storage/bitmap.h"
#include "storage/job_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 4096 };

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- copying --- */

/* A range of the target reads as zeroes afterwards; where it does already, nothing is written. */
static int zero_target(struct blk_node *to, uint64_t at, uint64_t length)
{
    while (length > 0) {
        struct blk_extent x;
        uint64_t n = length;
        int rc = blk_map(to, at, &x, NULL);

        if (rc == 0 && x.zero && x.length > 0) {
            n = min64(n, x.length);
        } else {
            if (rc == 0 && x.length > 0) {
                n = min64(n, x.length);
            }
            rc = blk_zero(to, at, n, BLK_UNMAP);
            if (rc != 0) {
                return rc;
            }
        }
        at += n;
        length -= n;
    }
    return 0;
}

static int copy_data(struct blk_job *j, struct blk_node *from, struct blk_node *to, uint64_t at,
                     uint64_t length, void *memory, bool *source)
{
    int rc;

    (void)j;
    while (length > 0) {
        uint64_t n = min64(length, JOB_PIECE);

        *source = true;
        rc = blk_pread(from, at, memory, n);
        if (rc != 0) {
            return rc;
        }
        *source = false;
        rc = blk_pwrite(to, at, memory, n);
        if (rc != 0) {
            return rc;
        }
        at += n;
        length -= n;
    }
    return 0;
}

/* What `from` reads as comes to `to`. */
static int copy_range(struct blk_job *j, struct blk_node *from, struct blk_node *to,
                      uint64_t at, uint64_t length, void *memory, bool *source)
{
    while (length > 0) {
        struct blk_extent x;
        uint64_t n;
        int rc;

        *source = true;
        rc = blk_map(from, at, &x, NULL);
        if (rc != 0) {
            return rc;
        }
        n = x.length ? min64(x.length, length) : length;
        if (x.zero) {
            *source = false;
            rc = zero_target(to, at, n);
        } else {
            rc = copy_data(j, from, to, at, n, memory, source);
        }
        if (rc != 0) {
            return rc;
        }
        at += n;
        length -= n;
    }
    return 0;
}

/* --- mirror, and commit of the disk's own image --- */

static struct blk_node *source_of(const struct blk_job *j)
{
    return blk_disk_image(j->o.disk);
}

static struct blk_node *target_of(const struct blk_job *j)
{
    return j->o.kind == BLK_JOB_COMMIT ? j->o.base : j->o.target;
}

/* Marks a stretch of what is to be copied: that which the images above the base hold. */
static int scan_step(struct blk_job *j, uint64_t *moved)
{
    struct blk_node *image = source_of(j);
    const struct blk_node *until = j->o.kind == BLK_JOB_COMMIT ? j->o.base
                                                               : image->kid[BLK_BACKING];

    *moved = 0;
    for (unsigned i = 0; i < 1024 && j->scanned < image->size && !j->halt; i++) {
        struct blk_extent x;
        int rc = job_map_until(image, until, j->scanned, &x);

        if (rc != 0) {
            j->source_error = true;
            return rc;
        }
        if (x.present) {
            blk_dirty_set(j->dirty, j->scanned, x.length);
        }
        j->scanned += x.length;
        *moved += 1; /* not data: but there was something to do */
    }
    j->scanning = j->scanned < image->size;
    if (*moved == 0) {
        *moved = 1;
    }
    return 0;
}

uint64_t job_left(const struct blk_job *j)
{
    struct blk_dirty_info i;

    if (!j->dirty) {
        return 0;
    }
    blk_dirty_get(j->dirty, &i);
    return i.dirty;
}

/* Another part that is at some of [at, at + n); NULL: none. */
static const struct blk_job_part *part_at(const struct blk_job *j, uint64_t at, uint64_t n)
{
    for (unsigned i = 0; i < j->n_parts; i++) {
        const struct blk_job_part *p = &j->part[i];

        if (p->n > 0 && p->at < at + n && at < p->at + p->n) {
            return p;
        }
    }
    return NULL;
}

/* From `from` on, what is dirty and nobody is at: two that copy the same may end in another order than they read. */
static bool dirty_free(const struct blk_job *j, uint64_t from, uint64_t *at, uint64_t *n)
{
    while (blk_dirty_next(j->dirty, from, JOB_PIECE, at, n)) {
        const struct blk_job_part *other = part_at(j, *at, *n);

        if (!other) {
            return true;
        }
        if (other->at > *at) {
            *n = other->at - *at;
            if (!part_at(j, *at, *n)) {
                return true;
            }
        }
        from = other->at + other->n;
    }
    return false;
}

/* The next piece becomes this part's. False: there is none for now. */
static bool mirror_pick(struct blk_job *j, struct blk_job_part *p)
{
    uint64_t at, n, size = source_of(j)->size;
    bool found;

    pthread_mutex_lock(&j->pick);
    found = dirty_free(j, j->cursor, &at, &n);
    if (!found) {
        j->rounds++;
        found = j->cursor != 0 && dirty_free(j, 0, &at, &n);
        j->cursor = 0;
    }
    if (found) {
        blk_dirty_reset(j->dirty, at,
                        n); /* before reading: a write from now on sets it again */
        p->at = at;
        p->n = n;
        j->rounds += at + n >= size;
        j->cursor = at + n < size ? at + n : 0;
    }
    pthread_mutex_unlock(&j->pick);
    return found;
}

static int mirror_step(struct blk_job *j, struct blk_job_part *p, uint64_t *moved)
{
    uint64_t at, n;
    int rc;

    if (j->scanning) {
        return p == &j->part[0] ? scan_step(j, moved) : 0;
    }
    if (!mirror_pick(j, p)) {
        return 0;
    }
    at = p->at;
    n = p->n;
    rc = copy_range(j, source_of(j), target_of(j), at, n, p->memory, &p->source_error);
    pthread_mutex_lock(&j->pick);
    if (rc != 0) {
        blk_dirty_set(j->dirty, at, n);
    }
    p->n = 0;
    pthread_mutex_unlock(&j->pick);
    if (rc != 0) {
        return rc;
    }
    j->done += n;
    j->total = j->done + job_left(j);
    *moved = n;
    return 0;
}

/* --- backup --- */

static bool bit(const uint64_t *bits, uint64_t i)
{
    return bits[i / 64] >> i % 64 & 1;
}

static void bit_put(uint64_t *bits, uint64_t i, bool on)
{
    bits[i / 64] = (bits[i / 64] & ~(1ull << i % 64)) | (uint64_t)on << i % 64;
}

bool job_todo(const struct blk_job *j, uint64_t piece)
{
    return bit(j->todo, piece);
}

/* Lock held. */
static uint64_t next_free(const struct blk_job *j, uint64_t i, uint64_t end)
{
    while (i < end && (!bit(j->todo, i) || bit(j->busy, i))) {
        uint64_t w = i / 64;

        i = i % 64 == 0 && (j->todo[w] & ~j->busy[w]) == 0 ? i + 64 : i + 1;
    }
    return i < end ? i : end;
}

static bool backup_must_wait(struct blk_guard *g, uint64_t offset, uint64_t length)
{
    const struct blk_job *j = container_of(g, struct blk_job, guard);

    if (j->guard_off || length == 0) {
        return false;
    }
    for (uint64_t i = offset >> j->shift; i <= (offset + length - 1) >> j->shift; i++) {
        if (i < j->n_bits && bit(j->todo, i)) {
            return true;
        }
    }
    return false;
}

static uint64_t bits_end(const struct blk_job *j, uint64_t offset, uint64_t length)
{
    uint64_t end = length ? ((offset + length - 1) >> j->shift) + 1 : 0;

    return min64(end, j->n_bits);
}

/* Somebody waits for it and nobody copies it. */
static bool wanted_free(struct blk_guard *g, uint64_t offset, uint64_t length)
{
    const struct blk_job *j = container_of(g, struct blk_job, guard);
    uint64_t end = bits_end(j, offset, length);

    return next_free(j, offset >> j->shift, end) < end;
}

/* Lock held. Whom somebody waits for first; then in order. */
static bool backup_pick(struct blk_job *j, bool wanted_only, uint64_t *first, uint64_t *n)
{
    uint64_t most = JOB_PIECE >> j->shift ? JOB_PIECE >> j->shift : 1, offset, length, at, end;

    at = end = 0;
    if (blk_guard_find(j->o.disk, &j->guard, wanted_free, &offset, &length)) {
        end = bits_end(j, offset, length);
        at = next_free(j, offset >> j->shift, end);
    }
    if (at >= end) {
        if (wanted_only || j->o.sync == BLK_SYNC_NONE) {
            return false;
        }
        end = j->n_bits;
        at = next_free(j, j->cursor, end);
        j->cursor = at;
    }
    if (at >= end) {
        return false;
    }
    *first = at;
    for (*n = 0;
         *n < most && at + *n < end && bit(j->todo, at + *n) && !bit(j->busy, at + *n);) {
        bit_put(j->busy, at + *n, true);
        ++*n;
    }
    j->n_busy += *n;
    return true;
}

static void backup_put(struct blk_job *j, uint64_t first, uint64_t n, bool copied)
{
    blk_guard_lock(j->o.disk);
    for (uint64_t i = first; i < first + n; i++) {
        bit_put(j->busy, i, false);
        if (copied) {
            bit_put(j->todo, i, false);
            j->n_todo--;
        }
    }
    j->n_busy -= n;
    blk_guard_unlock(j->o.disk);
    blk_guard_recheck(j->o.disk);
}

/* With BLK_SYNC_TOP what only backing images hold is left out. */
static int backup_copy(struct blk_job *j, uint64_t at, uint64_t length, void *memory,
                       bool *source)
{
    struct blk_node *image = source_of(j);
    int rc = 0;

    if (j->o.sync != BLK_SYNC_TOP) {
        return copy_range(j, image, j->o.target, at, length, memory, source);
    }
    while (length > 0 && rc == 0) {
        struct blk_extent x;
        uint64_t n;

        *source = true;
        rc = blk_map_layer(image, at, &x, NULL);
        n = min64(rc == 0 && x.length ? x.length : length, length);
        if (rc == 0 && x.present) {
            rc = copy_range(j, image, j->o.target, at, n, memory, source);
        }
        at += n;
        length -= n;
    }
    return rc;
}

static int backup_one(struct blk_job *j, bool wanted_only, void *memory, uint64_t *moved,
                      bool *source)
{
    uint64_t first, n, at, length, size = source_of(j)->size;
    bool got;
    int rc;

    blk_guard_lock(j->o.disk);
    got = backup_pick(j, wanted_only, &first, &n);
    blk_guard_unlock(j->o.disk);
    *moved = 0;
    if (!got) {
        return 0;
    }
    at = first << j->shift;
    length = min64(n << j->shift, size - at);
    rc = backup_copy(j, at, length, memory, source);
    backup_put(j, first, n, rc == 0);
    if (rc == 0) {
        j->done += length;
        *moved = length;
    }
    return rc;
}

struct urgent {
    struct work work;
    struct blk_job *job;
};

/* A guest's write waits: its part is copied now, whatever the job does, without the loop. */
static void urgent_run(struct work *w)
{
    struct blk_job *j = container_of(w, struct urgent, work)->job;
    AUTO_FREE void *memory = xalloc_aligned(ALIGN, JOB_PIECE);
    bool more = true, source;
    int rc;

    while (more) {
        uint64_t moved = 0, at, n;

        rc = backup_one(j, true, memory, &moved, &source);
        blk_guard_lock(j->o.disk);
        if (rc != 0) { /* the guest is not to suffer: the backup fails */
            j->urgent_rc = rc;
            j->guard_off = true;
        }
        /* Others wait for parts that another thread copies, which then looks again. */
        more = rc == 0 && blk_guard_find(j->o.disk, &j->guard, wanted_free, &at, &n);
        if (!more) {
            j->urgent_runs = false;
        }
        blk_guard_unlock(j->o.disk);
        if (rc != 0) {
            blk_guard_recheck(j->o.disk);
        }
    }
}

static void urgent_done(struct work *w)
{
    struct urgent *u = container_of(w, struct urgent, work);
    struct blk_job *j = u->job;

    free(u);
    job_urgent_done(j);
}

static void backup_kept(struct blk_guard *g, uint64_t offset, uint64_t length)
{
    struct blk_job *j = container_of(g, struct blk_job, guard);
    struct urgent *u;

    (void)offset;
    (void)length;
    if (j->urgent_runs) {
        return;
    }
    u = xnew(struct urgent);
    u->job = j;
    u->work = (struct work){ .run = urgent_run, .done = urgent_done };
    j->urgent_runs = true;
    j->urgents++;
    workers_queue(j->jobs->workers, &u->work);
}

/* What the bitmap tells is to be copied. */
static void backup_mark(struct blk_job *j, uint64_t size)
{
    uint64_t at = 0, n;

    while (at < size && blk_dirty_next(j->o.bitmap, at, UINT64_MAX >> 1, &at, &n)) {
        for (uint64_t b = at >> j->shift; b <= (at + n - 1) >> j->shift; b++) {
            j->n_todo += !bit(j->todo, b);
            bit_put(j->todo, b, true);
        }
        at += n;
    }
}

static int backup_prepare(struct blk_job *j, struct err *e)
{
    uint64_t size = j->o.disk->size, words;
    struct blk_image_info i;
    uint64_t unit = j->o.granularity ? j->o.granularity : 65536;

    if (blk_info(j->o.target, &i, NULL) == 0) {
        unit = i.cluster_size > unit ? i.cluster_size : unit;
        blk_info_done(&i);
    }
    j->size = size;
    j->shift = (unsigned)__builtin_ctzll(unit);
    j->n_bits = (size + unit - 1) >> j->shift;
    words = j->n_bits / 64 + 1;
    j->todo = try_alloc_n(words, 8);
    j->busy = try_alloc_n(words, 8);
    if (!j->todo || !j->busy) {
        return err_set(e, -ENOMEM, "no memory to back up disk '%s'", j->o.disk->name);
    }
    if (j->o.bitmap) {
        int rc = blk_dirty_freeze(j->o.bitmap, e);

        if (rc != 0) {
            return rc;
        }
        j->froze = true;
    }
    if (j->o.sync == BLK_SYNC_BITMAP) {
        backup_mark(j, size);
    } else {
        for (uint64_t b = 0; b < j->n_bits; b++) {
            bit_put(j->todo, b, true);
        }
        j->n_todo = j->n_bits;
    }
    j->total = min64(j->n_todo << j->shift, size);
    j->guard.must_wait = backup_must_wait;
    j->guard.kept = backup_kept;
    return 0;
}

/* --- stream --- */

static bool stream_must_wait(struct blk_guard *g, uint64_t offset, uint64_t length)
{
    const struct blk_job *j = container_of(g, struct blk_job, guard);

    return offset < j->lock_at + j->lock_n && j->lock_at < offset + length;
}

static void stream_kept(struct blk_guard *g, uint64_t offset, uint64_t length)
{
    (void)g;
    (void)offset;
    (void)length;
}

static void stream_lock(struct blk_job *j, uint64_t at, uint64_t n)
{
    blk_guard_lock(j->o.disk);
    j->lock_at = at;
    j->lock_n = n;
    blk_guard_unlock(j->o.disk);
    if (n) {
        blk_guard_settle(j->o.disk, at, n);
    } else {
        blk_guard_recheck(j->o.disk);
    }
}

/* What the images below say, of a part that the image itself does not have. */
static int stream_part(struct blk_job *j, struct blk_node *image, uint64_t at, uint64_t length)
{
    struct blk_node *under = image->kid[BLK_BACKING];

    while (length > 0) {
        struct blk_extent x = { .length = length, .zero = true };
        uint64_t n;
        int rc = 0;

        j->source_error = true;
        if (under && at < under->size) {
            rc = job_map_until(under, j->o.base, at, &x);
        }
        if (rc != 0) {
            return rc;
        }
        n = x.length ? min64(x.length, length) : length;
        if (x.present && !x.zero) {
            rc = copy_data(j, image, image, at, n, j->part[0].memory, &j->source_error);
        } else if (x.present && j->o.base) {
            j->source_error = false;
            rc = blk_zero(image, at, n, BLK_UNMAP);
        }
        if (rc != 0) {
            return rc;
        }
        at += n;
        length -= n;
    }
    return 0;
}

static int stream_step(struct blk_job *j, uint64_t *moved)
{
    struct blk_node *image = source_of(j);
    uint64_t at = j->cursor, end = min64(at + JOB_PIECE, image->size);
    int rc = 0;

    *moved = 0;
    if (at >= image->size) {
        return 0;
    }
    stream_lock(j, at, end - at);
    while (at < end && rc == 0) {
        struct blk_extent x;
        uint64_t n;

        j->source_error = true;
        rc = blk_map_layer(image, at, &x, NULL);
        if (rc != 0) {
            break;
        }
        n = x.length ? min64(x.length, end - at) : end - at;
        if (!x.present) {
            rc = stream_part(j, image, at, n);
        }
        at += n;
    }
    stream_lock(j, 0, 0);
    if (rc == 0) {
        *moved = end - j->cursor;
        j->cursor = end;
        j->done = end;
    }
    return rc;
}

/* --- commit of images below the disk's own --- */

static int commit_step(struct blk_job *j, uint64_t *moved)
{
    struct blk_node *top = j->o.top;
    uint64_t n;
    struct blk_extent x;
    int rc;

    *moved = 0;
    if (j->cursor >= top->size) {
        return 0;
    }
    j->source_error = true;
    rc = job_map_until(top, j->o.base, j->cursor, &x);
    if (rc != 0) {
        return rc;
    }
    n = min64(x.length, x.zero || !x.present ? UINT64_MAX : JOB_PIECE);
    if (x.present) {
        rc = copy_range(j, top, j->o.base, j->cursor, n, j->part[0].memory, &j->source_error);
    }
    if (rc == 0) {
        j->cursor += n;
        j->done = j->cursor;
        *moved = x.present ? n : 4096;
    }
    return rc;
}

/* --- all --- */

static bool follows(const struct blk_job *j)
{
    return j->o.kind == BLK_JOB_MIRROR || (j->o.kind == BLK_JOB_COMMIT && !j->o.top);
}

int job_step(struct blk_job *j, uint64_t *moved)
{
    *moved = 0;
    if (follows(j)) {
        struct blk_job_part *p = &j->part[0];
        int rc = mirror_step(j, p, moved);

        j->source_error = rc != 0 && (j->source_error || p->source_error);
        return rc;
    }
    return j->o.kind == BLK_JOB_BACKUP
               ? backup_one(j, false, j->part[0].memory, moved, &j->source_error)
           : j->o.kind == BLK_JOB_STREAM ? stream_step(j, moved)
                                         : commit_step(j, moved);
}

int job_step_part(struct blk_job_part *p, uint64_t *moved)
{
    *moved = 0;
    return mirror_step(p->job, p, moved);
}

static int mirror_prepare(struct blk_job *j, struct err *e)
{
    const struct blk_dirty_options o = { .granularity = j->o.granularity ? j->o.granularity
                                                                         : 65536 };
    int rc = blk_dirty_new(j->o.disk, &o, &j->dirty, e);

    if (rc != 0) {
        return rc;
    }
    if (j->o.sync == BLK_SYNC_FULL && j->o.kind == BLK_JOB_MIRROR) {
        blk_dirty_set(j->dirty, 0, j->o.disk->size);
    } else if (j->o.sync == BLK_SYNC_BITMAP && j->o.bitmap) {
        rc = blk_dirty_merge(j->dirty, j->o.bitmap, e);
    } else if (j->o.sync != BLK_SYNC_NONE) {
        j->scanning = true;
    }
    j->total = job_left(j);
    return rc;
}

int job_prepare(struct blk_job *j, struct err *e)
{
    int rc = 0;

    j->n_parts = j->o.keen && follows(j) ? JOB_PARTS : 1;
    for (unsigned i = 0; i < j->n_parts; i++) {
        j->part[i] = (struct blk_job_part){ .job = j };
        j->part[i].memory = xalloc_aligned(ALIGN, JOB_PIECE);
    }
    list_init(&j->guard.link);
    if (follows(j)) {
        return mirror_prepare(j, e);
    }
    if (j->o.kind == BLK_JOB_BACKUP) {
        rc = backup_prepare(j, e);
    } else if (j->o.kind == BLK_JOB_STREAM) {
        j->total = source_of(j)->size;
        j->guard.must_wait = stream_must_wait;
        j->guard.kept = stream_kept;
    } else {
        j->total = j->o.top->size;
        return 0;
    }
    if (rc == 0) {
        j->guarded = true;
        blk_guard_add(j->o.disk, &j->guard);
    }
    return rc;
}

void job_unprepare(struct blk_job *j)
{
    if (j->guarded) {
        blk_guard_lock(j->o.disk);
        j->guard_off = true;
        j->lock_n = 0;
        blk_guard_unlock(j->o.disk);
        blk_guard_remove(j->o.disk, &j->guard);
        j->guarded = false;
    }
    if (j->dirty) {
        (void)blk_dirty_free(j->dirty, NULL);
        j->dirty = NULL;
    }
    free(take_ptr(j->todo));
    free(take_ptr(j->busy));
    for (unsigned i = 0; i < j->n_parts; i++) {
        free(take_ptr(j->part[i].memory));
    }
}
