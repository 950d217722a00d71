/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's thread and group commit.
 *
 * Owns the connection, the queue of transactions and the list of decided ones. The loop's thread
 * queues and delivers; the writer thread (writer_main) alone uses the connection between start and
 * join; a second, short-lived thread (check_main) has a connection of its own for the check after an
 * unclean shutdown. `lock` protects queue, done, busy, quit, health and why.
 *
 * What is known after a failed commit: SQLITE_FULL and BUSY leave nothing. An I/O error while
 * syncing may leave a commit frame in the log that recovery would accept, so the connection is
 * closed, the database opened again, and the batch number in it tells which way it went. While
 * that cannot be read the store refuses to write ("poisoned") rather than guess.
 */
#include "daemon/store/store.h"

#include "daemon/store/sql.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH_MAX 512
#define OP_VALUES 11

struct val {
    char *text; /* NULL: the number */
    int64_t num;
};
struct op {
    struct op *next;
    enum store_stmt stmt;
    unsigned n;
    struct val v[OP_VALUES];
};
struct store_tx {
    struct list link; /* in store.queue, then store.done */
    struct store *s;
    struct op *first, **last;
    void (*done)(void *arg, const struct err *e);
    void *arg;
    struct err e;
    bool failed;
};
struct store {
    char *path, *vfs;
    struct loop *loop;
    unsigned retry_us;
    sqlite3 *db; /* writer thread */
    sqlite3_stmt *stmt[ST_COUNT];
    unsigned
        trims; /* tables to be trimmed at the end of this batch, 1 << enum store_stmt; writer thread */
    int64_t batch;     /* number of the last batch known to be in the file; writer thread */
    bool poisoned;     /* outcome of batch + 1 unknown; writer thread */
    int64_t max_event; /* highest sequence number queued; loop thread */
    pthread_t writer, checker;
    bool checking_thread;
    sqlite3 *check_db; /* for sqlite3_interrupt; lock */
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    struct list queue, done;
    bool busy, quit;
    enum store_health health;
    char why[256];
};

/* ---- building a transaction (loop thread) ---- */

struct store_tx *store_tx_new(struct store *s)
{
    struct store_tx *tx = xnew(struct store_tx);
    list_init(&tx->link);
    tx->s = s;
    tx->last = &tx->first;
    return tx;
}

void store_tx_drop(struct store_tx *tx)
{
    if (!tx) {
        return;
    }
    for (struct op *o = tx->first; o;) {
        struct op *next = o->next;
        for (unsigned i = 0; i < o->n; i++) {
            free(o->v[i].text);
        }
        free(o);
        o = next;
    }
    free(tx);
}

/* Types: one letter a value, 't' text (NULL becomes ""), 'i' int64_t. */
static void tx_add(struct store_tx *tx, enum store_stmt stmt, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    struct op *o = xnew(struct op);
    o->stmt = stmt;
    for (; *types; types++) {
        struct val *v = &o->v[o->n++];
        if (*types == 't') {
            const char *t = va_arg(ap, const char *);
            v->text = xstrdup(t ? t : "");
        } else {
            v->num = va_arg(ap, int64_t);
        }
    }
    va_end(ap);
    *tx->last = o;
    tx->last = &o->next;
}

void store_tx_vm_put(struct store_tx *tx, const struct store_vm *r)
{
    tx_add(tx, ST_VM_PUT, "itttiiii", r->id, r->uuid, r->name, r->config, r->owner,
           (int64_t)r->transient, r->created_ns, r->changed_ns);
}

void store_tx_vm_del(struct store_tx *tx, int64_t id)
{
    tx_add(tx, ST_VM_DEL, "i", id);
}

void store_tx_run_put(struct store_tx *tx, const struct store_run *r)
{
    tx_add(tx, ST_RUN_PUT, "ittiiiii", r->vm, r->cookie, r->boot_id, r->since_ns, r->pid,
           r->start_time, r->mon_pid, r->mon_start);
}

void store_tx_run_del(struct store_tx *tx, int64_t vm)
{
    tx_add(tx, ST_RUN_DEL, "i", vm);
}

void store_tx_job_put(struct store_tx *tx, const struct store_job *r)
{
    tx_add(tx, ST_JOB_PUT, "iiit", r->id, r->owner, (int64_t)r->active, r->body);
    tx_add(tx, ST_JOB_TRIM, "i", r->id);
}

void store_tx_event_put(struct store_tx *tx, const struct store_event *r)
{
    tx_add(tx, ST_EVENT_PUT, "ittt", r->seq, r->type, r->vm, r->body);
    if (r->drop > 0) {
        tx_add(tx, ST_EVENT_TRIM, "i", r->drop);
    }
    if (r->seq > tx->s->max_event) {
        tx->s->max_event = r->seq;
    }
}

void store_tx_exit_put(struct store_tx *tx, const struct store_exit *r)
{
    tx_add(tx, ST_EXIT_PUT, "itttiiiiitt", r->vm, r->uuid, r->name, r->cookie, r->pid,
           r->started_ns, r->ended_ns, (int64_t)r->status, (int64_t)r->signal, r->reason,
           r->message);
    tx_add(tx, ST_EXIT_TRIM, "");
}

void store_tx_idem_put(struct store_tx *tx, const struct store_idem *r)
{
    tx_add(tx, ST_IDEM_PUT, "itttti", r->uid, r->key, r->method, r->args_hash, r->reply,
           r->time_ns);
    tx_add(tx, ST_IDEM_TRIM, "");
}

void store_tx_audit_put(struct store_tx *tx, const struct store_audit *r)
{
    tx_add(tx, ST_AUDIT_PUT, "iiitttt", r->time_ns, r->uid, r->pid, r->method, r->object,
           r->outcome, r->who);
    tx_add(tx, ST_AUDIT_TRIM, "");
}

void store_tx_object_put(struct store_tx *tx, const struct store_object *r)
{
    tx_add(tx, ST_OBJECT_PUT, "tttti", r->kind, r->scope, r->name, r->body, r->changed_ns);
}

void store_tx_object_del(struct store_tx *tx, const char *kind, const char *scope,
                         const char *name)
{
    tx_add(tx, ST_OBJECT_DEL, "ttt", kind, scope, name);
}

void store_tx_fact_put(struct store_tx *tx, const char *key, const char *value)
{
    tx_add(tx, ST_FACT_PUT, "tt", key, value);
}

/* ---- delivering (loop thread) ---- */

static void deliver(void *arg)
{
    struct store *s = arg;
    struct list got;
    list_init(&got);
    pthread_mutex_lock(&s->lock);
    while (!list_empty(&s->done)) {
        struct list *n = s->done.next;
        list_remove(n);
        list_append(&got, n);
    }
    pthread_mutex_unlock(&s->lock);
    while (!list_empty(&got)) {
        struct store_tx *tx = list_entry(got.next, struct store_tx, link);
        list_remove(&tx->link);
        if (tx->done) {
            tx->done(tx->arg, tx->failed ? &tx->e : NULL);
        } else if (tx->failed) {
            log_error("daemon", "%s", tx->e.msg);
        }
        store_tx_drop(tx);
    }
}

void store_tx_commit(struct store_tx *tx, void (*done)(void *arg, const struct err *e),
                     void *arg)
{
    struct store *s = tx->s;
    tx->done = done;
    tx->arg = arg;
    pthread_mutex_lock(&s->lock);
    list_append(&s->queue, &tx->link);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void store_sync(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->busy || !list_empty(&s->queue)) {
        pthread_cond_wait(&s->idle, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    deliver(s);
}

/* ---- writing (writer thread) ---- */

static void forget_statements(struct store *s)
{
    for (unsigned i = 0; i < ST_COUNT; i++) {
        sqlite3_finalize(s->stmt[i]);
        s->stmt[i] = NULL;
    }
}

static void close_db(struct store *s)
{
    forget_statements(s);
    sqlite3_close(s->db);
    s->db = NULL;
}

static int run_stmt(struct store *s, enum store_stmt id, const struct val *v, unsigned n,
                    const char *doing, struct err *e)
{
    int rc = SQLITE_OK;
    if (!s->stmt[id]) {
        rc = sqlite3_prepare_v3(s->db, store_stmt_sql[id], -1, SQLITE_PREPARE_PERSISTENT,
                                &s->stmt[id], NULL);
    }
    for (unsigned i = 0; rc == SQLITE_OK && i < n; i++) {
        rc = v[i].text
                 ? sqlite3_bind_text(s->stmt[id], (int)i + 1, v[i].text, -1, SQLITE_STATIC)
                 : sqlite3_bind_int64(s->stmt[id], (int)i + 1, v[i].num);
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(s->stmt[id]);
    }
    int code = rc == SQLITE_DONE || rc == SQLITE_ROW || rc == SQLITE_OK
                   ? 0
                   : store_sql_err(s->db, rc, doing, e);
    if (s->stmt[id]) {
        sqlite3_reset(s->stmt[id]);
        sqlite3_clear_bindings(s->stmt[id]);
    }
    return code;
}

_Static_assert(ST_COUNT <= 32, "a bit each in store.trims");

/* What keeps a table to its newest rows is the same for every transaction: once a batch is enough. */
static bool is_trim(enum store_stmt stmt)
{
    return stmt == ST_EXIT_TRIM || stmt == ST_IDEM_TRIM || stmt == ST_AUDIT_TRIM;
}

/* One transaction inside the batch. A constraint undoes it alone (its own error, returns 0);
 * anything else fails the batch. */
static int run_one(struct store *s, struct store_tx *tx, struct err *e)
{
    int rc = run_stmt(s, ST_SAVE, NULL, 0, "cannot write", e);
    if (rc < 0) {
        return rc;
    }
    for (struct op *o = tx->first; o; o = o->next) {
        struct err why = ERR_INIT;
        if (is_trim(o->stmt)) {
            s->trims |= 1u << o->stmt;
            continue;
        }
        rc = run_stmt(s, o->stmt, o->v, o->n, "cannot write", &why);
        if (rc == -EEXIST) {
            tx->failed = true;
            tx->e = why;
            rc = run_stmt(s, ST_SAVE_UNDO, NULL, 0, "cannot undo", e);
            break;
        }
        if (rc < 0) {
            *e = why;
            return rc;
        }
    }
    return rc < 0 ? rc : run_stmt(s, ST_SAVE_END, NULL, 0, "cannot write", e);
}

static int run_batch(struct store *s, struct list *txs, struct err *e)
{
    int rc = store_sql_exec(s->db, "BEGIN IMMEDIATE", e);
    s->trims = 0;
    if (rc < 0) {
        return rc;
    }
    list_for_each (n, txs) {
        rc = run_one(s, list_entry(n, struct store_tx, link), e);
        if (rc < 0) {
            return rc;
        }
    }
    for (unsigned i = 0; i < ST_COUNT; i++) {
        rc = s->trims & (1u << i) ? run_stmt(s, (enum store_stmt)i, NULL, 0, "cannot write", e)
                                  : 0;
        if (rc < 0) {
            return rc;
        }
    }
    struct val number = { .num = s->batch + 1 };
    rc = run_stmt(s, ST_BATCH, &number, 1, "cannot write", e);
    return rc < 0 ? rc : store_sql_exec(s->db, "COMMIT", e);
}

/* Opens again and reads which batch the file holds. */
static int reopen(struct store *s, int64_t *found, struct err *e)
{
    close_db(s);
    s->db = store_sql_open(s->path, s->vfs, e);
    if (!s->db) {
        return e->code;
    }
    /* The checkpoint syncs the log before it copies: what we are about to believe is durable. */
    int rc = store_sql_exec(s->db, "PRAGMA wal_checkpoint(TRUNCATE)", e);
    if (rc == 0) {
        rc = store_sql_int(s->db, "SELECT value FROM meta WHERE key = 'batch'", -1, found, e);
    }
    if (rc < 0) {
        close_db(s);
    }
    return rc;
}

static void set_health(struct store *s, enum store_health h, const char *why)
{
    pthread_mutex_lock(&s->lock);
    s->health = h;
    str_copy(s->why, sizeof(s->why), why);
    pthread_mutex_unlock(&s->lock);
}

/* After a batch failed with `e`: 1 when it is in the file after all, else a negative code. */
static int settle(struct store *s, struct err *e)
{
    if (s->db && !sqlite3_get_autocommit(s->db)) {
        forget_statements(s);
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    }
    if (e->code == -ENOSPC || e->code == -EBUSY || e->code == -EEXIST) {
        return e->code;
    }
    int64_t found = -1;
    for (unsigned i = 0; i < 5; i++) {
        struct err why = ERR_INIT;
        if (reopen(s, &found, &why) == 0) {
            s->poisoned = false;
            set_health(s, STORE_OK, "");
            return found == s->batch + 1 ? 1 : e->code;
        }
        usleep(s->retry_us << i);
    }
    s->poisoned = true;
    set_health(s, STORE_FAILED, e->msg);
    return e->code;
}

/* A poisoned store: writable again only when the doubtful batch is known not to be in the file
 * (its callers were told that it failed). */
static int unpoison(struct store *s, struct err *e)
{
    int64_t found = -1;
    struct err why = ERR_INIT;
    if (reopen(s, &found, &why) == 0 && found == s->batch) {
        s->poisoned = false;
        set_health(s, STORE_OK, "");
        return 0;
    }
    return err_set(
        e, -EIO,
        "store: refused, an earlier write failed and what it left cannot be told (%s); "
        "mend the disk under the store, then restart vmd",
        why.code ? why.msg : "the failed write is in the file");
}

static void fail_all(struct list *txs, const struct err *e)
{
    list_for_each (n, txs) {
        struct store_tx *tx = list_entry(n, struct store_tx, link);
        tx->failed = true;
        tx->e = *e;
    }
}

static void write_batch(struct store *s, struct list *txs)
{
    struct err e = ERR_INIT;
    if (s->poisoned && unpoison(s, &e) < 0) {
        fail_all(txs, &e);
        return;
    }
    int rc = run_batch(s, txs, &e);
    if (rc < 0) {
        rc = settle(s, &e);
        if (rc < 0) {
            fail_all(txs, &e);
            return;
        }
    }
    s->batch++;
}

static void *writer_main(void *arg)
{
    struct store *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (list_empty(&s->queue) && !s->quit) {
            pthread_cond_wait(&s->wake, &s->lock);
        }
        if (list_empty(&s->queue)) {
            break;
        }
        struct list txs;
        list_init(&txs);
        for (unsigned i = 0; i < BATCH_MAX && !list_empty(&s->queue); i++) {
            struct list *n = s->queue.next;
            list_remove(n);
            list_append(&txs, n);
        }
        s->busy = true;
        pthread_mutex_unlock(&s->lock);
        write_batch(s, &txs);
        pthread_mutex_lock(&s->lock);
        while (!list_empty(&txs)) {
            struct list *n = txs.next;
            list_remove(n);
            list_append(&s->done, n);
        }
        s->busy = false;
        pthread_cond_broadcast(&s->idle);
        if (s->loop && !s->quit) {
            loop_post(s->loop, deliver, s);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

sqlite3 *store_sql_reader(const struct store *s, struct err *e)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(s->path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, s->vfs);
    if (rc != SQLITE_OK) {
        store_sql_err(db, rc, "cannot open for reading", e);
        sqlite3_close(db);
        return NULL;
    }
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, 5000);
    return db;
}

/* ---- the check after an unclean shutdown ---- */

static void check_read(struct store *s, sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &st, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(st);
    }
    const char *text = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : NULL;
    if (rc == SQLITE_INTERRUPT) {
        log_info("daemon", "store: check interrupted by shutdown");
    } else if (text && strcmp(text, "ok") == 0) {
        log_info("daemon", "store: check after the unclean shutdown found no damage");
        set_health(s, STORE_OK, "");
    } else {
        set_health(s, STORE_DAMAGED, text ? text : sqlite3_errmsg(db));
        log_error("daemon", "store: %s is damaged: %s; restore it from a backup", s->path,
                  text ? text : sqlite3_errmsg(db));
    }
    sqlite3_finalize(st);
}

static void *check_main(void *arg)
{
    struct store *s = arg;
    struct err e = ERR_INIT;
    sqlite3 *db = store_sql_reader(s, &e);
    if (!db) {
        log_error("daemon", "%s", e.msg);
    }
    pthread_mutex_lock(&s->lock);
    s->check_db = s->quit ? NULL : db;
    bool go = s->check_db != NULL;
    pthread_mutex_unlock(&s->lock);
    if (go) {
        check_read(s, db);
    }
    pthread_mutex_lock(&s->lock);
    s->check_db = NULL;
    pthread_mutex_unlock(&s->lock);
    sqlite3_close(db);
    return NULL;
}

/* ---- open and close ---- */

/* A new file is durable only when its folder entry is. */
static int sync_folder(const char *path, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(path);
    const char *dir = dirname(copy);
    AUTO_FD fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0) {
        return err_errno(e, errno, "store: cannot sync folder %s", dir);
    }
    return 0;
}

static int open_read_meta(struct store *s, struct store_info *info, struct err *e)
{
    int64_t clean = 1;
    int rc = store_sql_migrate(s->db, &info->migrated_from, e);
    if (rc == 0) {
        rc = store_sql_int(s->db, "SELECT value FROM meta WHERE key = 'clean'", 1, &clean, e);
    }
    if (rc == 0) {
        rc = store_sql_int(s->db, "SELECT value FROM meta WHERE key = 'batch'", 0, &s->batch,
                           e);
    }
    if (rc == 0) {
        rc = store_sql_exec(s->db, "UPDATE meta SET value = 0 WHERE key = 'clean'", e);
    }
    info->unclean = clean == 0;
    return rc;
}

static int open_db(struct store *s, struct store_info *info, struct err *e)
{
    info->created = access(s->path, F_OK) != 0;
    mode_t old = umask(077);
    s->db = store_sql_open(s->path, s->vfs, e);
    umask(old);
    if (!s->db) {
        return e->code;
    }
    int rc = open_read_meta(s, info, e);
    if (rc == 0 && info->created) {
        rc = sync_folder(s->path, e);
    }
    return rc;
}

static void store_free(struct store *s)
{
    close_db(s);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->idle);
    free(s->path);
    free(s->vfs);
    free(s);
}

struct store *store_open(const struct store_opts *opts, struct store_info *info, struct err *e)
{
    struct store_info scratch = { 0 };
    struct err local = ERR_INIT;
    info = info ? info : &scratch;
    e = e ? e : &local;
    *info = (struct store_info){ 0 };
    struct store *s = xnew(struct store);
    s->path = xstrdup(opts->path);
    s->vfs = opts->vfs ? xstrdup(opts->vfs) : NULL;
    s->loop = opts->loop;
    s->retry_us = opts->retry_us ? opts->retry_us : 20000;
    list_init(&s->queue);
    list_init(&s->done);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    pthread_cond_init(&s->idle, NULL);
    if (open_db(s, info, e) < 0) {
        store_free(s);
        return NULL;
    }
    s->health = info->unclean ? STORE_CHECKING : STORE_OK;
    int rc = pthread_create(&s->writer, NULL, writer_main, s);
    if (rc != 0) {
        err_errno(e, rc, "store: cannot start its thread");
        store_free(s);
        return NULL;
    }
    if (info->unclean) {
        s->checking_thread = pthread_create(&s->checker, NULL, check_main, s) == 0;
    }
    return s;
}

static void mark_clean(struct store *s)
{
    struct err e = ERR_INIT;
    int rc = s->db && !s->poisoned
                 ? store_sql_exec(s->db, "BEGIN IMMEDIATE", &e)
                 : err_set(&e, -EIO, "store: not marked clean after a failed write");
    if (rc == 0) {
        AUTO_FREE char *sql = xasprintf("UPDATE meta SET value = max(value, %lld) "
                                        "WHERE key = 'next_event';"
                                        "UPDATE meta SET value = 1 WHERE key = 'clean'; COMMIT",
                                        (long long)s->max_event + 1);
        rc = store_sql_exec(s->db, sql, &e);
    }
    if (rc < 0) {
        log_error("daemon", "%s", e.msg);
    }
}

void store_close(struct store *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    if (s->check_db) {
        sqlite3_interrupt(s->check_db);
    }
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->writer, NULL);
    if (s->checking_thread) {
        pthread_join(s->checker, NULL);
    }
    deliver(s);
    /* A completion may have queued more; nobody is left to write it, so it is told so. */
    struct err gone = ERR_INIT;
    err_set(&gone, -ESHUTDOWN, "store: vmd is shutting down; call again once it is back");
    while (!list_empty(&s->queue)) {
        fail_all(&s->queue, &gone);
        struct list *n = s->queue.next;
        list_remove(n);
        list_append(&s->done, n);
        deliver(s);
    }
    mark_clean(s);
    store_free(s);
}

enum store_health store_health(struct store *s, char *why, unsigned size)
{
    pthread_mutex_lock(&s->lock);
    enum store_health h = s->health;
    if (why) {
        str_copy(why, size, s->why);
    }
    pthread_mutex_unlock(&s->lock);
    return h;
}
