/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening what former versions wrote: the file of each schema as the SQL that makes it, frozen on the
 * day it was released. Every row must be there after the migration, the schema must be that of a
 * new file, and a migration that fails anywhere leaves the old version or the new one, whole.
 */
#include "daemon/store/store.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"
#include "tests/unit/daemon_faultvfs.h"
#include "tests/unit/daemon_suites.h"

#include <sqlite3.h>
#include <unistd.h>

/* clang-format off */
static const char file_1[] =
    "PRAGMA journal_mode = WAL;"
    "CREATE TABLE meta(key TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT "
    "ROWID;"
    "INSERT INTO meta VALUES('batch', 0), ('clean', 1), ('next_event', 1);"
    "CREATE TABLE vms(id INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, "
    "name TEXT NOT NULL UNIQUE, config TEXT NOT NULL, owner INTEGER NOT NULL, transient "
    "INTEGER NOT NULL, created_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL);"
    "CREATE TABLE runtime(vm INTEGER PRIMARY KEY REFERENCES vms(id) ON DELETE CASCADE, "
    "cookie TEXT NOT NULL UNIQUE, boot_id TEXT NOT NULL, since_ns INTEGER NOT NULL, pid "
    "INTEGER NOT NULL, start_time INTEGER NOT NULL, mon_pid INTEGER NOT NULL, mon_start "
    "INTEGER NOT NULL);"
    "CREATE TABLE jobs(id INTEGER PRIMARY KEY AUTOINCREMENT, owner INTEGER NOT NULL, "
    "active INTEGER NOT NULL, body TEXT NOT NULL);"
    "CREATE TABLE events(seq INTEGER PRIMARY KEY, type TEXT NOT NULL, vm TEXT NOT NULL, "
    "body TEXT NOT NULL);"
    "CREATE TABLE exits(id INTEGER PRIMARY KEY AUTOINCREMENT, vm INTEGER NOT NULL, uuid "
    "TEXT NOT NULL, name TEXT NOT NULL, cookie TEXT NOT NULL UNIQUE, pid INTEGER NOT "
    "NULL, started_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL, status INTEGER NOT "
    "NULL, signal INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL);"
    "CREATE INDEX exits_vm ON exits(vm);"
    "CREATE TABLE idem(id INTEGER PRIMARY KEY AUTOINCREMENT, uid INTEGER NOT NULL, key "
    "TEXT NOT NULL, method TEXT NOT NULL, args_hash TEXT NOT NULL, reply TEXT NOT NULL, "
    "time_ns INTEGER NOT NULL, UNIQUE(uid, key));"
    "CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL, "
    "uid INTEGER NOT NULL, pid INTEGER NOT NULL, method TEXT NOT NULL, object TEXT NOT "
    "NULL, outcome TEXT NOT NULL);"
    "CREATE TRIGGER audit_append_only BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, "
    "'the audit trail is append-only'); END;"
    "INSERT INTO vms VALUES(3, '6e0a1e5e-2f6b-4f0c-9c53-0a3c1f7d9b11', 'a', '{}', 1000, "
    "0, 5, 6);"
    "INSERT INTO vms VALUES(9, '6e0a1e5e-2f6b-4f0c-9c53-0a3c1f7d9b12', 'b', '{}', 0, 1, "
    "5, 6);"
    "DELETE FROM vms WHERE id = 9;"
    "INSERT INTO runtime VALUES(3, 'c0', 'boot', 7, 11, 12, 13, 14);"
    "INSERT INTO jobs VALUES(2, 1000, 1, '{}');"
    "INSERT INTO events VALUES(40, 'vm-defined', '6e0a1e5e-2f6b-4f0c-9c53-0a3c1f7d9b11', "
    "'{}');"
    "INSERT INTO exits VALUES(1, 3, 'u', 'a', 'c9', 4, 5, 6, -1, 9, 'killed', '');"
    "INSERT INTO idem VALUES(1, 1000, 'k', 'vm.define', 'h', '{}', 8);"
    "INSERT INTO audit VALUES(1, 9, 1000, 77, 'vm.define', 'a', 'ok');"
    "UPDATE meta SET value = 17 WHERE key = 'batch';"
    "PRAGMA user_version = 1;";
/* clang-format on */

static const char *const files[STORE_SCHEMA - 1] = { file_1 };

static char dir[64], path[96], fresh[96];

static void setup(void)
{
    strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/vmd-migrate-XXXXXX"
                                              : "/tmp/vmd-migrate-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/vmd.db", dir);
    snprintf(fresh, sizeof(fresh), "%s/fresh.db", dir);
    fault_register();
}

static void remove_files(void)
{
    static const char *const names[] = { "vmd.db",         "vmd.db-wal", "vmd.db-shm",
                                         "vmd.db-journal", "fresh.db",   "fresh.db-wal",
                                         "fresh.db-shm" };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_FREE char *p = xasprintf("%s/%s", dir, names[i]);
        unlink(p);
    }
}

static void teardown(void)
{
    fault_disarm();
    remove_files();
    rmdir(dir);
}

static sqlite3 *db_open(const char *file)
{
    sqlite3 *db;
    ck_assert_int_eq(sqlite3_open(file, &db), SQLITE_OK);
    return db;
}

static void db_exec(const char *file, const char *sql)
{
    sqlite3 *db = db_open(file);
    ck_assert_msg(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s",
                  sqlite3_errmsg(db));
    sqlite3_close(db);
}

/* First value of a query as text, new memory. */
static char *db_text(const char *file, const char *sql)
{
    sqlite3 *db = db_open(file);
    sqlite3_stmt *st;
    ck_assert_msg(sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK, "%s",
                  sqlite3_errmsg(db));
    ck_assert_msg(sqlite3_step(st) == SQLITE_ROW, "%s", sqlite3_errmsg(db));
    const char *t = (const char *)sqlite3_column_text(st, 0);
    char *copy = xstrdup(t ? t : "");
    sqlite3_finalize(st);
    sqlite3_close(db);
    return copy;
}

#define SCHEMA                                                                                 \
    "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL " \
    "ORDER BY type, name)"
#define ROWS                                                                                   \
    "SELECT (SELECT group_concat(id || uuid || name || config || owner || transient) FROM "    \
    "vms)"                                                                                     \
    " || (SELECT group_concat(vm || cookie || boot_id || pid || mon_pid) FROM runtime)"        \
    " || (SELECT group_concat(id || active || body) FROM jobs)"                                \
    " || (SELECT group_concat(seq || type || vm || body) FROM events)"                         \
    " || (SELECT group_concat(id || cookie || signal || reason) FROM exits)"                   \
    " || (SELECT group_concat(uid || key || method || reply) FROM idem)"                       \
    " || (SELECT group_concat(id || time_ns || method || outcome) FROM audit)"                 \
    " || (SELECT value FROM meta WHERE key = 'batch')"

START_TEST(store_of_every_former_version_is_migrated_with_all_its_rows)
{
    struct store_info info;
    struct err e = ERR_INIT;
    int64_t vm, job, event;
    db_exec(path, files[_i]);
    AUTO_FREE char *before = db_text(path, ROWS);
    struct store *s = store_open(&(struct store_opts){ .path = path }, &info, &e);
    ck_assert_msg(s != NULL, "%s", e.msg);
    ck_assert_int_eq(info.migrated_from, _i + 1);
    ck_assert_int_eq(store_next_ids(s, &vm, &job, &event, NULL), 0);
    ck_assert_int_eq(vm, 10);
    ck_assert_int_eq(job, 3);
    ck_assert_int_eq(event, 41);
    store_close(s);
    AUTO_FREE char *after = db_text(path, ROWS);
    ck_assert_str_eq(before, after);
    store_close(store_open(&(struct store_opts){ .path = fresh }, &info, &e));
    AUTO_FREE char *want = db_text(fresh, SCHEMA);
    AUTO_FREE char *got = db_text(path, SCHEMA);
    ck_assert_str_eq(got, want);
    AUTO_FREE char *check = db_text(path, "PRAGMA integrity_check");
    ck_assert_str_eq(check, "ok");
    /* The second opening has nothing to do. */
    s = store_open(&(struct store_opts){ .path = path }, &info, &e);
    ck_assert_ptr_nonnull(s);
    ck_assert_int_eq(info.migrated_from, 0);
    store_close(s);
}
END_TEST

/* False when the migration has fewer points of failure. */
static bool fail_at(const char *file, int from, enum fault kind, int n)
{
    struct store_info info;
    remove_files();
    db_exec(path, file);
    AUTO_FREE char *before = db_text(path, ROWS);
    fault_arm(kind, n, true);
    struct store *s = store_open(
        &(struct store_opts){ .path = path, .vfs = "fault", .retry_us = 1 }, NULL, NULL);
    bool fired = fault_fired();
    fault_disarm();
    store_close(s);
    AUTO_FREE char *check = db_text(path, "PRAGMA integrity_check");
    ck_assert_str_eq(check, "ok");
    AUTO_FREE char *version = db_text(path, "PRAGMA user_version");
    ck_assert_msg(atoi(version) >= from && atoi(version) <= STORE_SCHEMA, "version %s",
                  version);
    AUTO_FREE char *has = db_text(
        path, "SELECT count(*) FROM sqlite_schema WHERE name IN ('objects', 'facts')");
    ck_assert_msg(atoi(has) == (atoi(version) >= 2 ? 2 : 0), "version %s has %s of 2 tables",
                  version, has);
    /* With the disk well again it goes through. */
    s = store_open(&(struct store_opts){ .path = path }, &info, NULL);
    ck_assert_ptr_nonnull(s);
    store_close(s);
    AUTO_FREE char *after = db_text(path, ROWS);
    ck_assert_str_eq(before, after);
    return fired;
}

START_TEST(store_migration_that_fails_anywhere_leaves_one_version_whole)
{
    unsigned points = 0;
    for (int kind = 0; kind < FAULT_KINDS; kind++) {
        for (int n = 1; fail_at(files[_i], _i + 1, (enum fault)kind, n); n++) {
            points++;
        }
    }
    ck_assert_uint_gt(points, 4);
}
END_TEST

START_TEST(store_database_of_another_program_is_refused_and_kept)
{
    static const char *const theirs[] = {
        "CREATE TABLE bookmarks(url TEXT)",
        "PRAGMA user_version = 2; CREATE TABLE bookmarks(url TEXT)",
        "PRAGMA application_id = 5; PRAGMA user_version = 0",
    };
    for (unsigned i = 0; i < ARRAY_LEN(theirs); i++) {
        struct err e = ERR_INIT;
        remove_files();
        db_exec(path, theirs[i]);
        AUTO_FREE char *before = db_text(path, "SELECT count(*) FROM sqlite_schema");
        ck_assert_ptr_null(store_open(&(struct store_opts){ .path = path }, NULL, &e));
        ck_assert_int_eq(e.code, -EPROTONOSUPPORT);
        ck_assert_ptr_nonnull(strstr(e.msg, "another program"));
        AUTO_FREE char *after = db_text(path, "SELECT count(*) FROM sqlite_schema");
        ck_assert_str_eq(before, after);
    }
}
END_TEST

struct seen {
    unsigned n;
    char text[128];
};

static void see(void *arg, const struct store_object *o)
{
    struct seen *seen = arg;
    seen->n++;
    snprintf(seen->text, sizeof(seen->text), "%s/%s/%s=%s", o->kind, o->scope, o->name,
             o->body);
}

static void no_failure(void *arg, const struct err *e)
{
    (void)arg;
    ck_assert_msg(e == NULL, "%s", e ? e->msg : "");
}

START_TEST(store_objects_and_facts_come_back)
{
    struct err e = ERR_INIT;
    struct seen seen = { 0 };
    struct store *s = store_open(&(struct store_opts){ .path = path }, NULL, &e);
    struct store_tx *tx = store_tx_new(s);
    struct store_object o = { .kind = "profile", .scope = "", .name = "small", .body = "{}" };
    store_tx_object_put(tx, &o);
    o.body = "{\"cpus\":2}";
    store_tx_object_put(tx, &o);
    o.name = "gone";
    store_tx_object_put(tx, &o);
    store_tx_object_del(tx, "profile", "", "gone");
    store_tx_fact_put(tx, "boot", "one");
    store_tx_fact_put(tx, "boot", "two");
    store_tx_commit(tx, no_failure, NULL);
    store_sync(s);
    store_close(s);
    s = store_open(&(struct store_opts){ .path = path }, NULL, &e);
    ck_assert_int_eq(store_load_objects(s, see, &seen, &e), 0);
    ck_assert_uint_eq(seen.n, 1);
    ck_assert_str_eq(seen.text, "profile//small={\"cpus\":2}");
    AUTO_FREE char *fact = store_fact(s, "boot");
    ck_assert_str_eq(fact, "two");
    ck_assert_ptr_null(store_fact(s, "never"));
    store_close(s);
}
END_TEST

Suite *suite_migrate(void)
{
    Suite *s = suite_create("daemon store: versions");
    TCase *t = tcase_create("versions");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, store_of_every_former_version_is_migrated_with_all_its_rows, 0,
                        (int)ARRAY_LEN(files));
    tcase_add_loop_test(t, store_migration_that_fails_anywhere_leaves_one_version_whole, 0,
                        (int)ARRAY_LEN(files));
    tcase_add_test(t, store_database_of_another_program_is_refused_and_kept);
    tcase_add_test(t, store_objects_and_facts_come_back);
    suite_add_tcase(s, t);
    return s;
}
