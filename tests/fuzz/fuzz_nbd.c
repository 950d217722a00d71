/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: NBD, both sides. The first byte says who is under test and whether the handshake went well already; the rest is
 * what the peer sends. The server exports a small disk in memory, and must have let go of everything when the peer
 * has hung up. The clients (libnbd's, and with WIRE the emulator's) open what they are told, read, write and ask for extents; the emulator's
 * goes on over a second connection that says the same.
 */
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "storage/block.h"
#include "storage/nbd.h"
#include "storage/work.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_nbd";

enum { DISK = 256 * 1024, SERVER = 1, SHAKEN = 2, WIRE = 4, TURNS = 10000 };

static struct loop *loop;
static struct blk_pool *pool;
static struct workers *workers;
static struct nbd_server *server;
static struct blk_node *node;
static unsigned clients;
static uint64_t n_served, n_opened;

/* What a client sends to be through with the handshake: structured replies, contexts, GO. */
static const uint8_t client_hello[] =
    "\0\0\0\3"
    "IHAVEOPT\0\0\0\10\0\0\0\0"
    "IHAVEOPT\0\0\0\12\0\0\0\33\0\0\0\0\0\0\0\1\0\0\0\17base:allocation"
    "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0";
/* And a server: what a client of this kind asks for, answered. */
static const uint8_t server_hello[] =
    "NBDMAGICIHAVEOPT\0\3"
    "\0\3\350\211\004\125\145\251\0\0\0\10\0\0\0\1\0\0\0\0"
    "\0\3\350\211\004\125\145\251\0\0\0\12\0\0\0\4\0\0\0\23\0\0\0\1base:allocation"
    "\0\3\350\211\004\125\145\251\0\0\0\12\0\0\0\1\0\0\0\0"
    "\0\3\350\211\004\125\145\251\0\0\0\7\0\0\0\3\0\0\0\14\0\0\0\0\0\0\0\4\0\0\1\375"
    "\0\3\350\211\004\125\145\251\0\0\0\7\0\0\0\1\0\0\0\0";

static void on_clients(void *arg, unsigned now)
{
    (void)arg;
    clients = now;
}

static int disk_fd(void)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, DISK) != 0) {
        FUZZ_FAIL("cannot make a disk");
    }
    return fd;
}

void fuzz_setup(void)
{
    const struct blk_pool_options po = { .threads = 1, .no_uring = true };
    const struct workers_options wo = { .threads = 1 };
    const struct nbd_server_options so = { .clients_changed = on_clients };
    const struct blk_options o = { .name = "disk",
                                   .driver = "raw",
                                   .path = "disk",
                                   .fd = disk_fd(),
                                   .unlocked = true,
                                   .unsafe = true };
    struct nbd_export_options x = { .name = "", .writable = true, .owned = true };
    struct err e = ERR_INIT;

    signal(SIGPIPE, SIG_IGN);
    log_init(fuzz_name, LOG_ERROR, open("/dev/null", O_WRONLY | O_CLOEXEC));
    loop = loop_new(&e);
    if (!loop || blk_pool_new(loop, &po, &pool, &e) || workers_new(loop, &wo, &workers, &e) ||
        blk_open(pool, &o, &node, &e)) {
        FUZZ_FAIL("%s", e.msg);
    }
    server = nbd_server_new(loop, workers, &so);
    x.node = node;
    if (nbd_export_add(server, &x, &e)) {
        FUZZ_FAIL("%s", e.msg);
    }
}

void fuzz_finish(void)
{
    nbd_server_free(server);
    blk_close(node);
    workers_free(workers);
    blk_pool_free(pool);
    loop_free(loop);
    printf("# %llu clients served, %llu exports opened\n", (unsigned long long)n_served,
           (unsigned long long)n_opened);
}

static void pair(int *sv)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) != 0) {
        FUZZ_FAIL("socketpair");
    }
}

static void give(int fd, const void *p, size_t n)
{
    if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n) {
        FUZZ_FAIL("what the peer sends does not fit into its socket");
    }
}

static void serve(bool shaken, const uint8_t *data, size_t size)
{
    static uint8_t sink[65536];
    int sv[2];

    pair(sv);
    if (shaken) {
        give(sv[1], client_hello, sizeof(client_hello));
    }
    give(sv[1], data, size);
    shutdown(sv[1], SHUT_WR);
    nbd_server_connect(server, sv[0]);
    n_served++;
    for (unsigned i = 0; clients; i++) {
        if (i > TURNS) {
            FUZZ_FAIL("the peer has hung up and its client stays");
        }
        (void)loop_run_once(loop, 10000000, NULL);
        while (recv(sv[1], sink, sizeof(sink), MSG_DONTWAIT) > 0) {
            /* somebody who reads */
        }
    }
    (void)loop_run_once(loop, 0, NULL);
    close(sv[1]);
}

/* Our end of a connection whose peer has said all it will say. */
static int connected(bool shaken, const uint8_t *data, size_t size, int *peer)
{
    int sv[2];

    pair(sv);
    if (shaken) {
        give(sv[1], server_hello, sizeof(server_hello) - 1);
    }
    give(sv[1], data, size);
    shutdown(sv[1], SHUT_WR);
    *peer = sv[1];
    return sv[0];
}

static void use(struct blk_node *n)
{
    static char mem[65536];
    struct err e = ERR_INIT;
    struct blk_extent x;

    n_opened++;
    if (blk_map(n, 0, &x, &e) == 0 && (x.length == 0 || x.length > blk_size(n))) {
        FUZZ_FAIL("an extent of %llu bytes", (unsigned long long)x.length);
    }
    (void)blk_pread(n, 0, mem, blk_size(n) < sizeof(mem) ? blk_size(n) : sizeof(mem));
    (void)blk_pwrite(n, 512, mem, 512);
    (void)blk_zero(n, 0, 4096, BLK_UNMAP);
    (void)blk_flush(n);
}

static void be_client(bool shaken, bool wire, const uint8_t *data, size_t size)
{
    struct err e = ERR_INIT;
    int peer, again;
    struct blk_options o = { .name = "far",
                             .driver = "raw",
                             .path = "nbd://nowhere",
                             .protocol = wire ? &blk_nbd_wire_driver : &blk_nbd_driver,
                             .unlocked = true,
                             .fd = connected(shaken, data, size, &peer) };
    struct blk_node *n;

    if (blk_open(NULL, &o, &n, &e) == 0) {
        use(n);
        if (wire && blk_nbd_reconnect(n, connected(shaken, data, size, &again), &e) == 0) {
            if (blk_nbd_is_lost(n)) {
                FUZZ_FAIL("lost before it was used");
            }
            use(n);
            close(again);
        } else if (wire) {
            close(again);
        }
        blk_close(n);
    } else if (wire) {
        close(o.fd); /* libnbd takes it in any case */
    }
    close(peer);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return;
    }
    if (data[0] & SERVER) {
        serve(data[0] & SHAKEN, data + 1, size - 1);
    } else {
        be_client(data[0] & SHAKEN, data[0] & WIRE, data + 1, size - 1);
    }
}
