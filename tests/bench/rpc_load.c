/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls per second and time of a round trip, of vmd or of libvirtd, measured the same way: so many
 * threads with a connection each, so many calls of the cheapest kind, one after the other.
 *
 *   rpc_load vmd SOCKET CONNECTIONS CALLS        api.ping
 *   rpc_load libvirt URI CONNECTIONS CALLS       virConnectGetLibVersion, by the libvirt.so.0 of the
 *                                                system, which is opened at run time
 * Prints {"p50_us":..,"p99_us":..,"per_s":..}. Owns nothing. Threads: one a connection.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64

struct lib {
    void *(*open)(const char *uri);
    int (*version)(void *conn, unsigned long *out);
    int (*close)(void *conn);
    int (*start)(void);
};
struct worker {
    pthread_t thread;
    const char *where;
    const struct lib *lib; /* NULL: vmd */
    pthread_barrier_t *gate;
    uint32_t *ns; /* of each call */
    unsigned calls;
    int failed;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int read_line(int fd)
{
    char text[8192];
    for (;;) {
        ssize_t n = recv(fd, text, sizeof(text), 0);
        if (n <= 0) {
            return -1;
        }
        if (text[n - 1] == '\n') {
            return 0;
        }
    }
}

static int vmd_open(const char *path)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || read_line(fd) < 0) {
        return -1;
    }
    return fd;
}

static int vmd_call(int fd)
{
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"api.ping\"}\n";
    return send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0 ? -1 : read_line(fd);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    unsigned long version;
    void *conn = w->lib ? w->lib->open(w->where) : NULL;
    int fd = w->lib ? -1 : vmd_open(w->where);
    w->failed = w->lib ? !conn : fd < 0;
    pthread_barrier_wait(w->gate);
    for (unsigned i = 0; i < w->calls && !w->failed; i++) {
        uint64_t start = now_ns();
        w->failed = (w->lib ? w->lib->version(conn, &version) : vmd_call(fd)) < 0;
        w->ns[i] = (uint32_t)(now_ns() - start);
    }
    pthread_barrier_wait(w->gate);
    if (conn) {
        w->lib->close(conn);
    }
    if (fd >= 0) {
        close(fd);
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static int load_lib(struct lib *lib)
{
    void *so = dlopen("libvirt.so.0", RTLD_NOW);
    if (!so) {
        fprintf(stderr, "rpc_load: %s\n", dlerror());
        return -1;
    }
    *(void **)&lib->open = dlsym(so, "virConnectOpen");
    *(void **)&lib->version = dlsym(so, "virConnectGetLibVersion");
    *(void **)&lib->close = dlsym(so, "virConnectClose");
    *(void **)&lib->start = dlsym(so, "virInitialize");
    return lib->open && lib->version && lib->close && lib->start ? lib->start() : -1;
}

static int run(struct worker *w, unsigned n, unsigned calls, uint32_t *ns,
               pthread_barrier_t *gate)
{
    int failed = 0;
    for (unsigned i = 0; i < n; i++) {
        w[i].gate = gate;
        w[i].calls = calls;
        w[i].ns = ns + (size_t)i * calls;
        if (pthread_create(&w[i].thread, NULL, work, &w[i]) != 0) {
            return -1;
        }
    }
    pthread_barrier_wait(gate);
    uint64_t start = now_ns();
    pthread_barrier_wait(gate);
    double s = (double)(now_ns() - start) / 1e9;
    for (unsigned i = 0; i < n; i++) {
        pthread_join(w[i].thread, NULL);
        failed |= w[i].failed;
    }
    size_t all = (size_t)n * calls;
    qsort(ns, all, sizeof(*ns), by_value);
    printf("{\"p50_us\":%.1f,\"p99_us\":%.1f,\"per_s\":%.0f}\n", ns[all / 2] / 1e3,
           ns[all * 99 / 100] / 1e3, (double)all / s);
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct worker w[CONNECTIONS_MAX] = { 0 };
    struct lib lib;
    pthread_barrier_t gate;
    unsigned n = argc == 5 ? (unsigned)atoi(argv[3]) : 0,
             calls = n ? (unsigned)atoi(argv[4]) : 0;
    if (n < 1 || n > CONNECTIONS_MAX || calls < 1 || calls > 10000000) {
        fprintf(stderr, "usage: rpc_load vmd|libvirt WHERE CONNECTIONS CALLS\n");
        return 2;
    }
    int virt = strcmp(argv[1], "libvirt") == 0;
    if (virt && load_lib(&lib) < 0) {
        return 77;
    }
    for (unsigned i = 0; i < n; i++) {
        w[i].where = argv[2];
        w[i].lib = virt ? &lib : NULL;
    }
    uint32_t *ns = calloc((size_t)n * calls, sizeof(*ns));
    if (!ns || pthread_barrier_init(&gate, NULL, n + 1) != 0) {
        return 1;
    }
    int rc = run(w, n, calls, ns, &gate);
    free(ns);
    if (rc < 0) {
        fprintf(stderr, "rpc_load: a connection failed\n");
    }
    return rc < 0 ? 1 : 0;
}
