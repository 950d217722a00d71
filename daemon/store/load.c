/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon reads from the store, once, at start: a connection of its own, closed when the
 * rows are in memory. Owns nothing. Called on the loop's thread.
 */
#include "daemon/store/store.h"

#include "daemon/store/sql.h"
#include "engine/base/mem.h"

#include <errno.h>

/* One row handed on: `to` is a struct sink of the right kind. */
struct sink {
    void (*each)(const struct sink *to, sqlite3_stmt *st);
    void (*vm)(void *arg, const struct store_vm *);
    void (*run)(void *arg, const struct store_run *);
    void (*job)(void *arg, const struct store_job *);
    void (*event)(void *arg, const struct store_event *);
    void (*exit)(void *arg, const struct store_exit *);
    void (*idem)(void *arg, const struct store_idem *);
    void (*object)(void *arg, const struct store_object *);
    void *arg;
};

static const char *text(sqlite3_stmt *st, int col)
{
    const char *t = (const char *)sqlite3_column_text(st, col);
    return t ? t : "";
}

static int load(struct store *s, const char *sql, const struct sink *to, struct err *e)
{
    sqlite3 *db = store_sql_reader(s, e);
    if (!db) {
        return -EIO;
    }
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK) {
        while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
            to->each(to, st);
        }
    }
    int code = rc == SQLITE_DONE ? 0 : store_sql_err(db, rc, "cannot load", e);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return code;
}

static void each_vm(const struct sink *to, sqlite3_stmt *st)
{
    struct store_vm row = {
        .id = sqlite3_column_int64(st, 0),
        .uuid = text(st, 1),
        .name = text(st, 2),
        .config = text(st, 3),
        .owner = sqlite3_column_int64(st, 4),
        .transient = sqlite3_column_int(st, 5) != 0,
        .created_ns = sqlite3_column_int64(st, 6),
        .changed_ns = sqlite3_column_int64(st, 7),
    };
    to->vm(to->arg, &row);
}

int store_load_vms(struct store *s, void (*fn)(void *arg, const struct store_vm *), void *arg,
                   struct err *e)
{
    struct sink to = { .each = each_vm, .vm = fn, .arg = arg };
    return load(s,
                "SELECT id, uuid, name, config, owner, transient, created_ns, changed_ns "
                "FROM vms ORDER BY id",
                &to, e);
}

static void each_run(const struct sink *to, sqlite3_stmt *st)
{
    struct store_run row = {
        .vm = sqlite3_column_int64(st, 0),
        .cookie = text(st, 1),
        .boot_id = text(st, 2),
        .since_ns = sqlite3_column_int64(st, 3),
        .pid = sqlite3_column_int64(st, 4),
        .start_time = sqlite3_column_int64(st, 5),
        .mon_pid = sqlite3_column_int64(st, 6),
        .mon_start = sqlite3_column_int64(st, 7),
    };
    to->run(to->arg, &row);
}

int store_load_runs(struct store *s, void (*fn)(void *arg, const struct store_run *), void *arg,
                    struct err *e)
{
    struct sink to = { .each = each_run, .run = fn, .arg = arg };
    return load(s,
                "SELECT vm, cookie, boot_id, since_ns, pid, start_time, mon_pid, mon_start "
                "FROM runtime ORDER BY vm",
                &to, e);
}

static void each_job(const struct sink *to, sqlite3_stmt *st)
{
    struct store_job row = {
        .id = sqlite3_column_int64(st, 0),
        .owner = sqlite3_column_int64(st, 1),
        .active = sqlite3_column_int(st, 2) != 0,
        .body = text(st, 3),
    };
    to->job(to->arg, &row);
}

int store_load_jobs(struct store *s, void (*fn)(void *arg, const struct store_job *), void *arg,
                    struct err *e)
{
    struct sink to = { .each = each_job, .job = fn, .arg = arg };
    return load(s,
                "SELECT id, owner, active, body "
                "FROM jobs ORDER BY id",
                &to, e);
}

static void each_event(const struct sink *to, sqlite3_stmt *st)
{
    struct store_event row = {
        .seq = sqlite3_column_int64(st, 0),
        .type = text(st, 1),
        .vm = text(st, 2),
        .body = text(st, 3),
    };
    to->event(to->arg, &row);
}

int store_load_events(struct store *s, void (*fn)(void *arg, const struct store_event *),
                      void *arg, struct err *e)
{
    struct sink to = { .each = each_event, .event = fn, .arg = arg };
    return load(s,
                "SELECT seq, type, vm, body "
                "FROM events ORDER BY seq",
                &to, e);
}

static void each_exit(const struct sink *to, sqlite3_stmt *st)
{
    struct store_exit row = {
        .vm = sqlite3_column_int64(st, 0),
        .uuid = text(st, 1),
        .name = text(st, 2),
        .cookie = text(st, 3),
        .pid = sqlite3_column_int64(st, 4),
        .started_ns = sqlite3_column_int64(st, 5),
        .ended_ns = sqlite3_column_int64(st, 6),
        .status = sqlite3_column_int(st, 7),
        .signal = sqlite3_column_int(st, 8),
        .reason = text(st, 9),
        .message = text(st, 10),
    };
    to->exit(to->arg, &row);
}

int store_load_exits(struct store *s, void (*fn)(void *arg, const struct store_exit *),
                     void *arg, struct err *e)
{
    struct sink to = { .each = each_exit, .exit = fn, .arg = arg };
    return load(s,
                "SELECT vm, uuid, name, cookie, pid, started_ns, ended_ns, status, signal, "
                "reason, message "
                "FROM exits ORDER BY id",
                &to, e);
}

static void each_idem(const struct sink *to, sqlite3_stmt *st)
{
    struct store_idem row = {
        .uid = sqlite3_column_int64(st, 0),
        .key = text(st, 1),
        .method = text(st, 2),
        .args_hash = text(st, 3),
        .reply = text(st, 4),
        .time_ns = sqlite3_column_int64(st, 5),
    };
    to->idem(to->arg, &row);
}

int store_load_idem(struct store *s, void (*fn)(void *arg, const struct store_idem *),
                    void *arg, struct err *e)
{
    struct sink to = { .each = each_idem, .idem = fn, .arg = arg };
    return load(s,
                "SELECT uid, key, method, args_hash, reply, time_ns "
                "FROM idem ORDER BY id",
                &to, e);
}

static void each_object(const struct sink *to, sqlite3_stmt *st)
{
    struct store_object row = {
        .kind = text(st, 0),
        .scope = text(st, 1),
        .name = text(st, 2),
        .body = text(st, 3),
        .changed_ns = sqlite3_column_int64(st, 4),
    };
    to->object(to->arg, &row);
}

int store_load_objects(struct store *s, void (*fn)(void *arg, const struct store_object *),
                       void *arg, struct err *e)
{
    struct sink to = { .each = each_object, .object = fn, .arg = arg };
    return load(s,
                "SELECT kind, scope, name, body, changed_ns "
                "FROM objects ORDER BY id",
                &to, e);
}

char *store_fact(struct store *s, const char *key)
{
    struct err e = ERR_INIT;
    sqlite3 *db = store_sql_reader(s, &e);
    sqlite3_stmt *st = NULL;
    char *value = NULL;
    if (db &&
        sqlite3_prepare_v2(db, "SELECT value FROM facts WHERE key = ?1", -1, &st, NULL) ==
            SQLITE_OK &&
        sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC) == SQLITE_OK &&
        sqlite3_step(st) == SQLITE_ROW) {
        value = xstrdup(text(st, 0));
    }
    sqlite3_finalize(st);
    sqlite3_close(db);
    return value;
}

int store_next_ids(struct store *s, int64_t *vm, int64_t *job, int64_t *event, struct err *e)
{
    sqlite3 *db = store_sql_reader(s, e);
    if (!db) {
        return -EIO;
    }
    int64_t v = 0, j = 0, ev = 0, kept = 0;
    int rc = store_sql_int(db, "SELECT seq FROM sqlite_sequence WHERE name = 'vms'", 0, &v, e);
    if (rc == 0) {
        rc = store_sql_int(db, "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'", 0, &j, e);
    }
    if (rc == 0) {
        rc = store_sql_int(db, "SELECT max(seq) FROM events", 0, &ev, e);
    }
    if (rc == 0) {
        rc = store_sql_int(db, "SELECT value FROM meta WHERE key = 'next_event'", 1, &kept, e);
    }
    sqlite3_close(db);
    if (rc == 0) {
        *vm = v + 1;
        *job = j + 1;
        *event = ev + 1 > kept ? ev + 1 : kept;
    }
    return rc;
}

int store_audit_page(struct store *s, int64_t before, unsigned limit, const char *method,
                     const char *who, void (*fn)(void *arg, const struct store_audit *),
                     void *arg, struct err *e)
{
    sqlite3 *db = store_sql_reader(s, e);
    sqlite3_stmt *st = NULL;
    if (!db) {
        return -EIO;
    }
    int rc = sqlite3_prepare_v2(
        db,
        "SELECT id, time_ns, uid, pid, method, object, outcome, who FROM audit "
        "WHERE (?1 = 0 OR id < ?1) AND (?2 = '' OR method = ?2) AND (?3 = '' OR who = ?3) "
        "ORDER BY id DESC LIMIT ?4",
        -1, &st, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_int64(st, 1, before);
        sqlite3_bind_text(st, 2, method, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 3, who, -1, SQLITE_STATIC);
        sqlite3_bind_int64(st, 4, limit);
        while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
            struct store_audit row = { .id = sqlite3_column_int64(st, 0),
                                       .time_ns = sqlite3_column_int64(st, 1),
                                       .uid = sqlite3_column_int64(st, 2),
                                       .pid = sqlite3_column_int64(st, 3),
                                       .method = text(st, 4),
                                       .object = text(st, 5),
                                       .outcome = text(st, 6),
                                       .who = text(st, 7) };
            fn(arg, &row);
        }
    }
    int code = rc == SQLITE_DONE ? 0 : store_sql_err(db, rc, "cannot read the audit", e);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return code;
}
