/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in the headers of images, found out by a child that can do nothing else (header.h). Owns
 * that child and its pipes. vmd-spawn's one thread.
 */
#include "daemon/spawn/header.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC 0x514649fbu /* "QFI\xfb" */
#define DATA_FILE_BIT 4u  /* of the incompatible features */
#define X_BACKING_FORMAT 0xe2792acau
#define X_DATA_FILE 0x44415441u
#define FIRST_READ 65536u
#define ANSWER_MS 5000
enum { V2_LENGTH = 72, V3_LENGTH = 104, CLUSTER_MIN = 9, CLUSTER_MOST = 21 };

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return be32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return be64toh(v);
}

static int copy_name(char *to, size_t size, const uint8_t *from, size_t n)
{
    if (n >= size || memchr(from, 0, n)) {
        return -EINVAL;
    }
    memcpy(to, from, n);
    to[n] = 0;
    return 0;
}

static int parse_extensions(const uint8_t *p, size_t at, size_t end, struct image_names *out)
{
    while (at + 8 <= end) {
        uint32_t type = get32(p + at), n = get32(p + at + 4);
        int rc = 0;
        at += 8;
        if (type == 0) {
            return 0;
        }
        if (n > end - at) {
            return -EINVAL;
        }
        if (type == X_BACKING_FORMAT) {
            rc = copy_name(out->format, sizeof(out->format), p + at, n);
        } else if (type == X_DATA_FILE) {
            rc = copy_name(out->data, sizeof(out->data), p + at, n);
        }
        if (rc < 0) {
            return rc;
        }
        at += (n + 7) & ~7u;
    }
    return 0;
}

int header_parse(const uint8_t *p, size_t n, struct image_names *out)
{
    memset(out, 0, sizeof(*out));
    if (n < V3_LENGTH || get32(p) != MAGIC || get32(p + 20) < CLUSTER_MIN ||
        get32(p + 20) > CLUSTER_MOST) {
        return -EINVAL;
    }
    bool v3 = get32(p + 4) >= 3;
    uint64_t at = get64(p + 8), cluster = 1ull << get32(p + 20);
    uint32_t size = get32(p + 16), length = v3 ? get32(p + 100) : V2_LENGTH;
    uint64_t end = at ? at : cluster; /* of the extensions */
    if (length > cluster || end > cluster || (at && size > cluster - at)) {
        return -EINVAL;
    }
    if (n < (at ? at + size : cluster)) {
        return n < cluster && n < HEADER_MOST ? -EMSGSIZE : -EINVAL;
    }
    out->has_data = v3 && get64(p + 72) & DATA_FILE_BIT;
    int rc = at ? copy_name(out->backing, sizeof(out->backing), p + at, size) : 0;
    return rc < 0 ? rc : parse_extensions(p, length, end, out);
}

/* ---- the child ---- */

static bool read_whole(int fd, void *to, size_t n)
{
    for (size_t got = 0; got < n;) {
        ssize_t now = read(fd, (char *)to + got, n - got);
        if (now <= 0) {
            return false;
        }
        got += (size_t)now;
    }
    return true;
}

struct header_answer {
    int code;
    struct image_names names;
};

/* From here on only read, write and exit; a bug in the parser harms nobody. A kernel without the strict mode
 * leaves a child of its own, which is still less than to do it in vmd-spawn. */
static void __attribute__((noreturn))
reader_main(int in, int out, uint8_t *room, struct header_answer *a)
{
    uint32_t n;
    (void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0);
    while (read_whole(in, &n, sizeof(n)) && n <= HEADER_MOST && read_whole(in, room, n)) {
        a->code = header_parse(room, n, &a->names);
        if (write(out, a, sizeof(*a)) != (ssize_t)sizeof(*a)) {
            break;
        }
    }
    for (;;) {
        syscall(SYS_exit, 0);
    }
}

/* ---- vmd-spawn's side ---- */

static int reader_start(struct header_reader *r, struct err *e)
{
    int there[2], back[2];
    if (pipe2(there, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD in = there[0], to = there[1];
    if (pipe2(back, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD from = back[0], out = back[1];
    r->room = xalloc(HEADER_MOST);
    r->answer = xnew(struct header_answer);
    pid_t pid = fork();
    if (pid < 0) {
        int why = errno;
        free(take_ptr(r->room));
        free(take_ptr(r->answer));
        return err_errno(e, why, "cannot make a process that looks at images");
    }
    if (pid == 0) {
        close(to);
        close(from);
        reader_main(in, out, r->room, r->answer);
    }
    r->pid = pid;
    r->to = take_fd(&to);
    r->from = take_fd(&from);
    return 0;
}

void header_reader_done(struct header_reader *r)
{
    if (r->pid > 0) {
        fd_autoclose(&r->to);
        fd_autoclose(&r->from);
        kill(r->pid, SIGKILL);
        while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        free(r->room);
        free(r->answer);
    }
    *r = (struct header_reader){ .pid = 0 };
}

/* The child's answer about the first n bytes in r->room. */
static int ask(struct header_reader *r, uint32_t n)
{
    struct header_answer *a = r->answer;
    struct pollfd p = { .fd = r->from, .events = POLLIN };
    size_t got = 0;
    if (fd_write_all(r->to, &n, sizeof(n), "a pipe", NULL) < 0 ||
        fd_write_all(r->to, r->room, n, "a pipe", NULL) < 0) {
        return -EPIPE;
    }
    while (got < sizeof(*a)) {
        int ready = poll(&p, 1, ANSWER_MS);
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        ssize_t now = ready > 0 ? read(r->from, (char *)a + got, sizeof(*a) - got) : 0;
        if (now <= 0) {
            return -EPIPE;
        }
        got += (size_t)now;
    }
    a->names.backing[HEADER_NAME_MAX] = a->names.data[HEADER_NAME_MAX] = 0;
    a->names.format[sizeof(a->names.format) - 1] = 0;
    return 0;
}

static ssize_t front_of(int fd, uint8_t *to, size_t n)
{
    size_t got = 0;
    while (got < n) {
        ssize_t now = pread(fd, to + got, n - got, (off_t)got);
        if (now < 0 && errno == EINTR) {
            continue;
        }
        if (now < 0) {
            return -errno;
        }
        if (now == 0) {
            break;
        }
        got += (size_t)now;
    }
    return (ssize_t)got;
}

int header_read(struct header_reader *r, int fd, const char *what, struct image_names *out,
                struct err *e)
{
    uint32_t most = FIRST_READ;
    int rc = r->pid > 0 ? 0 : reader_start(r, e);
    memset(out, 0, sizeof(*out));
    while (rc == 0) {
        ssize_t n = front_of(fd, r->room, most);
        if (n < 0) {
            return err_errno(e, (int)-n, "%s cannot be read", what);
        }
        if (ask(r, (uint32_t)n) < 0) {
            header_reader_done(r);
            return err_set(e, -EINVAL,
                           "%s: the process that looked at it ended; check the image", what);
        }
        if (r->answer->code != -EMSGSIZE || (uint32_t)n < most || most == HEADER_MOST) {
            break;
        }
        most = HEADER_MOST;
    }
    if (rc == 0 && r->answer->code == 0) {
        *out = r->answer->names;
    }
    return rc;
}
