/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup and restore of the store. Owns nothing between calls. Threads: the caller's.
 */
#include "daemon/store/backup.h"

#include "daemon/store/store.h"
#include "daemon/store/sql.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_PAGES 256 /* between them the daemon's writer may write */
#define BUSY_TRIES 500

/* A VFS given and unknown means the system's: a name only tests use. */
static sqlite3 *open_db(const char *path, const char *vfs, int flags, struct err *e)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_NOMUTEX, vfs);
    if (rc != SQLITE_OK) {
        store_sql_err(db, rc, "cannot open", e);
        err_prefix(e, "%s", path);
        sqlite3_close(db);
        return NULL;
    }
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, 5000);
    return db;
}

static int sync_dir_of(const char *path, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(path);
    const char *dir = dirname(copy);
    AUTO_FD fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? err_errno(e, errno, "cannot sync folder '%s'", dir) : 0;
}

static int copy_pages(sqlite3 *from, sqlite3 *to, struct err *e)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
    if (!b) {
        return store_sql_err(to, sqlite3_errcode(to), "cannot begin the copy", e);
    }
    int rc, tries = 0;
    do {
        rc = sqlite3_backup_step(b, STEP_PAGES);
        if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED) {
            usleep(10000);
            tries++;
        }
    } while (rc == SQLITE_OK ||
             ((rc == SQLITE_BUSY || rc == SQLITE_LOCKED) && tries < BUSY_TRIES));
    int fin = sqlite3_backup_finish(b);
    rc = rc == SQLITE_DONE ? fin : rc;
    return rc == SQLITE_OK ? 0 : store_sql_err(to, rc, "cannot copy", e);
}

static int check_whole(sqlite3 *db, struct err *e)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &st, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(st);
    }
    const char *text = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : NULL;
    int code = 0;
    if (!text) {
        code = store_sql_err(db, rc, "cannot check the copy", e);
    } else if (strcmp(text, "ok") != 0) {
        code = err_set(e, -EUCLEAN, "store: the copy is damaged: %s", text);
    }
    sqlite3_finalize(st);
    return code;
}

/* The copy is a file of its own: no log beside it, for whoever carries it away. */
static int finish_copy(sqlite3 *db, struct store_copy *out, struct err *e)
{
    int64_t schema = 0;
    int rc = store_sql_exec(db, "PRAGMA journal_mode = DELETE", e);
    if (rc == 0) {
        rc = check_whole(db, e);
    }
    if (rc == 0) {
        rc = store_sql_int(db, "PRAGMA user_version", 0, &schema, e);
    }
    if (rc == 0) {
        rc = store_sql_int(db, "SELECT count(*) FROM vms", 0, &out->vms, e);
    }
    out->schema = (int)schema;
    return rc;
}

static int copy_to(sqlite3 *from, const char *tmp, const char *vfs, struct store_copy *out,
                   struct err *e)
{
    sqlite3 *to = open_db(tmp, vfs, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, e);
    if (!to) {
        return e->code;
    }
    int rc = store_sql_exec(to, "PRAGMA synchronous = FULL", e);
    if (rc == 0) {
        rc = copy_pages(from, to, e);
    }
    if (rc == 0) {
        rc = finish_copy(to, out, e);
    }
    if (sqlite3_close(to) != SQLITE_OK && rc == 0) {
        rc = err_set(e, -EIO, "store: cannot close the copy");
    }
    return rc;
}

/* A new, private, empty file beside `path`; its name in *tmp. */
static int make_tmp(const char *path, char **tmp, struct err *e)
{
    *tmp = xasprintf("%s.XXXXXX", path);
    int fd = mkostemp(*tmp, O_CLOEXEC);
    if (fd < 0) {
        return err_errno(e, errno, "cannot make a file beside '%s'", path);
    }
    close(fd);
    return 0;
}

static void remove_tmp(const char *tmp)
{
    AUTO_FREE char *journal = xasprintf("%s-journal", tmp);
    unlink(journal);
    unlink(tmp);
}

static int sync_file(const char *path, int64_t *bytes, struct err *e)
{
    struct stat st;
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0 || fstat(fd, &st) < 0) {
        return err_errno(e, errno, "cannot sync '%s'", path);
    }
    *bytes = st.st_size;
    return 0;
}

/* Gives it the name; without `overwrite` never in the place of another file, however late it came. */
static int give_name(const char *tmp, const char *to, bool overwrite, struct err *e)
{
    if (overwrite ? rename(tmp, to) < 0 : link(tmp, to) < 0) {
        return errno == EEXIST ? err_set(e, -EEXIST, "'%s' exists already", to)
                               : err_errno(e, errno, "cannot make '%s'", to);
    }
    if (!overwrite) {
        unlink(tmp);
    }
    return sync_dir_of(to, e);
}

int store_backup(const char *path, const char *vfs, const char *to, bool overwrite,
                 struct store_copy *out, struct err *e)
{
    AUTO_FREE char *tmp = NULL;
    if (!overwrite && access(to, F_OK) == 0) {
        return err_set(e, -EEXIST, "'%s' exists already", to);
    }
    sqlite3 *from = open_db(path, vfs, SQLITE_OPEN_READONLY, e);
    int rc = from ? make_tmp(to, &tmp, e) : e->code;
    if (rc == 0) {
        rc = copy_to(from, tmp, vfs, out, e);
        if (rc == 0) {
            rc = sync_file(tmp, &out->bytes, e);
        }
        if (rc == 0) {
            rc = give_name(tmp, to, overwrite, e);
        }
        if (rc < 0) {
            remove_tmp(tmp);
        }
    }
    sqlite3_close(from);
    return rc;
}

/* ---- restore ---- */

struct numbers {
    int64_t vm, job, event;
};

/* As far as the former store can be read; 0 otherwise. */
static void former_numbers(const char *path, struct numbers *n)
{
    *n = (struct numbers){ 0 };
    sqlite3 *db = open_db(path, NULL, SQLITE_OPEN_READWRITE, NULL);
    if (db) {
        store_sql_int(db, "SELECT seq FROM sqlite_sequence WHERE name = 'vms'", 0, &n->vm,
                      NULL);
        store_sql_int(db, "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'", 0, &n->job,
                      NULL);
        store_sql_int(db,
                      "SELECT max((SELECT coalesce(max(seq), 0) + 1 FROM events), "
                      "(SELECT value FROM meta WHERE key = 'next_event'))",
                      0, &n->event, NULL);
        sqlite3_close(db); /* folds its log in, so that the file alone is the former store */
    }
}

static int raise_numbers(const char *path, const struct numbers *n, struct err *e)
{
    sqlite3 *db = open_db(path, NULL, SQLITE_OPEN_READWRITE, e);
    if (!db) {
        return e->code;
    }
    AUTO_FREE char *sql = xasprintf(
        "BEGIN IMMEDIATE;"
        "INSERT INTO sqlite_sequence(name, seq) SELECT k, 0 FROM "
        "(SELECT 'vms' AS k UNION SELECT 'jobs') WHERE k NOT IN (SELECT name FROM "
        "sqlite_sequence);"
        "UPDATE sqlite_sequence SET seq = max(seq, %lld) WHERE name = 'vms';"
        "UPDATE sqlite_sequence SET seq = max(seq, %lld) WHERE name = 'jobs';"
        "UPDATE meta SET value = max(value, %lld) WHERE key = 'next_event'; COMMIT",
        (long long)n->vm, (long long)n->job, (long long)n->event);
    int rc = store_sql_exec(db, sql, e);
    if (sqlite3_close(db) != SQLITE_OK && rc == 0) {
        rc = err_set(e, -EIO, "store: cannot close the restored file");
    }
    return rc;
}

/* Is it one of ours, of a version we know? Migrated in the copy, so that a failure shows now. */
static int bring_up(const char *tmp, struct store_copy *out, struct err *e)
{
    int from = 0;
    sqlite3 *db = open_db(tmp, NULL, SQLITE_OPEN_READWRITE, e);
    int rc = db ? store_sql_migrate(db, &from, e) : e->code;
    if (rc == 0) {
        rc = check_whole(db, e);
    }
    if (rc == 0) {
        rc = store_sql_int(db, "SELECT count(*) FROM vms", 0, &out->vms, e);
    }
    out->schema = from ? from : STORE_SCHEMA;
    if (db && sqlite3_close(db) != SQLITE_OK && rc == 0) {
        rc = err_set(e, -EIO, "store: cannot close the restored file");
    }
    return rc;
}

static int check_backup(sqlite3 *db, struct err *e)
{
    int64_t tables = 0;
    int rc = store_sql_int(
        db, "SELECT count(*) FROM sqlite_schema WHERE name IN ('vms', 'meta')", 0, &tables, e);
    return rc < 0 || tables == 2 ? rc : err_set(e, -EUCLEAN, "it is no backup of vmd");
}

/* The former one and what lies beside it get out of the way, one name at a time: without its database a
 * log is nothing, so the database goes first. */
static int put_away(const char *path, struct err *e)
{
    static const char *const tails[] = { "", "-wal", "-shm" };
    for (unsigned i = 0; i < ARRAY_LEN(tails); i++) {
        AUTO_FREE char *from = xasprintf("%s%s", path, tails[i]);
        AUTO_FREE char *to = xasprintf("%s.before-restore%s", path, tails[i]);
        unlink(to);
        if (rename(from, to) < 0 && errno != ENOENT) {
            return err_errno(e, errno, "cannot rename '%s'", from);
        }
    }
    return 0;
}

int store_restore(const char *path, const char *from, struct store_copy *out, struct err *e)
{
    struct numbers n;
    AUTO_FREE char *tmp = NULL;
    sqlite3 *db = open_db(from, NULL, SQLITE_OPEN_READONLY, e);
    int rc = db ? check_backup(db, e) : e->code;
    if (rc == 0) {
        rc = make_tmp(path, &tmp, e);
    }
    if (rc < 0) {
        err_prefix(e, "backup '%s'", from);
        sqlite3_close(db);
        return rc;
    }
    former_numbers(path, &n);
    rc = copy_to(db, tmp, NULL, out, e);
    rc = rc < 0 ? rc : bring_up(tmp, out, e);
    rc = rc < 0 ? rc : raise_numbers(tmp, &n, e);
    rc = rc < 0 ? rc : sync_file(tmp, &out->bytes, e);
    rc = rc < 0 ? rc : put_away(path, e);
    if (rc == 0 && rename(tmp, path) < 0) {
        rc = err_errno(e, errno, "cannot rename '%s' to '%s'", tmp, path);
    }
    rc = rc < 0 ? rc : sync_dir_of(path, e);
    if (rc < 0) {
        remove_tmp(tmp);
    }
    sqlite3_close(db);
    return rc;
}
