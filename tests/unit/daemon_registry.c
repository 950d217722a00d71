/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registry, events and jobs over a real store, without any emulator.
 */
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/host/filecheck.h"
#include "daemon/jobs.h"
#include "daemon/host/lockfile.h"
#include "daemon/vm/preflight.h"
#include "daemon/run/proc.h"
#include "daemon/registry.h"
#include "daemon/store/store.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"
#include "tests/unit/daemon_faultvfs.h"
#include "tests/unit/daemon_suites.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], db[96];
static struct vmd d;

static void up(void)
{
    struct err e = ERR_INIT;
    memset(&d, 0, sizeof(d));
    d.loop = loop_new(&e);
    d.store = store_open(&(struct store_opts){ .path = db, .vfs = "fault" }, NULL, &e);
    ck_assert_msg(d.store != NULL, "%s", e.msg);
    d.events = events_new(&d);
    d.jobs = jobs_new(&d);
    d.vms = registry_new(&d);
    ck_assert_int_eq(events_load(d.events, false, &e), 0);
    ck_assert_int_eq(jobs_load(d.jobs, &e), 0);
    ck_assert_int_eq(registry_load(d.vms, &e), 0);
}

static void down(void)
{
    store_close(d.store);
    registry_free(d.vms);
    jobs_free(d.jobs);
    events_free(d.events);
    loop_free(d.loop);
}

static void setup(void)
{
    strcpy(dir, "/tmp/vmd-reg-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(db, sizeof(db), "%s/vmd.db", dir);
    fault_register();
    up();
}

static void teardown(void)
{
    static const char *const names[] = { "vmd.db", "vmd.db-wal", "vmd.db-shm", "file", "lock" };
    fault_disarm();
    down();
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_FREE char *p = xasprintf("%s/%s", dir, names[i]);
        unlink(p);
    }
    rmdir(dir);
}

static struct vm *define(const char *name)
{
    struct api_vm_config config;
    struct api_error x = API_ERROR_INIT;
    api_init(&api_type_vm_config, &config);
    free(config.name);
    config.name = xstrdup(name);
    ck_assert_msg(preflight_define(&d, &config, &x) == 0, "%s", x.message);
    struct vm *vm = vm_new(&d, &config, 1000, false);
    struct change *c = change_new(&d);
    vm_put(vm, c);
    vm_event(vm, c, API_EVENT_TYPE_VM_DEFINED, NULL, NULL);
    change_commit(c, NULL, NULL);
    store_sync(d.store);
    vm->pending = false;
    return vm;
}

START_TEST(registry_finds_by_name_and_uuid_also_after_a_restart)
{
    struct vm *vm = define("db1");
    AUTO_FREE char *uuid = xstrdup(vm->config.uuid);
    int64_t id = vm->id;
    ck_assert_ptr_eq(vm_find(&d, "db1", false), vm);
    ck_assert_ptr_eq(vm_find(&d, uuid, false), vm);
    down();
    up();
    vm = vm_find(&d, "db1", false);
    ck_assert_ptr_nonnull(vm);
    ck_assert_str_eq(vm->config.uuid, uuid);
    ck_assert_int_eq(vm->id, id);
    ck_assert_int_eq(vm->owner, 1000);
    ck_assert_int_eq(vm->state, API_VM_STATE_STOPPED);
}
END_TEST

START_TEST(registry_hides_what_is_not_durable_but_keeps_its_name)
{
    struct api_vm_config config;
    struct api_error x = API_ERROR_INIT;
    struct vm *vm = define("db1");
    size_t n;
    vm->pending = true;
    ck_assert_ptr_null(vm_find(&d, "db1", false));
    free(vm_list(&d, &n));
    ck_assert_uint_eq(n, 0);
    api_init(&api_type_vm_config, &config);
    config.name = xstrdup("db1");
    ck_assert_int_eq(preflight_define(&d, &config, &x), -1);
    ck_assert_int_eq(x.code, API_E_EXISTS);
    api_release(&api_type_vm_config, &config);
}
END_TEST

START_TEST(registry_lists_by_name)
{
    size_t n;
    define("b");
    define("c");
    define("a");
    struct vm **list = vm_list(&d, &n);
    ck_assert_uint_eq(n, 3);
    ck_assert_str_eq(list[0]->config.name, "a");
    ck_assert_str_eq(list[2]->config.name, "c");
    free(list);
}
END_TEST

START_TEST(registry_shows_how_the_last_run_ended_after_a_restart)
{
    struct vm *vm = define("db1");
    struct store_tx *tx = store_tx_new(d.store);
    store_tx_exit_put(tx, &(struct store_exit){ .vm = vm->id,
                                                .uuid = vm->config.uuid,
                                                .name = "db1",
                                                .cookie = "c",
                                                .status = -1,
                                                .signal = 11,
                                                .reason = "crashed",
                                                .message = "oh" });
    store_tx_commit(tx, NULL, NULL);
    store_sync(d.store);
    down();
    up();
    vm = vm_find(&d, "db1", false);
    ck_assert_int_eq(vm->state, API_VM_STATE_CRASHED);
    ck_assert_int_eq(vm->exit->signal, 11);
    ck_assert(!vm->exit->has_status);
    ck_assert_str_eq(vm->exit->message, "oh");
}
END_TEST

/* ---- preflight ---- */

static int preflight(const char *json, struct api_error *x)
{
    AUTO_JSON o = NULL;
    struct api_vm_config c;
    ck_assert_int_eq(api_json_parse(json, strlen(json), &o, NULL), 0);
    ck_assert_int_eq(api_decode(&api_type_vm_config, o, API_STRICT, "config", &c, x), 0);
    int rc = preflight_define(&d, &c, x);
    if (rc == 0) {
        rc = preflight_host(&c, x);
    }
    api_release(&api_type_vm_config, &c);
    return rc;
}

START_TEST(preflight_names_what_is_wrong)
{
    static const struct {
        const char *json;
        int code;
        const char *object;
    } bad[] = {
        { "{\"name\":\"a\"}", API_E_FILE_ERROR, "a" },
        { "{\"name\":\"a\",\"initrd\":\"/x\"}", API_E_INVALID_PARAMS, "config.initrd" },
        { "{\"name\":\"a\",\"append\":\"x\"}", API_E_INVALID_PARAMS, "config.append" },
        { "{\"name\":\"a\",\"cpu\":\"z80\"}", API_E_INVALID_PARAMS, "config.cpu" },
        { "{\"name\":\"a\",\"memory\":17592186044416}", API_E_HOST_LIMIT, "config.memory" },
        { "{\"name\":\"a\",\"cpus\":512}", API_E_HOST_LIMIT, "config.cpus" },
        { "{\"name\":\"a\",\"disks\":[{\"file\":\"/x\"},{\"file\":\"/x\"}]}",
          API_E_INVALID_PARAMS, "config.disks[1].file" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct api_error x = API_ERROR_INIT;
        ck_assert_int_eq(preflight(bad[i].json, &x), -1);
        ck_assert_int_eq(x.code, bad[i].code);
        ck_assert_str_eq(x.object, bad[i].object);
        ck_assert_int_ne(x.remedy[0], 0);
    }
}
END_TEST

START_TEST(filecheck_never_waits_for_a_fifo)
{
    struct err e = ERR_INIT;
    AUTO_FREE char *p = xasprintf("%s/file", dir);
    ck_assert_int_eq(mkfifo(p, 0600), 0);
    ck_assert_int_eq(file_check("disk 'x'", p, FILE_DISK, true, NULL, NULL, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.msg, p));
}
END_TEST

START_TEST(filecheck_names_uid_path_and_mode)
{
    struct err e = ERR_INIT;
    AUTO_FREE char *p = xasprintf("%s/file", dir);
    AUTO_FD fd = open(p, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ck_assert_int_eq(write(fd, "x", 1), 1);
    ck_assert_int_eq(fchmod(fd, 0), 0);
    if (geteuid() == 0) {
        ck_assert_int_eq(chmod(dir, 0755), 0);
        ck_assert_int_eq(seteuid(65534), 0);
    }
    AUTO_FREE char *uid = xasprintf("uid %u", geteuid());
    int rc = file_check("kernel", p, FILE_DATA, false, NULL, NULL, &e);
    if (getuid() == 0) {
        ck_assert_int_eq(seteuid(0), 0);
    }
    ck_assert_int_eq(rc, -EACCES);
    ck_assert_ptr_nonnull(strstr(e.msg, uid));
    ck_assert_ptr_nonnull(strstr(e.msg, p));
    ck_assert_ptr_nonnull(strstr(e.msg, "mode 0000"));
}
END_TEST

START_TEST(lockfile_second_holder_is_told_the_first_ones_pid)
{
    struct err e = ERR_INIT;
    AUTO_FREE char *p = xasprintf("%s/lock", dir);
    AUTO_FREE char *pid = xasprintf("pid %d", (int)getpid());
    int fd = lockfile_take(p, "the store 'x'", &e);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(lockfile_take(p, "the store 'x'", &e), -EBUSY);
    ck_assert_ptr_nonnull(strstr(e.msg, pid));
    close(fd);
    fd = lockfile_take(p, "the store 'x'", &e);
    ck_assert_int_ge(fd, 0);
    close(fd);
}
END_TEST

/* ---- events ---- */

static void collect(void *arg, const char *event)
{
    json_object_array_add(arg, json_tokener_parse(event));
}

START_TEST(events_are_numbered_in_order_and_survive_a_restart)
{
    struct event_filter all = { .types = 0 };
    AUTO_JSON list = json_object_new_array();
    AUTO_JSON again = json_object_new_array();
    define("a");
    define("b");
    struct vm *b = vm_find(&d, "b", false);
    vm_tell_state(b, API_VM_STATE_CRASHED, "test");
    store_sync(d.store);
    ck_assert_int_eq(events_newest(d.events), 3);
    ck_assert_int_eq(events_page(d.events, 0, 100, &all, collect, list), 3);
    down();
    up();
    ck_assert_int_eq(events_newest(d.events), 3);
    events_page(d.events, 0, 100, &all, collect, again);
    ck_assert_str_eq(api_json_text(list), api_json_text(again));
    define("c");
    ck_assert_int_eq(events_newest(d.events), 4);
}
END_TEST

START_TEST(events_page_goes_on_at_its_cursor_and_filters)
{
    struct event_filter f = { .types = UINT64_C(1) << API_EVENT_TYPE_VM_DEFINED };
    int64_t cursor = 0;
    unsigned got = 0;
    for (unsigned i = 0; i < 25; i++) {
        AUTO_FREE char *name = xasprintf("vm%u", i);
        vm_tell_state(define(name), API_VM_STATE_STOPPED, NULL);
    }
    store_sync(d.store);
    for (unsigned round = 0; round < 10; round++) {
        AUTO_JSON list = json_object_new_array();
        cursor = events_page(d.events, cursor, 7, &f, collect, list);
        got += (unsigned)json_object_array_length(list);
    }
    ck_assert_uint_eq(got, 25);
    ck_assert_int_eq(cursor, 50);
}
END_TEST

static int seen_code;
static void seen(void *arg, const struct err *e)
{
    (void)arg;
    seen_code = e ? e->code : 1;
}

START_TEST(events_of_a_change_that_failed_are_not_told)
{
    struct vm *vm = define("a");
    struct change *c = change_new(&d);
    vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, NULL, NULL);
    fault_arm(FAULT_FULL, 1, true);
    change_commit(c, seen, NULL);
    store_sync(d.store);
    fault_disarm();
    ck_assert_int_eq(seen_code, -ENOSPC);
    ck_assert_int_eq(events_newest(d.events), 1);
}
END_TEST

START_TEST(events_of_what_has_happened_are_told_although_not_durable)
{
    struct vm *vm = define("a");
    fault_arm(FAULT_FULL, 1, true);
    vm_tell_state(vm, API_VM_STATE_CRASHED, "x");
    store_sync(d.store);
    fault_disarm();
    ck_assert_int_eq(events_newest(d.events), 2);
}
END_TEST

/* ---- jobs ---- */

START_TEST(jobs_that_were_at_work_are_known_after_a_restart)
{
    struct change *c = change_new(&d);
    struct job *job = job_new(&d, c, "vm.create", "u", "a", 2, "steps", 0, NULL);
    int64_t id = job->info.job;
    change_commit(c, NULL, NULL);
    store_sync(d.store);
    down();
    up();
    job = job_find(&d, id);
    ck_assert_ptr_nonnull(job);
    ck_assert(job_active(job));
    struct api_error x = API_ERROR_INIT;
    api_error_set(&x, API_E_CANCELLED, "a", "r", "vmd ended");
    c = change_new(&d);
    job_end(&d, job, c, &x, NULL);
    change_commit(c, NULL, NULL);
    store_sync(d.store);
    down();
    up();
    job = job_find(&d, id);
    ck_assert_int_eq(job->info.state, API_JOB_STATE_FAILED);
    ck_assert_str_eq(job->info.error->message, "vmd ended");
    c = change_new(&d);
    ck_assert_int_eq(job_new(&d, c, "vm.create", "u", "a", 2, "steps", 0, NULL)->info.job,
                     id + 1);
    change_drop(c);
}
END_TEST

START_TEST(proc_tells_a_process_from_its_successor)
{
    uint64_t ticks;
    struct err e = ERR_INIT;
    ck_assert_int_eq(proc_start_time(getpid(), &ticks, &e), 0);
    int fd = proc_pidfd(getpid(), ticks, &e);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(proc_pidfd(getpid(), ticks + 1, &e), -ESRCH);
}
END_TEST

/* What is told of a VM is as fresh from the words that are kept of it as when it is made anew. */
static void check_told(struct vm *vm, const char *what)
{
    for (unsigned i = 0; i < 3; i++) {
        AUTO_BUF text = BUF_INIT;
        AUTO_JSON fresh = vm_info(vm, i == 1, i == 2);
        vm_info_write(vm, i == 1, i == 2, &text);
        AUTO_JSON told = json_tokener_parse(text.data);
        ck_assert_msg(told && json_object_equal(told, fresh), "%s: %s, not %s", what, text.data,
                      json_object_to_json_string(fresh));
    }
}

START_TEST(what_is_told_of_a_vm_follows_every_change_of_it)
{
    struct vm *vm = define("db1");
    char *name = vm->config.name;

    ck_assert_uint_eq(api_type_vm_info.n_members,
                      21); /* a new one: compare it in registry.c, too */
    check_told(vm, "defined");
    vm->saved = true;
    check_told(vm, "saved");
    vm->saved = false;
    check_told(vm, "forgotten");
    check_told(vm, "again");
    vm->state = API_VM_STATE_CRASHED;
    check_told(vm, "state");
    vm->reason = xstrdup("crashed");
    check_told(vm, "reason");
    vm->reason[0] = 'k';
    check_told(vm, "another reason at the same place");
    vm->since_ms = 5;
    check_told(vm, "since");
    vm->exit = xnew(struct api_vm_exit);
    *vm->exit = (struct api_vm_exit){ .reason = xstrdup("lost") };
    check_told(vm, "exit");
    vm->exit->has_time_ms = true;
    vm->exit->time_ms = 7;
    check_told(vm, "time of the exit");
    vm->exit->has_status = true;
    check_told(vm, "a status");
    vm->exit->status = 3;
    check_told(vm, "another status");
    vm->exit->has_signal = true;
    vm->exit->signal = 9;
    check_told(vm, "signal");
    vm->exit->message = xstrdup("it said so");
    check_told(vm, "message");
    vm->exit->reason[0] = 'c';
    check_told(vm, "reason of the exit");
    vm->restarts = 2;
    check_told(vm, "restarts");
    vm->restart_due_ms = 77;
    check_told(vm, "due");
    vm->transient = true;
    check_told(vm, "transient");
    vm->config.cpus++;
    check_told(vm, "cpus");
    vm->config.memory += 4096;
    check_told(vm, "memory");
    vm->config.arch = API_ARCH_RISCV32;
    check_told(vm, "arch");
    vm->config.project[0] = 'x';
    check_told(vm, "project");
    vm_name_drop(vm, name);
    name[0] = 'w';
    vm_name_add(vm, name);
    check_told(vm, "name");
}
END_TEST

Suite *suite_registry(void)
{
    Suite *s = suite_create("daemon registry");
    TCase *t = tcase_create("registry");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, registry_finds_by_name_and_uuid_also_after_a_restart);
    tcase_add_test(t, registry_hides_what_is_not_durable_but_keeps_its_name);
    tcase_add_test(t, registry_lists_by_name);
    tcase_add_test(t, registry_shows_how_the_last_run_ended_after_a_restart);
    tcase_add_test(t, preflight_names_what_is_wrong);
    tcase_add_test(t, filecheck_never_waits_for_a_fifo);
    tcase_add_test(t, filecheck_names_uid_path_and_mode);
    tcase_add_test(t, lockfile_second_holder_is_told_the_first_ones_pid);
    tcase_add_test(t, events_are_numbered_in_order_and_survive_a_restart);
    tcase_add_test(t, events_page_goes_on_at_its_cursor_and_filters);
    tcase_add_test(t, events_of_a_change_that_failed_are_not_told);
    tcase_add_test(t, events_of_what_has_happened_are_told_although_not_durable);
    tcase_add_test(t, jobs_that_were_at_work_are_known_after_a_restart);
    tcase_add_test(t, proc_tells_a_process_from_its_successor);
    tcase_add_test(t, what_is_told_of_a_vm_follows_every_change_of_it);
    suite_add_tcase(s, t);
    return s;
}
