/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store's statements and migrations as data. Private to the store's files.
 */
#ifndef VMD_DAEMON_STORE_SQL_H
#define VMD_DAEMON_STORE_SQL_H

#include "engine/base/err.h"

#include <sqlite3.h>
#include <stdint.h>

struct store;

enum store_stmt {
    ST_BATCH,
    ST_VM_PUT,
    ST_VM_DEL,
    ST_RUN_PUT,
    ST_RUN_DEL,
    ST_JOB_PUT,
    ST_JOB_TRIM,
    ST_EVENT_PUT,
    ST_EVENT_TRIM,
    ST_EXIT_PUT,
    ST_EXIT_TRIM,
    ST_IDEM_PUT,
    ST_IDEM_TRIM,
    ST_AUDIT_PUT,
    ST_AUDIT_TRIM,
    ST_OBJECT_PUT,
    ST_OBJECT_DEL,
    ST_FACT_PUT,
    ST_SAVE,
    ST_SAVE_UNDO,
    ST_SAVE_END,
    ST_COUNT
};

extern const char *const store_stmt_sql[ST_COUNT];

/* Opens with the settings the store relies on. NULL on failure. */
sqlite3 *store_sql_open(const char *path, const char *vfs, struct err *e);
/* migrate.c: brings the schema up, each version in a transaction of its own; *from gets the
 * version found when it was older, else 0. Refuses a newer one, and a file of another program. */
int store_sql_migrate(sqlite3 *db, int *from, struct err *e);
int store_sql_exec(sqlite3 *db, const char *sql, struct err *e);
/* First column of the first row, or `missing` when there is none. */
int store_sql_int(sqlite3 *db, const char *sql, int64_t missing, int64_t *out, struct err *e);
/* Sets e from the connection's last error; returns a negative errno. */
int store_sql_err(sqlite3 *db, int rc, const char *doing, struct err *e);

/* A read-only connection of the caller's own to the same file (store.c). NULL on failure. */
sqlite3 *store_sql_reader(const struct store *s, struct err *e);

#endif
