/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of fd: files in a folder of their own, unix sockets, passing descriptors.
 */
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "tests/unit/base_suites.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64];
static struct err e;

static void make_dir(void)
{
    strcpy(dir, "/tmp/vmd-fd-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    err_clear(&e);
}

static void remove_dir(void)
{
    ck_assert_int_eq(chdir("/"), 0);
    char cmd[96];
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    ck_assert_int_eq(system(cmd), 0);
}

START_TEST(fd_take_and_autoclose)
{
    int taken;
    {
        AUTO_FD fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        AUTO_FD other = open("/dev/null", O_RDONLY | O_CLOEXEC);
        taken = take_fd(&other);
        ck_assert_int_eq(other, -1);
        ck_assert_int_ne(fcntl(fd, F_GETFD), -1);
    }
    ck_assert_int_ne(fcntl(taken, F_GETFD), -1);
    int number = taken;
    fd_autoclose(&taken);
    ck_assert_int_eq(fcntl(number, F_GETFD), -1);
    ck_assert_int_eq(taken, -1);
}
END_TEST

START_TEST(fd_flags_are_set_and_cleared)
{
    AUTO_FD fd = open("/dev/null", O_RDONLY);
    ck_assert_int_eq(fd_set_cloexec(fd, true, &e), 0);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fd_set_cloexec(fd, false, &e), 0);
    ck_assert_int_eq(fcntl(fd, F_GETFD), 0);
    ck_assert_int_eq(fd_set_nonblock(fd, true, &e), 0);
    ck_assert_int_ne(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_eq(fd_set_nonblock(fd, false, &e), 0);
    ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    ck_assert_int_eq(fd_set_nonblock(-1, true, &e), -EBADF);
}
END_TEST

START_TEST(file_replace_then_slurp_gives_the_bytes)
{
    AUTO_BUF b = BUF_INIT;
    ck_assert_int_eq(file_replace("state", "one\0two", 7, 0640, &e), 0);
    ck_assert_int_eq(file_replace("state", "three\0four", 10, 0640, &e), 0);
    buf_add_str(&b, "x");
    ck_assert_int_eq(file_slurp("state", &b, 10, &e), 0);
    ck_assert_uint_eq(b.len, 11);
    ck_assert_int_eq(memcmp(b.data, "xthree\0four", 11), 0);
    struct stat st;
    ck_assert_int_eq(stat("state", &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0640);
    ck_assert_int_eq(access("state.tmp", F_OK), -1);
}
END_TEST

START_TEST(file_replace_failure_keeps_the_old_file)
{
    ck_assert_int_eq(file_replace("state", "old", 3, 0600, &e), 0);
    struct rlimit limit = { 2, 2 }; /* each test runs in a process of its own */
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(file_replace("state", "newer", 5, 0600, &e), -EFBIG);
    ck_assert_ptr_nonnull(strstr(e.msg, "state"));
    AUTO_BUF b = BUF_INIT;
    ck_assert_int_eq(file_slurp("state", &b, 100, &e), 0);
    ck_assert_str_eq(b.data, "old");
    ck_assert_int_eq(access("state.tmp", F_OK), -1);
}
END_TEST

START_TEST(file_replace_in_a_missing_folder_names_it)
{
    ck_assert_int_eq(file_replace("nowhere/state", "x", 1, 0600, &e), -ENOENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "nowhere"));
}
END_TEST

START_TEST(file_slurp_refuses_more_than_max)
{
    AUTO_BUF b = BUF_INIT;
    ck_assert_int_eq(file_replace("big", "12345", 5, 0600, &e), 0);
    ck_assert_int_eq(file_slurp("big", &b, 4, &e), -EFBIG);
    ck_assert_uint_eq(b.len, 0);
    ck_assert_int_eq(file_slurp("/dev/zero", &b, 1 << 20, &e), -EFBIG);
    ck_assert_int_eq(file_slurp("missing", &b, 4, &e), -ENOENT);
    ck_assert_int_eq(file_slurp("big", &b, 5, &e), 0);
    ck_assert_str_eq(b.data, "12345");
}
END_TEST

START_TEST(fd_read_all_says_where_it_ended)
{
    int ends[2];
    char got[8];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    ck_assert_int_eq(fd_write_all(ends[1], "abcdef", 6, "the pipe", &e), 0);
    ck_assert_int_eq(fd_read_all(ends[0], got, 4, "the pipe", &e), 0);
    ck_assert_int_eq(memcmp(got, "abcd", 4), 0);
    close(ends[1]);
    ck_assert_int_eq(fd_read_all(ends[0], got, 4, "the pipe", &e), -ENODATA);
    ck_assert_str_eq(e.msg, "the pipe ends after 2 of 4 bytes");
    close(ends[0]);
}
END_TEST

START_TEST(unix_listen_sets_the_mode_whatever_the_umask)
{
    umask(077);
    AUTO_FD fd = unix_listen("sock", 0660, 4, &e);
    ck_assert_msg(fd >= 0, "%s", e.msg);
    struct stat st;
    ck_assert_int_eq(stat("sock", &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0660);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
}
END_TEST

START_TEST(unix_listen_refuses_a_live_socket_and_replaces_a_stale_one)
{
    int fd = unix_listen("sock", 0600, 4, &e);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(unix_listen("sock", 0600, 4, &e), -EADDRINUSE);
    close(fd);
    AUTO_FD again = unix_listen("sock", 0600, 4, &e);
    ck_assert_msg(again >= 0, "%s", e.msg);
    AUTO_FD client = unix_connect("sock", &e);
    ck_assert_int_ge(client, 0);
}
END_TEST

START_TEST(unix_listen_leaves_other_files_alone)
{
    ck_assert_int_eq(file_replace("sock", "precious", 8, 0600, &e), 0);
    ck_assert_int_eq(unix_listen("sock", 0600, 4, &e), -EADDRINUSE);
    ck_assert_ptr_nonnull(strstr(e.msg, "no socket"));
    ck_assert_int_eq(access("sock", F_OK), 0);
}
END_TEST

START_TEST(unix_connect_names_the_path)
{
    ck_assert_int_eq(unix_connect("nobody", &e), -ENOENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "nobody"));
}
END_TEST

/* As an emulator that was stopped. */
START_TEST(unix_connect_now_waits_for_nobody)
{
    int clients[16], n = 0;
    AUTO_FD fd = unix_listen("sock", 0600, 1, &e);
    ck_assert_int_ge(fd, 0);
    while (n < 16 && (clients[n] = unix_connect_now("sock", &e)) >= 0) {
        n++;
    }
    ck_assert_int_gt(n, 0);
    ck_assert_int_lt(n, 16);
    ck_assert_int_eq(e.code, -EAGAIN);
    ck_assert_ptr_nonnull(strstr(e.msg, "does not answer"));
    ck_assert_int_ne(fcntl(clients[0], F_GETFL) & O_NONBLOCK, 0);
    while (n > 0) {
        close(clients[--n]);
    }
}
END_TEST

START_TEST(unix_paths_may_be_longer_than_an_address)
{
    char path[300] = "";
    for (int i = 0; i < 4; i++) {
        strcat(path, "a-folder-with-a-name-of-fifty-characters-or-so-here/");
        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
    strcat(path, "sock");
    AUTO_FD fd = unix_listen(path, 0600, 4, &e);
    ck_assert_msg(fd >= 0, "%s", e.msg);
    AUTO_FD client = unix_connect(path, &e);
    ck_assert_msg(client >= 0, "%s", e.msg);
    ck_assert_int_eq(unix_listen(path, 0600, 4, &e), -EADDRINUSE);
}
END_TEST

START_TEST(unix_peer_is_the_process_that_listens)
{
    int fd = unix_listen("sock", 0600, -1, &e);
    ck_assert_int_ge(fd, 0);
    int ready[2], done[2];
    ck_assert_int_eq(pipe(ready), 0);
    ck_assert_int_eq(pipe(done), 0);
    pid_t child = fork();
    if (child == 0) {
        listen(fd, 4);
        close(done[1]);
        char c = write(ready[1], "x", 1) == 1 ? 0 : 1;
        _exit(read(done[0], &c, 1) < 0);
    }
    char c;
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    AUTO_FD client = unix_connect("sock", &e);
    ck_assert_msg(client >= 0, "%s", e.msg);
    pid_t pid;
    uid_t uid;
    ck_assert_int_eq(unix_peer(client, &pid, &uid, NULL, &e), 0);
    ck_assert_int_eq(pid, child);
    ck_assert_uint_eq(uid, getuid());
    close(done[1]);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    close(fd);
    ck_assert_int_lt(unix_peer(-1, &pid, NULL, NULL, &e), 0);
}
END_TEST

START_TEST(fd_send_carries_descriptors)
{
    int pair[2], ends[2], got[4];
    char byte, text[4];
    unsigned n = 4;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    ck_assert_int_eq(fd_send(pair[0], "ab", 2, ends, 2, &e), 0);
    ck_assert_int_eq(fd_recv(pair[1], text, sizeof(text), got, &n, &e), 2);
    ck_assert_uint_eq(n, 2);
    ck_assert_int_eq(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(write(got[1], "z", 1), 1);
    ck_assert_int_eq(read(ends[0], &byte, 1), 1);
    ck_assert_int_eq(byte, 'z');
    ck_assert_int_eq(fd_send(pair[0], "c", 1, NULL, 0, &e), 0);
    n = 4;
    ck_assert_int_eq(fd_recv(pair[1], text, sizeof(text), got, &n, &e), 1);
    ck_assert_uint_eq(n, 0);
    close(pair[0]);
    n = 4;
    ck_assert_int_eq(fd_recv(pair[1], text, sizeof(text), got, &n, &e), 0);
    ck_assert_int_eq(fd_send(pair[1], "d", 1, NULL, 0, &e), -EPIPE);
}
END_TEST

static int open_count(void)
{
    int count = 0;
    for (int fd = 0; fd < 200; fd++) {
        count += fcntl(fd, F_GETFD) != -1;
    }
    return count;
}

START_TEST(fd_recv_refuses_and_closes_surplus_descriptors)
{
    int pair[2], many[64], got[2];
    char byte;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    for (int i = 0; i < 64; i++) {
        many[i] = pair[0];
    }
    int before = open_count();
    for (unsigned room = 0; room <= 2; room++) {
        unsigned n = room;
        ck_assert_int_eq(fd_send(pair[0], "x", 1, many, 64, &e), 0);
        ck_assert_int_eq(fd_recv(pair[1], &byte, 1, got, room ? &n : NULL, &e), -EMSGSIZE);
        ck_assert_int_eq(open_count(), before);
    }
}
END_TEST

Suite *suite_fd(void)
{
    Suite *s = suite_create("fd");
    TCase *tc = tcase_create("fd");
    tcase_add_checked_fixture(tc, make_dir, remove_dir);
    tcase_add_test(tc, fd_take_and_autoclose);
    tcase_add_test(tc, fd_flags_are_set_and_cleared);
    tcase_add_test(tc, file_replace_then_slurp_gives_the_bytes);
    tcase_add_test(tc, file_replace_failure_keeps_the_old_file);
    tcase_add_test(tc, file_replace_in_a_missing_folder_names_it);
    tcase_add_test(tc, file_slurp_refuses_more_than_max);
    tcase_add_test(tc, fd_read_all_says_where_it_ended);
    tcase_add_test(tc, unix_listen_sets_the_mode_whatever_the_umask);
    tcase_add_test(tc, unix_listen_refuses_a_live_socket_and_replaces_a_stale_one);
    tcase_add_test(tc, unix_listen_leaves_other_files_alone);
    tcase_add_test(tc, unix_connect_names_the_path);
    tcase_add_test(tc, unix_connect_now_waits_for_nobody);
    tcase_add_test(tc, unix_paths_may_be_longer_than_an_address);
    tcase_add_test(tc, unix_peer_is_the_process_that_listens);
    tcase_add_test(tc, fd_send_carries_descriptors);
    tcase_add_test(tc, fd_recv_refuses_and_closes_surplus_descriptors);
    suite_add_tcase(s, tc);
    return s;
}
