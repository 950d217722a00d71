/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The schema of the store, as a table of migrations: entry n is the list of statements that takes
 * version n to n + 1, in one transaction. Forward only. An entry that was released is never edited:
 * add the next one, raise STORE_SCHEMA, and put what the released program writes into
 * tests/unit/store/ so that the step from it stays tested. Owns no state.
 */
#include "daemon/store/store.h"
#include "daemon/store/sql.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>

/* "vmd1": tells our files from those of other programs. Version 1 did not set it. */
#define APPLICATION_ID 0x766d6431
#define STR_(x) #x
#define STR(x) STR_(x)

/* clang-format off */
static const char *const to_1[] = {
    "CREATE TABLE meta(key TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT "
    "ROWID",
    "INSERT INTO meta VALUES('batch', 0), ('clean', 1), ('next_event', 1)",
    "CREATE TABLE vms(id INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, "
    "name TEXT NOT NULL UNIQUE, config TEXT NOT NULL, owner INTEGER NOT NULL, "
    "transient INTEGER NOT NULL, created_ns INTEGER NOT NULL, changed_ns INTEGER NOT "
    "NULL)",
    "CREATE TABLE runtime(vm INTEGER PRIMARY KEY REFERENCES vms(id) ON DELETE CASCADE, "
    "cookie TEXT NOT NULL UNIQUE, boot_id TEXT NOT NULL, since_ns INTEGER NOT NULL, "
    "pid INTEGER NOT NULL, start_time INTEGER NOT NULL, mon_pid INTEGER NOT NULL, "
    "mon_start INTEGER NOT NULL)",
    "CREATE TABLE jobs(id INTEGER PRIMARY KEY AUTOINCREMENT, owner INTEGER NOT NULL, "
    "active INTEGER NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE events(seq INTEGER PRIMARY KEY, type TEXT NOT NULL, vm TEXT NOT "
    "NULL, body TEXT NOT NULL)",
    "CREATE TABLE exits(id INTEGER PRIMARY KEY AUTOINCREMENT, vm INTEGER NOT NULL, "
    "uuid TEXT NOT NULL, name TEXT NOT NULL, cookie TEXT NOT NULL UNIQUE, pid INTEGER "
    "NOT NULL, started_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL, status INTEGER "
    "NOT NULL, signal INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL)",
    "CREATE INDEX exits_vm ON exits(vm)",
    "CREATE TABLE idem(id INTEGER PRIMARY KEY AUTOINCREMENT, uid INTEGER NOT NULL, key "
    "TEXT NOT NULL, method TEXT NOT NULL, args_hash TEXT NOT NULL, reply TEXT NOT "
    "NULL, time_ns INTEGER NOT NULL, UNIQUE(uid, key))",
    "CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT "
    "NULL, uid INTEGER NOT NULL, pid INTEGER NOT NULL, method TEXT NOT NULL, object "
    "TEXT NOT NULL, outcome TEXT NOT NULL)",
    "CREATE TRIGGER audit_append_only BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, "
    "'the audit trail is append-only'); END",
    NULL,
};
/* clang-format on */

/* Definitions of every other kind (networks, pools, snapshots, profiles, quotas) are rows of
 * `objects`: kind, what they belong to ('' or a UUID), name, body as JSON. */
static const char *const to_2[] = {
    "PRAGMA application_id = " STR(APPLICATION_ID),
    "CREATE TABLE objects(id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, "
    "scope TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, "
    "changed_ns INTEGER NOT NULL, UNIQUE(kind, scope, name))",
    /* What must outlive the daemon and is no object: e.g. the boot that was autostarted. */
    /* Who by name, where a uid does not say it: users of TLS, connections that were refused. */
    "ALTER TABLE audit ADD COLUMN who TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE facts(key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID",
    NULL,
};

static const char *const *const migrations[STORE_SCHEMA] = { to_1, to_2 };

static int set_version(sqlite3 *db, int version, struct err *e)
{
    char sql[64];
    snprintf(sql, sizeof(sql), "PRAGMA user_version = %d", version);
    return store_sql_exec(db, sql, e);
}

static int run_steps(sqlite3 *db, int version, struct err *e)
{
    for (const char *const *sql = migrations[version]; *sql; sql++) {
        int rc = store_sql_exec(db, *sql, e);
        if (rc < 0) {
            return rc;
        }
    }
    return set_version(db, version + 1, e);
}

static int one_version(sqlite3 *db, int version, struct err *e)
{
    int rc = store_sql_exec(db, "BEGIN IMMEDIATE", e);
    if (rc < 0) {
        return rc;
    }
    rc = run_steps(db, version, e);
    if (rc == 0) {
        rc = store_sql_exec(db, "COMMIT", e);
    }
    if (rc < 0) {
        if (!sqlite3_get_autocommit(db)) {
            store_sql_exec(db, "ROLLBACK", NULL);
        }
        err_prefix(e, "migration from schema %d to %d", version, version + 1);
    }
    return rc;
}

/* A database with tables but without our version belongs to somebody else. */
static int check_ours(sqlite3 *db, int64_t version, struct err *e)
{
    int64_t id = 0, tables = 0;
    int rc = store_sql_int(db, "PRAGMA application_id", 0, &id, e);
    if (rc == 0) {
        rc = store_sql_int(db, "SELECT count(*) FROM sqlite_schema", 0, &tables, e);
    }
    if (rc < 0) {
        return rc;
    }
    bool ours = version == 0 ? tables == 0 && id == 0 : version == 1 || id == APPLICATION_ID;
    if (!ours) {
        return err_set(
            e, -EPROTONOSUPPORT,
            "store: the file is the database of another program; give another --store");
    }
    return 0;
}

int store_sql_migrate(sqlite3 *db, int *from, struct err *e)
{
    int64_t version;
    int rc = store_sql_int(db, "PRAGMA user_version", 0, &version, e);
    if (rc < 0) {
        return rc;
    }
    if (version > STORE_SCHEMA || version < 0) {
        return err_set(e, -EPROTONOSUPPORT,
                       "store: its schema is version %lld, this vmd knows up to %d; start the "
                       "newer vmd that wrote it",
                       (long long)version, STORE_SCHEMA);
    }
    rc = check_ours(db, version, e);
    for (int64_t v = version; rc == 0 && v < STORE_SCHEMA; v++) {
        rc = one_version(db, (int)v, e);
    }
    *from = version < STORE_SCHEMA ? (int)version : 0;
    return rc;
}
