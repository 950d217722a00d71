/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: durability, group commit, migration, and every write and sync of each mutating
 * transaction failing once and for ever, and every allocation of SQLite.
 */
#include "daemon/store/store.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"
#include "tests/unit/daemon_faultvfs.h"
#include "tests/unit/daemon_suites.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], path[96];

static void setup(void)
{
    /* Where a sync costs nothing: the fault tests make tens of thousands. */
    strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/vmd-store-XXXXXX"
                                              : "/tmp/vmd-store-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/vmd.db", dir);
    fault_register();
}

static void remove_files(const char *in)
{
    static const char *const names[] = { "vmd.db", "vmd.db-wal", "vmd.db-shm",
                                         "vmd.db-journal" };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_FREE char *p = xasprintf("%s/%s", in, names[i]);
        unlink(p);
    }
}

static void teardown(void)
{
    fault_disarm();
    remove_files(dir);
    rmdir(dir);
}

static struct store *open_ok(const char *vfs, struct store_info *info)
{
    struct err e = ERR_INIT;
    struct store *s = store_open(
        &(struct store_opts){ .path = path, .vfs = vfs, .retry_us = 1 }, info, &e);
    ck_assert_msg(s != NULL, "%s", e.msg);
    return s;
}

struct outcome {
    unsigned done, failed;
    struct err e;
};

static void note(void *arg, const struct err *e)
{
    struct outcome *o = arg;
    o->done++;
    if (e) {
        o->failed++;
        o->e = *e;
    }
}

static void put_vm(struct store_tx *tx, int64_t id, const char *name)
{
    AUTO_FREE char *uuid = xasprintf("uuid-%lld", (long long)id);
    store_tx_vm_put(tx, &(struct store_vm){ .id = id,
                                            .uuid = uuid,
                                            .name = name,
                                            .config = "{}",
                                            .owner = 1000,
                                            .created_ns = 5,
                                            .changed_ns = 6 });
}

/* Commits and waits; 0 or the negative code. */
static int commit(struct store *s, struct store_tx *tx)
{
    struct outcome o = { 0 };
    store_tx_commit(tx, note, &o);
    store_sync(s);
    ck_assert_uint_eq(o.done, 1);
    return o.failed ? o.e.code : 0;
}

static int64_t count(const char *file, const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *st;
    ck_assert_int_eq(sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    ck_assert_msg(sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK, "%s",
                  sqlite3_errmsg(db));
    ck_assert_msg(sqlite3_step(st) == SQLITE_ROW, "%s", sqlite3_errmsg(db));
    int64_t n = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return n;
}

static void check_whole(const char *file)
{
    ck_assert_int_eq(count(file, "SELECT count(*) FROM pragma_integrity_check "
                                 "WHERE integrity_check <> 'ok'"),
                     0);
    ck_assert_int_eq(count(file, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

/* ---- behaviour ---- */

static void count_vm(void *arg, const struct store_vm *row)
{
    unsigned *n = arg;
    (*n)++;
    ck_assert_str_eq(row->name, "a");
    ck_assert_int_eq(row->owner, 1000);
}

START_TEST(store_keeps_rows_across_reopening)
{
    struct store_info info;
    struct store *s = open_ok(NULL, &info);
    unsigned n = 0;
    int64_t vm, job, event;
    ck_assert(info.created && !info.unclean);
    struct store_tx *tx = store_tx_new(s);
    put_vm(tx, 7, "a");
    store_tx_event_put(tx, &(struct store_event){ .seq = 41, .body = "{}" });
    ck_assert_int_eq(commit(s, tx), 0);
    store_close(s);
    s = open_ok(NULL, &info);
    ck_assert(!info.created && !info.unclean && info.migrated_from == 0);
    ck_assert_int_eq(store_load_vms(s, count_vm, &n, NULL), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(store_next_ids(s, &vm, &job, &event, NULL), 0);
    ck_assert_int_eq(vm, 8);
    ck_assert_int_eq(event, 42);
    store_close(s);
}
END_TEST

START_TEST(store_never_reuses_the_number_of_a_deleted_vm)
{
    struct store *s = open_ok(NULL, NULL);
    struct store_tx *tx = store_tx_new(s);
    int64_t vm, job, event;
    put_vm(tx, 3, "a");
    ck_assert_int_eq(commit(s, tx), 0);
    tx = store_tx_new(s);
    store_tx_vm_del(tx, 3);
    ck_assert_int_eq(commit(s, tx), 0);
    ck_assert_int_eq(store_next_ids(s, &vm, &job, &event, NULL), 0);
    ck_assert_int_eq(vm, 4);
    store_close(s);
}
END_TEST

START_TEST(store_file_is_for_its_owner_only)
{
    struct stat st;
    store_close(open_ok(NULL, NULL));
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
}
END_TEST

START_TEST(store_one_bad_transaction_fails_alone_in_its_batch)
{
    struct store *s = open_ok(NULL, NULL);
    struct outcome good = { 0 }, bad = { 0 };
    for (int i = 1; i <= 50; i++) {
        struct store_tx *tx = store_tx_new(s);
        AUTO_FREE char *name = xasprintf("vm%d", i == 25 ? 24 : i); /* 25 takes 24's name */
        put_vm(tx, i, name);
        store_tx_job_put(tx, &(struct store_job){ .id = i, .body = "{}" });
        store_tx_commit(tx, note, i == 25 ? &bad : &good);
    }
    store_sync(s);
    ck_assert_uint_eq(good.done, 49);
    ck_assert_uint_eq(good.failed, 0);
    ck_assert_uint_eq(bad.failed, 1);
    ck_assert_int_eq(bad.e.code, -EEXIST);
    store_close(s);
    ck_assert_int_eq(count(path, "SELECT count(*) FROM vms"), 49);
    ck_assert_int_eq(count(path, "SELECT count(*) FROM jobs"), 49);
    check_whole(path);
}
END_TEST

START_TEST(store_transactions_are_decided_in_the_order_they_came)
{
    struct store *s = open_ok(NULL, NULL);
    for (int i = 1; i <= 200; i++) {
        struct store_tx *tx = store_tx_new(s);
        AUTO_FREE char *name = xasprintf("name%d", i);
        put_vm(tx, 1, name);
        store_tx_commit(tx, NULL, NULL);
    }
    store_close(s);
    ck_assert_int_eq(count(path, "SELECT name = 'name200' FROM vms"), 1);
}
END_TEST

START_TEST(store_deleting_a_vm_deletes_its_runtime_row)
{
    struct store *s = open_ok(NULL, NULL);
    struct store_tx *tx = store_tx_new(s);
    put_vm(tx, 1, "a");
    store_tx_run_put(tx, &(struct store_run){ .vm = 1, .cookie = "c", .boot_id = "b" });
    ck_assert_int_eq(commit(s, tx), 0);
    tx = store_tx_new(s);
    store_tx_vm_del(tx, 1);
    ck_assert_int_eq(commit(s, tx), 0);
    store_close(s);
    ck_assert_int_eq(count(path, "SELECT count(*) FROM runtime"), 0);
}
END_TEST

START_TEST(store_runtime_row_needs_its_vm)
{
    struct store *s = open_ok(NULL, NULL);
    struct store_tx *tx = store_tx_new(s);
    store_tx_run_put(tx, &(struct store_run){ .vm = 9, .cookie = "c", .boot_id = "b" });
    ck_assert_int_eq(commit(s, tx), -EEXIST);
    store_close(s);
}
END_TEST

START_TEST(store_records_an_exit_once_for_a_cookie)
{
    struct store *s = open_ok(NULL, NULL);
    for (int i = 0; i < 3; i++) {
        struct store_tx *tx = store_tx_new(s);
        store_tx_exit_put(
            tx, &(struct store_exit){
                    .vm = 1, .uuid = "u", .name = "a", .cookie = "same", .reason = "killed" });
        ck_assert_int_eq(commit(s, tx), 0);
    }
    store_close(s);
    ck_assert_int_eq(count(path, "SELECT count(*) FROM exits"), 1);
}
END_TEST

START_TEST(store_journal_is_bounded)
{
    struct store *s = open_ok(NULL, NULL);
    for (int i = 1; i <= STORE_EVENTS_KEPT + 500; i++) {
        struct store_tx *tx = store_tx_new(s);
        store_tx_event_put(
            tx, &(struct store_event){ .seq = i, .body = "{}", .drop = i - STORE_EVENTS_KEPT });
        store_tx_commit(tx, NULL, NULL);
    }
    store_close(s);
    ck_assert_int_eq(count(path, "SELECT count(*) FROM events"), STORE_EVENTS_KEPT);
    ck_assert_int_eq(count(path, "SELECT min(seq) FROM events"), 501);
}
END_TEST

START_TEST(store_audit_cannot_be_changed)
{
    struct store *s = open_ok(NULL, NULL);
    sqlite3 *db;
    struct store_tx *tx = store_tx_new(s);
    store_tx_audit_put(
        tx, &(struct store_audit){ .method = "vm.define", .object = "a", .outcome = "ok" });
    ck_assert_int_eq(commit(s, tx), 0);
    store_close(s);
    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    ck_assert_int_ne(sqlite3_exec(db, "UPDATE audit SET outcome = 'x'", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
}
END_TEST

START_TEST(store_of_a_newer_program_is_refused)
{
    struct err e = ERR_INIT;
    sqlite3 *db;
    store_close(open_ok(NULL, NULL));
    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    ck_assert_int_eq(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    ck_assert_ptr_null(store_open(&(struct store_opts){ .path = path }, NULL, &e));
    ck_assert_int_eq(e.code, -EPROTONOSUPPORT);
    ck_assert_ptr_nonnull(strstr(e.msg, "99"));
}
END_TEST

START_TEST(store_that_is_no_database_is_refused_and_kept)
{
    struct err e = ERR_INIT;
    struct stat st;
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    char junk[8192];
    memset(junk, 'x', sizeof(junk));
    ck_assert_int_eq(write(fd, junk, sizeof(junk)), sizeof(junk));
    close(fd);
    ck_assert_ptr_null(store_open(&(struct store_opts){ .path = path }, NULL, &e));
    ck_assert_int_eq(e.code, -EUCLEAN);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, sizeof(junk));
}
END_TEST

START_TEST(store_in_a_missing_folder_names_the_path)
{
    struct err e = ERR_INIT;
    ck_assert_ptr_null(
        store_open(&(struct store_opts){ .path = "/nonexistent/x/vmd.db" }, NULL, &e));
    ck_assert_ptr_nonnull(strstr(e.msg, "/nonexistent/x/vmd.db"));
}
END_TEST

/* ---- faults ---- */

/* The mutating transactions of the daemon; each has several rows that stand or fall together.
 * `present` counts how many of its n rows are in a file. */
struct mutation {
    const char *name;
    void (*build)(struct store_tx *tx);
    const char *present;
    int rows;
};

static void m_define(struct store_tx *tx)
{
    put_vm(tx, 10, "new");
    store_tx_event_put(tx, &(struct store_event){ .seq = 100, .body = "{}" });
    store_tx_audit_put(
        tx, &(struct store_audit){ .method = "vm.define", .object = "new", .outcome = "ok" });
    store_tx_idem_put(
        tx, &(struct store_idem){
                .uid = 1, .key = "k", .method = "vm.define", .args_hash = "h", .reply = "{}" });
}

static void m_delete(struct store_tx *tx)
{
    store_tx_vm_del(tx, 1);
    store_tx_event_put(tx, &(struct store_event){ .seq = 100, .body = "{}" });
}

static void m_rename(struct store_tx *tx)
{
    put_vm(tx, 2, "renamed");
    store_tx_event_put(tx, &(struct store_event){ .seq = 100, .body = "{}" });
}

static void m_intent(struct store_tx *tx)
{
    store_tx_run_put(tx, &(struct store_run){ .vm = 2, .cookie = "intent", .boot_id = "b" });
    store_tx_event_put(tx, &(struct store_event){ .seq = 100, .body = "{}" });
}

static void m_end(struct store_tx *tx)
{
    store_tx_exit_put(
        tx,
        &(struct store_exit){
            .vm = 1, .uuid = "uuid-1", .name = "old1", .cookie = "run1", .reason = "killed" });
    store_tx_run_del(tx, 1);
    store_tx_event_put(tx, &(struct store_event){ .seq = 100, .body = "{}" });
}

static void m_job(struct store_tx *tx)
{
    store_tx_job_put(tx, &(struct store_job){ .id = 5, .active = true, .body = "{}" });
    store_tx_event_put(tx, &(struct store_event){ .seq = 100, .body = "{}" });
}

static void m_object(struct store_tx *tx)
{
    store_tx_object_put(tx, &(struct store_object){
                                .kind = "profile", .scope = "", .name = "p", .body = "{}" });
    store_tx_object_put(
        tx, &(struct store_object){ .kind = "quota", .scope = "", .name = "q", .body = "{}" });
    store_tx_fact_put(tx, "autostart_boot", "b");
    store_tx_audit_put(
        tx, &(struct store_audit){ .method = "profile.set", .object = "p", .outcome = "ok" });
}

#define EVENT "(SELECT count(*) FROM events WHERE seq = 100)"
static const struct mutation mutations[] = {
    { "define", m_define,
      "SELECT (SELECT count(*) FROM vms WHERE name = 'new') + " EVENT
      " + (SELECT count(*) FROM audit) + (SELECT count(*) FROM idem)",
      4 },
    { "delete", m_delete,
      "SELECT 1 - (SELECT count(*) FROM vms WHERE id = 1) + "
      "1 - (SELECT count(*) FROM runtime WHERE vm = 1) + " EVENT,
      3 },
    { "rename", m_rename, "SELECT (SELECT count(*) FROM vms WHERE name = 'renamed') + " EVENT,
      2 },
    { "intent", m_intent,
      "SELECT (SELECT count(*) FROM runtime WHERE cookie = 'intent') + " EVENT, 2 },
    { "end", m_end,
      "SELECT (SELECT count(*) FROM exits WHERE cookie = 'run1') + "
      "1 - (SELECT count(*) FROM runtime WHERE vm = 1) + " EVENT,
      3 },
    { "object", m_object,
      "SELECT (SELECT count(*) FROM objects) + (SELECT count(*) FROM facts) + "
      "(SELECT count(*) FROM audit)",
      4 },
    { "job", m_job, "SELECT (SELECT count(*) FROM jobs WHERE id = 5) + " EVENT, 2 },
};

static struct store *store_with_two_vms(const char *vfs)
{
    remove_files(dir);
    struct store *s = open_ok(vfs, NULL);
    struct store_tx *tx = store_tx_new(s);
    put_vm(tx, 1, "old1");
    put_vm(tx, 2, "old2");
    store_tx_run_put(tx, &(struct store_run){ .vm = 1, .cookie = "run1", .boot_id = "b" });
    ck_assert_int_eq(commit(s, tx), 0);
    return s;
}

/* What a crash at this moment would leave: the files as they are now, elsewhere. */
static void copy_file(const char *from, const char *to)
{
    AUTO_BUF b = BUF_INIT;
    if (file_slurp(from, &b, 64 << 20, NULL) == 0) {
        AUTO_FD fd = open(to, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
        ck_assert_int_eq(fd_write_all(fd, b.data ? b.data : "", b.len, to, NULL), 0);
    }
}

static void check_crash_now(const struct mutation *m, bool acknowledged)
{
    AUTO_FREE char *there = xasprintf("%s/crash", dir);
    AUTO_FREE char *db = xasprintf("%s/vmd.db", there);
    AUTO_FREE char *wal = xasprintf("%s/vmd.db-wal", there);
    AUTO_FREE char *from_wal = xasprintf("%s-wal", path);
    ck_assert_int_eq(mkdir(there, 0700), 0);
    copy_file(path, db);
    copy_file(from_wal, wal);
    check_whole(db);
    int64_t n = count(db, m->present);
    ck_assert_msg(n == 0 || n == m->rows, "%s: %lld of %d rows", m->name, (long long)n,
                  m->rows);
    ck_assert_msg(!acknowledged || n == m->rows, "%s: acknowledged, but lost", m->name);
    remove_files(there);
    ck_assert_int_eq(rmdir(there), 0);
}

/* One point of failure; false when the transaction has fewer points. */
static bool fail_at(const struct mutation *m, enum fault kind, int n, bool forever)
{
    struct store *s = store_with_two_vms("fault");
    struct store_tx *tx = store_tx_new(s);
    m->build(tx);
    fault_arm(kind, n, forever);
    int rc = commit(s, tx);
    bool fired = fault_fired();
    check_crash_now(m, rc == 0);
    fault_disarm();
    /* The disk is well again: the store either goes on or says why not; never half. */
    tx = store_tx_new(s);
    store_tx_job_put(tx, &(struct store_job){ .id = 77, .body = "{}" });
    int later = commit(s, tx);
    bool refused = store_health(s, NULL, 0) == STORE_FAILED;
    ck_assert_msg(later == 0 || refused, "%s: later transaction: %d", m->name, later);
    store_close(s);
    check_whole(path);
    int64_t has = count(path, m->present);
    ck_assert_msg(has == (rc == 0 ? m->rows : 0) || refused,
                  "%s: fault %d at %d%s: answered %d, %lld of %d rows", m->name, kind, n,
                  forever ? " for ever" : "", rc, (long long)has, m->rows);
    ck_assert_int_eq(count(path, "SELECT count(*) FROM jobs WHERE id = 77"), later == 0);
    return fired;
}

START_TEST(store_survives_every_failing_write_and_sync)
{
    const struct mutation *m = &mutations[_i];
    unsigned points = 0;
    for (int kind = 0; kind < FAULT_KINDS; kind++) {
        for (int forever = 0; forever < 2; forever++) {
            for (int n = 1; fail_at(m, (enum fault)kind, n, forever); n++) {
                points++;
            }
        }
    }
    ck_assert_uint_gt(points, 8);
    printf("# %s: %u points of failure\n", m->name, points);
}
END_TEST

/* ---- allocations ---- */

static sqlite3_mem_methods real_mem;
static atomic_int alloc_left = -1;

static void *f_malloc(int n)
{
    int left = atomic_load(&alloc_left);
    if (left >= 0 && atomic_fetch_sub(&alloc_left, 1) == 0) {
        return NULL;
    }
    return real_mem.xMalloc(n);
}

static void *f_realloc(void *p, int n)
{
    int left = atomic_load(&alloc_left);
    if (left >= 0 && atomic_fetch_sub(&alloc_left, 1) == 0) {
        return NULL;
    }
    return real_mem.xRealloc(p, n);
}

START_TEST(store_survives_every_failing_allocation)
{
    const struct mutation *m = &mutations[_i];
    sqlite3_shutdown();
    ck_assert_int_eq(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_mem), SQLITE_OK);
    sqlite3_mem_methods mine = real_mem;
    mine.xMalloc = f_malloc;
    mine.xRealloc = f_realloc;
    ck_assert_int_eq(sqlite3_config(SQLITE_CONFIG_MALLOC, &mine), SQLITE_OK);
    int tried = 0;
    for (int n = 0; n < 2000; n++) {
        struct store *s = store_with_two_vms(NULL);
        struct store_tx *tx = store_tx_new(s);
        m->build(tx);
        atomic_store(&alloc_left, n);
        int rc = commit(s, tx);
        bool fired = atomic_exchange(&alloc_left, -1) < 0;
        store_close(s);
        check_whole(path);
        ck_assert_int_eq(count(path, m->present), rc == 0 ? m->rows : 0);
        tried++;
        if (!fired) {
            break;
        }
        if (!getenv("VMD_STORE_WHOLE")) {
            n += n / 16; /* all of the first ones, then fewer */
        }
    }
    ck_assert_int_gt(tried, 10);
}
END_TEST

Suite *suite_store(void)
{
    Suite *s = suite_create("daemon store");
    TCase *t = tcase_create("rows");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, store_keeps_rows_across_reopening);
    tcase_add_test(t, store_never_reuses_the_number_of_a_deleted_vm);
    tcase_add_test(t, store_file_is_for_its_owner_only);
    tcase_add_test(t, store_one_bad_transaction_fails_alone_in_its_batch);
    tcase_add_test(t, store_transactions_are_decided_in_the_order_they_came);
    tcase_add_test(t, store_deleting_a_vm_deletes_its_runtime_row);
    tcase_add_test(t, store_runtime_row_needs_its_vm);
    tcase_add_test(t, store_records_an_exit_once_for_a_cookie);
    tcase_add_test(t, store_journal_is_bounded);
    tcase_add_test(t, store_audit_cannot_be_changed);
    tcase_add_test(t, store_of_a_newer_program_is_refused);
    tcase_add_test(t, store_that_is_no_database_is_refused_and_kept);
    tcase_add_test(t, store_in_a_missing_folder_names_the_path);
    suite_add_tcase(s, t);
    t = tcase_create("faults");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, store_survives_every_failing_write_and_sync, 0,
                        (int)ARRAY_LEN(mutations));
    tcase_add_loop_test(t, store_survives_every_failing_allocation, 0,
                        (int)ARRAY_LEN(mutations));
    suite_add_tcase(s, t);
    return s;
}
