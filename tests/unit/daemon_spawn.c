/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-spawn and its monitors, with the stand-in emulator: what is handed over, what is refused, what
 * outlives whom. Needs vmd-spawn and tests/e2e/fake_emu in the build folder.
 */
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/run/proc.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "daemon/run/spawner.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"
#include "tests/unit/daemon_suites.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COOKIE "0123456789abcdef0123456789abcdef"

static struct vmd d;
static char dir[64];

static void setup(void)
{
    const char *build = getenv("VMD_BUILDDIR");
    struct err e = ERR_INIT;
    pid_t pid;
    int sock;
    strcpy(dir, "/tmp/vmd-spn-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    memset(&d, 0, sizeof(d));
    d.opt.run = xasprintf("%s/run", dir);
    d.opt.lib = xasprintf("%s/lib", dir);
    d.opt.spawn = xasprintf("%s/vmd-spawn", build ? build : ".");
    d.opt.emulator = xasprintf("%s/tests/e2e/fake_emu", build ? build : ".");
    d.opt.helper_timeout = 25;
    d.opt.store = xasprintf("%s/lib/vmd.db", dir);
    ck_assert_int_eq(options_folders(&d.opt, &e), 0);
    d.loop = loop_new(&e);
    ck_assert_msg(spawner_launch(&d.opt, &pid, &sock, &e) == 0, "%s", e.msg);
    d.spawner = spawner_new(&d, pid, sock);
}

static void teardown(void)
{
    static const char *const names[] = { "run/vm", "run/spawn.lock", "run", "lib/vm",
                                         "lib",    "kernel",         "" };
    spawner_free(d.spawner);
    loop_free(d.loop);
    runfs_clean(&d.opt, 1);
    runfs_clean_lib(&d.opt, 1);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_FREE char *p = xasprintf("%s/%s", dir, names[i]);
        if (unlink(p) < 0) {
            rmdir(p);
        }
    }
    ck_assert_msg(access(dir, F_OK) < 0, "something is left in %s", dir);
    options_done(&d.opt);
}

struct answer {
    bool got;
    struct spawned what;
    struct err e;
};

static void on_answer(void *arg, struct spawned *what, const struct err *e)
{
    struct answer *a = arg;
    a->got = true;
    if (what) {
        a->what = *what;
    } else {
        a->e = *e;
    }
}

static struct json_object *file(const char *path, bool disk)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "key", path);
    api_json_set_str(o, "path", path);
    api_json_set_str(o, "what", disk ? "disk 'root'" : "kernel");
    api_json_set_bool(o, "disk", disk);
    api_json_set_bool(o, "write", disk);
    return o;
}

static struct answer start(const char *append, const char *kernel)
{
    struct answer a = { 0 };
    AUTO_FREE char *config = xasprintf("{\"name\":\"t\",\"uuid\":\"u\",\"append\":\"%s\"}",
                                       append);
    AUTO_FREE char *log = runfs_log(&d.opt, 1);
    struct json_object *o = json_object_new_object(), *files = json_object_new_array();
    ck_assert_int_eq(runfs_make_lib(&d.opt, 1, NULL), 0);
    api_json_set_int(o, "vm", 1);
    api_json_set_str(o, "name", "t");
    api_json_set_str(o, "cookie", COOKIE);
    api_json_set_str(o, "config", config);
    api_json_set_str(o, "log", log);
    if (kernel) {
        json_object_array_add(files, file(kernel, false));
    }
    api_json_set(o, "files", files);
    spawner_start(d.spawner, o, on_answer, &a);
    for (unsigned i = 0; i < 3000 && !a.got; i++) {
        loop_run_once(d.loop, 10000000, NULL);
    }
    ck_assert(a.got);
    return a;
}

static bool ends_soon(int pidfd)
{
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    return poll(&p, 1, 20000) == 1;
}

static void kill_it(struct answer *a)
{
    syscall(SYS_pidfd_send_signal, a->what.fds[0], SIGKILL, NULL, 0);
    ck_assert(ends_soon(a->what.fds[0]));
    ck_assert(ends_soon(a->what.fds[1]));
    for (unsigned i = 0; i < 3; i++) {
        close(a->what.fds[i]);
    }
}

START_TEST(spawn_hands_over_process_monitor_and_sealed_statistics)
{
    struct answer a = start("", NULL);
    struct run_process p;
    ck_assert_msg(a.what.pid > 0, "%s", a.e.msg);
    ck_assert_int_eq(runfs_process(&d.opt, 1, COOKIE, &p, NULL), 0);
    ck_assert_int_eq(p.pid, a.what.pid);
    ck_assert_uint_eq(p.start_time, a.what.start_time);
    ck_assert_int_eq(p.mon_pid, a.what.mon_pid);
    ck_assert(runfs_locked(&d.opt, 1));
    int seals = fcntl(a.what.fds[2], F_GET_SEALS);
    ck_assert_int_eq(seals & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
    ck_assert_int_eq(ftruncate(a.what.fds[2], 0), -1);
    int fd = proc_pidfd(p.pid, p.start_time, NULL);
    ck_assert_int_ge(fd, 0);
    close(fd);
    kill_it(&a);
    ck_assert(!runfs_locked(&d.opt, 1));
}
END_TEST

START_TEST(spawn_monitor_records_a_kill)
{
    struct answer a = start("", NULL);
    struct run_exit x;
    ck_assert_int_gt(a.what.pid, 0);
    kill_it(&a);
    ck_assert_int_eq(runfs_exit(&d.opt, 1, COOKIE, &x, NULL), 0);
    ck_assert_int_eq(x.signal, SIGKILL);
    ck_assert_int_eq(x.status, -1);
    ck_assert_int_lt(runfs_exit(&d.opt, 1, "ffffffffffffffffffffffffffffffff", &x, NULL), 0);
}
END_TEST

START_TEST(spawn_monitor_records_an_exit_status_and_the_last_words)
{
    struct answer a = start("die-early", NULL);
    struct run_exit x;
    char words[200];
    ck_assert_int_gt(a.what.pid, 0);
    ck_assert(ends_soon(a.what.fds[1]));
    ck_assert_int_eq(runfs_exit(&d.opt, 1, COOKIE, &x, NULL), 0);
    ck_assert_int_eq(x.status, 1);
    ck_assert_int_eq(x.signal, 0);
    runfs_last_words(&d.opt, 1, words, sizeof(words));
    ck_assert_str_eq(words, "the kernel is not to my liking");
    kill_it(&a);
}
END_TEST

START_TEST(spawn_refuses_a_second_start_of_a_running_vm)
{
    struct answer a = start("", NULL), b = start("", NULL);
    struct run_process p;
    ck_assert_int_gt(a.what.pid, 0);
    ck_assert_int_eq(b.e.code, -EBUSY);
    ck_assert_ptr_nonnull(strstr(b.e.msg, "'t'"));
    ck_assert_int_eq(runfs_process(&d.opt, 1, COOKIE, &p, NULL),
                     0); /* the first one's, untouched */
    kill_it(&a);
    a = start("", NULL);
    ck_assert_int_gt(a.what.pid, 0);
    kill_it(&a);
}
END_TEST

START_TEST(spawn_missing_file_is_named_and_nothing_is_left)
{
    struct answer a = start("", "/nonexistent/Image");
    ck_assert_int_eq(a.e.code, -ENOENT);
    ck_assert_ptr_nonnull(strstr(a.e.msg, "kernel '/nonexistent/Image'"));
    ck_assert(!runfs_locked(&d.opt, 1));
    AUTO_FREE char *p = runfs_path(&d.opt, 1, VM_CONTROL);
    ck_assert_int_ne(access(p, F_OK), 0);
}
END_TEST

START_TEST(spawn_emulator_outlives_the_helper)
{
    struct answer a = start("", NULL);
    struct run_exit x;
    ck_assert_int_gt(a.what.pid, 0);
    spawner_free(d.spawner); /* waits for it to end */
    d.spawner = NULL;
    struct pollfd p = { .fd = a.what.fds[0], .events = POLLIN };
    ck_assert_int_eq(poll(&p, 1, 100), 0);
    kill_it(&a);
    ck_assert_int_eq(runfs_exit(&d.opt, 1, COOKIE, &x, NULL), 0);
    ck_assert_int_eq(x.signal, SIGKILL);
}
END_TEST

START_TEST(spawn_nonsense_is_refused_and_the_helper_goes_on)
{
    static const char *const bad[] = { "{\"vm\":0}", "{}", "{\"vm\":1,\"files\":7}",
                                       "{\"vm\":1,\"name\":\"x\",\"cookie\":\"short\"}" };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct answer a = { 0 };
        struct json_object *o = NULL;
        ck_assert_int_eq(api_json_parse(bad[i], strlen(bad[i]), &o, NULL), 0);
        spawner_start(d.spawner, o, on_answer, &a);
        for (unsigned k = 0; k < 3000 && !a.got; k++) {
            loop_run_once(d.loop, 10000000, NULL);
        }
        ck_assert_int_eq(a.e.code, -EPROTO);
    }
    struct answer a = start("", NULL);
    ck_assert_int_gt(a.what.pid, 0);
    kill_it(&a);
}
END_TEST

struct opened {
    bool got;
    unsigned n;
    int code;
    char text[400];
};

static void on_opened(void *arg, struct json_object *images, int *take_fds, unsigned n,
                      const char *path, const struct err *e)
{
    struct opened *o = arg;
    (void)path;
    o->got = true;
    o->n = n;
    o->code = e ? e->code : 0;
    snprintf(o->text, sizeof(o->text), "%s", e ? e->msg : api_json_text(images));
    for (unsigned i = 0; i < n; i++) {
        ck_assert_int_ge(fcntl(take_fds[i], F_GETFD), 0);
        close(take_fds[i]);
    }
}

START_TEST(spawn_opens_files_for_an_emulator_that_runs)
{
    AUTO_FREE char *kernel = xasprintf("%s/kernel", dir);
    ck_assert_int_eq(file_replace(kernel, "kernel", 6, 0600, NULL), 0);
    for (unsigned missing = 0; missing < 2; missing++) {
        struct opened o = { 0 };
        struct json_object *list = json_object_new_array();
        json_object_array_add(list, file(kernel, false));
        json_object_array_add(list, file(missing ? "/none" : kernel, true));
        spawner_open(d.spawner, "t", list, on_opened, &o);
        for (unsigned k = 0; k < 3000 && !o.got; k++) {
            loop_run_once(d.loop, 10000000, NULL);
        }
        ck_assert(o.got);
        ck_assert_uint_eq(o.n, missing ? 0 : 2);
        ck_assert_int_eq(o.code, missing ? -ENOENT : 0);
        ck_assert_ptr_nonnull(strstr(o.text, missing ? "/none" : "\"role\""));
    }
}
END_TEST

START_TEST(spawn_another_helper_is_started_when_it_dies)
{
    struct answer a = start("", NULL);
    ck_assert_int_gt(a.what.pid, 0);
    kill_it(&a);
    AUTO_FREE char *path = xasprintf("/proc/self/task/%d/children", (int)getpid());
    AUTO_BUF b = BUF_INIT;
    ck_assert_int_eq(file_slurp(path, &b, 4096, NULL), 0);
    pid_t helper = (pid_t)atoi(b.data);
    ck_assert_int_gt(helper, 0);
    kill(helper, SIGKILL);
    for (unsigned i = 0; i < 3000 && spawner_ready(d.spawner); i++) {
        loop_run_once(d.loop, 10000000, NULL);
    }
    for (unsigned i = 0; i < 3000 && !spawner_ready(d.spawner); i++) {
        loop_run_once(d.loop, 10000000, NULL);
    }
    a = start("", NULL);
    ck_assert_msg(a.what.pid > 0, "%s", a.e.msg);
    kill_it(&a);
}
END_TEST

Suite *suite_spawn(void)
{
    Suite *s = suite_create("daemon spawn");
    TCase *t = tcase_create("spawn");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, spawn_hands_over_process_monitor_and_sealed_statistics);
    tcase_add_test(t, spawn_monitor_records_a_kill);
    tcase_add_test(t, spawn_monitor_records_an_exit_status_and_the_last_words);
    tcase_add_test(t, spawn_refuses_a_second_start_of_a_running_vm);
    tcase_add_test(t, spawn_missing_file_is_named_and_nothing_is_left);
    tcase_add_test(t, spawn_emulator_outlives_the_helper);
    tcase_add_test(t, spawn_nonsense_is_refused_and_the_helper_goes_on);
    tcase_add_test(t, spawn_opens_files_for_an_emulator_that_runs);
    tcase_add_test(t, spawn_another_helper_is_started_when_it_dies);
    suite_add_tcase(s, t);
    return s;
}
