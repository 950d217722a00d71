/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of log, through a pipe.
 */
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "tests/unit/base_suites.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ends[2];

static void open_pipe(void)
{
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    unsetenv("JOURNAL_STREAM");
    log_init("test", LOG_INFO, ends[1]);
    log_set_trace(NULL);
}

static void close_pipe(void)
{
    close(ends[0]);
    close(ends[1]);
}

static const char *said(void)
{
    static char text[65536];
    ssize_t n = read(ends[0], text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

START_TEST(log_writes_level_room_and_text)
{
    log_warn("core", "disk %s", "full");
    const char *line = said();
    ck_assert_ptr_nonnull(strstr(line, " test["));
    ck_assert_ptr_nonnull(strstr(line, "] warning core: disk full\n"));
}
END_TEST

START_TEST(log_drops_what_is_above_the_level)
{
    log_debug("core", "x");
    ck_assert_str_eq(said(), "");
}
END_TEST

START_TEST(log_trace_needs_its_letter)
{
    int evaluated = 0;
    log_trace('i', "%d", ++evaluated);
    ck_assert_str_eq(said(), "");
    ck_assert_int_eq(evaluated, 0);
    log_set_trace("aiZ?");
    log_trace('i', "%d", ++evaluated);
    ck_assert_ptr_nonnull(strstr(said(), "debug i: 1\n"));
    ck_assert(log_traces('a'));
    ck_assert(log_traces('Z'));
    ck_assert(!log_traces('z'));
    ck_assert(!log_traces('?'));
}
END_TEST

START_TEST(log_control_characters_do_not_reach_the_terminal)
{
    log_info("emu", "a\033[31mb\nc\t\x7f\r\n");
    ck_assert_ptr_nonnull(strstr(said(), "emu: a?[31mb?c\t??\n"));
}
END_TEST

START_TEST(log_long_lines_are_cut_but_end)
{
    char text[8192];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_info("emu", "%s", text);
    const char *line = said();
    ck_assert_uint_le(strlen(line), 2048);
    ck_assert_uint_ge(strlen(line), 2000);
    ck_assert_int_eq(line[strlen(line) - 1], '\n');
}
END_TEST

START_TEST(log_keeps_errno)
{
    errno = ENOENT;
    log_info("emu", "%m");
    ck_assert_int_eq(errno, ENOENT);
    ck_assert_ptr_nonnull(strstr(said(), "emu: No such file or directory\n"));
}
END_TEST

START_TEST(log_to_the_journal_carries_priorities)
{
    struct stat st;
    char value[64];
    ck_assert_int_eq(fstat(ends[1], &st), 0);
    snprintf(value, sizeof(value), "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", value, 1);
    log_init("test", LOG_DEBUG, ends[1]);
    log_error("core", "e");
    log_debug("core", "d");
    ck_assert_str_eq(said(), "<3>core: e\n<7>core: d\n");
    setenv("JOURNAL_STREAM", "1:1", 1);
    log_init("test", LOG_DEBUG, ends[1]);
    log_error("core", "e");
    ck_assert_ptr_null(strstr(said(), "<3>"));
}
END_TEST

/* The emulator logs under a sandbox that ends it for opening a file. */
START_TEST(log_opens_no_file_after_log_init)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = ARRAY_LEN(code), .filter = code };
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    log_info("emu", "still here");
    ck_assert_ptr_nonnull(strstr(said(), "still here"));
}
END_TEST

static void *say_many(void *arg)
{
    for (int i = 0; i < 50; i++) {
        log_info("t", "%s", (const char *)arg);
    }
    return NULL;
}

START_TEST(log_lines_of_threads_do_not_mix)
{
    pthread_t threads[4];
    static const char *const texts[] = { "aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd" };
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, say_many, (void *)texts[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    static char text[65536];
    ssize_t n = read(ends[0], text, sizeof(text) - 1);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    int lines = 0;
    char *save = NULL;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save), lines++) {
        const char *tail = l + strlen(l) - 8;
        bool whole = false;
        for (size_t i = 0; i < 4; i++) {
            whole = whole || strcmp(tail, texts[i]) == 0;
        }
        ck_assert_msg(whole, "%s", l);
    }
    ck_assert_int_eq(lines, 200);
}
END_TEST

Suite *suite_log(void)
{
    Suite *s = suite_create("log");
    TCase *tc = tcase_create("log");
    tcase_add_checked_fixture(tc, open_pipe, close_pipe);
    tcase_add_test(tc, log_writes_level_room_and_text);
    tcase_add_test(tc, log_drops_what_is_above_the_level);
    tcase_add_test(tc, log_trace_needs_its_letter);
    tcase_add_test(tc, log_control_characters_do_not_reach_the_terminal);
    tcase_add_test(tc, log_long_lines_are_cut_but_end);
    tcase_add_test(tc, log_keeps_errno);
    tcase_add_test(tc, log_to_the_journal_carries_priorities);
    tcase_add_test(tc, log_opens_no_file_after_log_init);
    tcase_add_test(tc, log_lines_of_threads_do_not_mix);
    suite_add_tcase(s, tc);
    return s;
}
