/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's SQL: the table of statements, and opening a connection with the settings durability
 * rests on (the schema is migrate.c's). Owns no state. Called by the thread that owns the
 * connection.
 */
#include "daemon/store/sql.h"

#include "daemon/store/store.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>

#define STR_(x) #x
#define STR(x) STR_(x)

const char *const store_stmt_sql[ST_COUNT] = {
    [ST_BATCH] = "INSERT INTO meta(key, value) VALUES('batch', ?1) "
                 "ON CONFLICT(key) DO UPDATE SET value = excluded.value",
    [ST_VM_PUT] =
        "INSERT INTO vms(id, uuid, name, config, owner, transient, created_ns, changed_ns) "
        "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT(id) DO UPDATE SET "
        "uuid = excluded.uuid, name = excluded.name, config = excluded.config, "
        "owner = excluded.owner, transient = excluded.transient, "
        "changed_ns = excluded.changed_ns",
    [ST_VM_DEL] = "DELETE FROM vms WHERE id = ?1",
    [ST_RUN_PUT] =
        "INSERT OR REPLACE INTO runtime(vm, cookie, boot_id, since_ns, pid, start_time, "
        "mon_pid, mon_start) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [ST_RUN_DEL] = "DELETE FROM runtime WHERE vm = ?1",
    [ST_JOB_PUT] =
        "INSERT INTO jobs(id, owner, active, body) VALUES(?1, ?2, ?3, ?4) "
        "ON CONFLICT(id) DO UPDATE SET active = excluded.active, body = excluded.body",
    [ST_JOB_TRIM] = "DELETE FROM jobs WHERE id <= ?1 - " STR(STORE_JOBS_KEPT) " AND active = 0",
    [ST_EVENT_PUT] = "INSERT INTO events(seq, type, vm, body) VALUES(?1, ?2, ?3, ?4)",
    [ST_EVENT_TRIM] = "DELETE FROM events WHERE seq <= ?1",
    [ST_EXIT_PUT] =
        "INSERT OR IGNORE INTO exits(vm, uuid, name, cookie, pid, started_ns, ended_ns, "
        "status, signal, reason, message) "
        "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    [ST_EXIT_TRIM] = "DELETE FROM exits WHERE id <= (SELECT max(id) FROM exits) "
                     "- " STR(STORE_EXITS_KEPT),
    [ST_IDEM_PUT] = "INSERT INTO idem(uid, key, method, args_hash, reply, time_ns) "
                    "VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [ST_IDEM_TRIM] = "DELETE FROM idem WHERE id <= (SELECT max(id) FROM idem) "
                     "- " STR(STORE_IDEM_KEPT),
    [ST_AUDIT_PUT] = "INSERT INTO audit(time_ns, uid, pid, method, object, outcome, who) "
                     "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [ST_AUDIT_TRIM] = "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) "
                      "- " STR(STORE_AUDIT_KEPT),
    [ST_OBJECT_PUT] =
        "INSERT INTO objects(kind, scope, name, body, changed_ns) VALUES(?1, ?2, ?3, ?4, ?5) "
        "ON CONFLICT(kind, scope, name) DO UPDATE SET body = excluded.body, "
        "changed_ns = excluded.changed_ns",
    [ST_OBJECT_DEL] = "DELETE FROM objects WHERE kind = ?1 AND scope = ?2 AND name = ?3",
    [ST_FACT_PUT] = "INSERT INTO facts(key, value) VALUES(?1, ?2) "
                    "ON CONFLICT(key) DO UPDATE SET value = excluded.value",
    [ST_SAVE] = "SAVEPOINT one",
    [ST_SAVE_UNDO] = "ROLLBACK TO one",
    [ST_SAVE_END] = "RELEASE one",
};

static int code_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return -EACCES;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EUCLEAN;
    case SQLITE_CANTOPEN:
        return -ENOENT;
    default:
        return -EIO;
    }
}

static const char *remedy_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return "; free space on the store's filesystem and call again";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return "; restore the store from a backup";
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        return "; check the owner and mode of the store and its folder";
    case SQLITE_IOERR:
        return "; check the disk (dmesg) under the store";
    default:
        return "";
    }
}

int store_sql_err(sqlite3 *db, int rc, const char *doing, struct err *e)
{
    return err_set(e, code_of(rc), "store: %s: %s (SQLite %d)%s", doing,
                   db ? sqlite3_errmsg(db) : sqlite3_errstr(rc),
                   db ? sqlite3_extended_errcode(db) : rc, remedy_of(rc));
}

int store_sql_exec(sqlite3 *db, const char *sql, struct err *e)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : store_sql_err(db, rc, "cannot execute a statement", e);
}

int store_sql_int(sqlite3 *db, const char *sql, int64_t missing, int64_t *out, struct err *e)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(st);
    }
    int64_t value = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : missing;
    int fin = sqlite3_finalize(st);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        return store_sql_err(db, rc, "cannot read", e);
    }
    if (fin != SQLITE_OK) {
        return store_sql_err(db, fin, "cannot read", e);
    }
    *out = value;
    return 0;
}

sqlite3 *store_sql_open(const char *path, const char *vfs, struct err *e)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(
        path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, vfs);
    if (rc != SQLITE_OK) {
        store_sql_err(db, rc, "cannot open", e);
        err_prefix(e, "%s", path);
        sqlite3_close(db);
        return NULL;
    }
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, 5000);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    if (store_sql_exec(db,
                       "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                       "PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 1000;"
                       "PRAGMA journal_size_limit = 16777216",
                       e) < 0) {
        err_prefix(e, "%s", path);
        sqlite3_close(db);
        return NULL;
    }
    return db;
}
