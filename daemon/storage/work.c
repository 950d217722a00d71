/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads and processes for the files of pools. See work.h. `lock` protects the queues, the number of pieces and the
 * processes; the rest is set before the first thread begins.
 */
#include "daemon/storage/work.h"

#include "daemon/storage/worker.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, WORKS_MAX = 512, ARGS_MAX = 60, WORDS_MAX = 4096, FIRST_FILE = 3 };

extern char **environ;

struct works {
    struct loop *loop;
    char *program, *vmctl;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t threads[THREADS];
    unsigned n_threads, n;
    struct list queue, done;
    pid_t pids[THREADS]; /* of the processes under way; 0: free */
    bool quit;
};

static void end_one(struct works *s, struct work *w)
{
    s->n--;
    w->ended(w);
}

/* Loop thread. */
static void deliver(void *arg)
{
    struct works *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        struct work *w = list_empty(&s->done) ? NULL
                                              : list_entry(s->done.next, struct work, link);
        if (w) {
            list_remove(&w->link);
        }
        pthread_mutex_unlock(&s->lock);
        if (!w) {
            return;
        }
        end_one(s, w);
    }
}

static void *serve(void *arg)
{
    struct works *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (list_empty(&s->queue) && !s->quit) {
            pthread_cond_wait(&s->wake, &s->lock);
        }
        if (s->quit) {
            break;
        }
        struct work *w = list_entry(s->queue.next, struct work, link);
        list_remove(&w->link);
        pthread_mutex_unlock(&s->lock);
        w->run(w);
        pthread_mutex_lock(&s->lock);
        list_append(&s->done, &w->link);
        if (!s->quit) {
            loop_post(s->loop, deliver, s);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* When the first piece comes: a daemon that has no pools has no threads for them. */
static bool need_threads(struct works *s)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (s->n_threads < THREADS &&
           pthread_create(&s->threads[s->n_threads], NULL, serve, s) == 0) {
        s->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return s->n_threads > 0;
}

struct works *works_new(struct loop *loop, const char *program, const char *vmctl)
{
    struct works *s = xnew(struct works);
    s->loop = loop;
    s->program = xstrdup(program);
    s->vmctl = xstrdup(vmctl);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    list_init(&s->queue);
    list_init(&s->done);
    return s;
}

void works_free(struct works *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    for (unsigned i = 0; i < THREADS; i++) {
        if (s->pids[i]) {
            kill(s->pids[i], SIGKILL);
        }
    }
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < s->n_threads; i++) {
        pthread_join(s->threads[i], NULL);
    }
    deliver(s);
    while (!list_empty(&s->queue)) {
        struct work *w = list_entry(s->queue.next, struct work, link);
        list_remove(&w->link);
        w->failed = true;
        err_set(&w->e, -ESHUTDOWN, "vmd is shutting down");
        end_one(s, w);
    }
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s->program);
    free(s->vmctl);
    free(s);
}

bool works_start(struct works *s, struct work *w)
{
    if (!s || s->quit || s->n >= WORKS_MAX || !need_threads(s)) {
        return false;
    }
    s->n++;
    pthread_mutex_lock(&s->lock);
    list_append(&s->queue, &w->link);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    return true;
}

/* ---- the process ---- */

/* What a process gets beside its arguments. */
struct gets {
    int in;           /* -1: nothing to read */
    const int *files; /* from descriptor 3 on; none of them is below 3 + n */
    unsigned n;
};

/* A process of ours, known to who ends the daemon; its place, or -1. */
static int spawn(struct works *s, char **argv, const struct gets *g, int out, int words,
                 pid_t *pid, struct err *e)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, usual;
    int place = -1, rc;
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGHUP);
    sigaddset(&usual, SIGXFSZ);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    if (g->in < 0) {
        posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    } else {
        posix_spawn_file_actions_adddup2(&files, g->in, 0);
    }
    posix_spawn_file_actions_adddup2(&files, out, 1);
    posix_spawn_file_actions_adddup2(&files, words, 2);
    for (unsigned i = 0; i < g->n; i++) {
        posix_spawn_file_actions_adddup2(&files, g->files[i], FIRST_FILE + (int)i);
    }
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &usual);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    pthread_mutex_lock(&s->lock);
    rc = s->quit ? ESHUTDOWN : posix_spawn(pid, argv[0], &files, &attr, argv, environ);
    for (int i = 0; rc == 0 && i < THREADS && place < 0; i++) {
        if (!s->pids[i]) {
            s->pids[i] = *pid;
            place = i;
        }
    }
    pthread_mutex_unlock(&s->lock);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    if (rc != 0) {
        err_errno(e, rc, "cannot start '%s'", argv[0]);
    }
    return place;
}

static int reap(struct works *s, int place, pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    pthread_mutex_lock(&s->lock);
    s->pids[place] = 0;
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* NULL: there is none. */
static const char *lvm_path(void)
{
    return access("/usr/sbin/lvm", X_OK) == 0 ? "/usr/sbin/lvm"
           : access("/sbin/lvm", X_OK) == 0   ? "/sbin/lvm"
                                              : NULL;
}

/* Both ends until they are closed; what is too much is read and dropped. */
static void drain(int out, int words, struct buf *got, struct buf *said)
{
    struct pollfd p[2] = { { .fd = out, .events = POLLIN }, { .fd = words, .events = POLLIN } };
    struct buf *to[2] = { got, said };
    const size_t most[2] = { WORKS_OUT, WORDS_MAX };
    char piece[4096];
    while (p[0].fd >= 0 || p[1].fd >= 0) {
        if (poll(p, 2, -1) < 0 && errno != EINTR) {
            return;
        }
        for (unsigned i = 0; i < 2; i++) {
            if (p[i].fd < 0 || !p[i].revents) {
                continue;
            }
            ssize_t n = read(p[i].fd, piece, sizeof(piece));
            if (n > 0 && to[i] && to[i]->len + (size_t)n <= most[i]) {
                buf_add(to[i], piece, (size_t)n);
            } else if (n == 0 || (n < 0 && errno != EINTR)) {
                p[i].fd = -1;
            }
        }
    }
}

/* The words of vmctl, without its name in front. */
static int tell(int status, struct buf *said, struct err *e)
{
    buf_add_char(said, 0);
    char *text = (char *)said->data;
    text[strcspn(text, "\n")] = 0;
    char *colon = strncmp(text, "vmctl: ", 7) == 0 ? text + 7 : text;
    char *rest = strncmp(colon, "image ", 6) == 0 ? strstr(colon, ": ") : NULL;
    const char *words = rest ? rest + 2 : colon;
    if (WIFSIGNALED(status)) {
        return err_set(e, -EIO, "the process that works on images was ended by signal %d",
                       WTERMSIG(status));
    }
    int code = strstr(words, " is locked by ")                                  ? -EBUSY
               : strstr(words, strerror(ENOSPC)) || strstr(words, "no space")   ? -ENOSPC
               : strstr(words, strerror(EDQUOT)) || strstr(words, "disk quota") ? -EDQUOT
                                                                                : -EIO;
    return err_set(e, code, "%s", words[0] ? words : "the process that works on images failed");
}

/* Runs it to its end; its status, or a negative code when it did not begin. */
static int run(struct works *s, char **argv, const struct gets *g, struct buf *out,
               struct buf *said, struct err *e)
{
    int a[2], b[2];
    pid_t pid = 0;
    if (pipe2(a, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD out_r = a[0], out_w = a[1];
    if (pipe2(b, O_CLOEXEC) < 0) {
        return err_errno(e, errno, "cannot make a pipe");
    }
    AUTO_FD words_r = b[0], words_w = b[1];
    int place = spawn(s, argv, g, out_w, words_w, &pid, e);
    if (place < 0) {
        return e->code;
    }
    close(take_fd(&out_w));
    close(take_fd(&words_w));
    drain(out_r, words_r, out, said);
    return reap(s, place, pid);
}

int works_image(struct works *s, const char *dir, const char *const *args, struct buf *out,
                struct err *e)
{
    return works_image_with(s, dir, args, NULL, 0, out, e);
}

/* Copies of files whose numbers the process does not use for others; all of `copy` is set. */
static int copy_files(const int *files, unsigned n, int copy[WORKS_FILES], const char *what,
                      struct err *e)
{
    int rc = 0;
    for (unsigned i = 0; i < WORKS_FILES; i++) {
        copy[i] = i < n ? fcntl(files[i], F_DUPFD_CLOEXEC, FIRST_FILE + WORKS_FILES) : -1;
        if (i < n && copy[i] < 0 && rc == 0) {
            rc = err_errno(e, errno, "cannot pass %s", what);
        }
    }
    return rc;
}

static void close_files(int copy[WORKS_FILES])
{
    for (unsigned i = 0; i < WORKS_FILES; i++) {
        fd_autoclose(&copy[i]);
    }
}

int works_image_with(struct works *s, const char *dir, const char *const *args,
                     const int *files, unsigned n_files, struct buf *out, struct err *e)
{
    char own[16];
    char *argv[ARGS_MAX + 6] = { s->program, own, (char *)dir, s->vmctl, (char *)"image" };
    unsigned n = 5;
    int copy[WORKS_FILES];
    AUTO_BUF said = BUF_INIT;
    snprintf(own, sizeof(own), "%d", (int)getpid());
    for (; *args && n < ARGS_MAX + 5; args++) {
        argv[n++] = (char *)*args;
    }
    if (*args) {
        return err_set(e, -E2BIG, "too many options");
    }
    const struct gets g = { .in = -1, .files = copy, .n = n_files };
    int status = copy_files(files, n_files, copy, "a file", e);
    status = status == 0 ? run(s, argv, &g, out, &said, e) : status;
    close_files(copy);
    if (status < 0) {
        return status;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : tell(status, &said, e);
}

int works_lvm(struct works *s, const char *const *words, struct buf *out, struct buf *said,
              struct err *e)
{
    char own[16];
    char *argv[ARGS_MAX + 5] = { s->program, own, (char *)WORKER_LVM, (char *)lvm_path() };
    unsigned n = 4;
    const struct gets g = { .in = -1 };
    snprintf(own, sizeof(own), "%d", (int)getpid());
    for (; *words && n < ARGS_MAX + 4; words++) {
        argv[n++] = (char *)*words;
    }
    if (*words) {
        return err_set(e, -E2BIG, "too many devices");
    }
    if (!lvm_path()) {
        return err_set(e, -ENOENT, "there is no program lvm; install the package lvm2");
    }
    int status = run(s, argv, &g, out, said, e);
    if (status > 0 && WIFSIGNALED(status)) {
        return WTERMSIG(status) == SIGALRM
                   ? err_set(e, -ETIMEDOUT, "lvm has not ended after two minutes")
                   : err_set(e, -EIO, "lvm was ended by signal %d", WTERMSIG(status));
    }
    return status <= 0 ? status : WEXITSTATUS(status);
}

int works_state(struct works *s, const char *program, bool writes, int request,
                const int *files, unsigned n, struct buf *out, struct err *e)
{
    char own[16];
    char *argv[] = { (char *)program, own, writes ? (char *)"--write" : NULL, NULL };
    AUTO_FD in = fcntl(request, F_DUPFD_CLOEXEC, FIRST_FILE + WORKS_FILES);
    int copy[WORKS_FILES];
    const struct gets g = { .in = in, .files = copy, .n = n };
    AUTO_BUF said = BUF_INIT;
    int status = copy_files(files, n, copy, "the state", e);
    snprintf(own, sizeof(own), "%d", (int)getpid());
    if (status == 0 && in < 0) {
        status = err_errno(e, errno, "cannot pass the request");
    }
    status = status == 0 ? run(s, argv, &g, out, &said, e) : status;
    close_files(copy);
    if (status <= 0) {
        return status;
    }
    buf_add_char(&said, 0);
    for (char *p = said.data; *p; p++) { /* it may say what it wants */
        *p = *p >= 0x20 && *p < 0x7f ? *p : '?';
    }
    if (WIFSIGNALED(status)) {
        return err_set(e, -EIO, "the process that reads states was ended by signal %d",
                       WTERMSIG(status));
    }
    return err_set(e, WEXITSTATUS(status) == 3 ? -EBADMSG : -EIO, "%.400s",
                   said.data[0] ? said.data : "the process that reads states failed");
}
