/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the debugger's end of the GDB stub. The input is a stream; bytes up to a 0xff (or the end) are
 * sent as a packet with a right checksum; after two 0xff, as they are. A VM of two vCPUs with nothing to run stands behind.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/core/gdb.h"
#include "engine/core/vm.h"
#include "engine/tcg/tcg.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_gdb";
#define RAM UINT64_C(0x80000000)

static struct loop *loop;
static struct vm *vm;
static struct mem_region *ram;
static struct gdb *gdb;
static struct tcg_config config = { .cache_size = 1 << 20 };

static void on_state(void *arg, enum vm_state state, const char *reason)
{
    (void)arg;
    (void)state;
    (void)reason;
    if (gdb) {
        gdb_vm_state(gdb);
    }
}

static void on_reset(void *arg)
{
    unsigned i;

    (void)arg;
    for (i = 0; i < vm->n_vcpus; i++) {
        vm->arch->cpu_boot(vm->vcpus[i], RAM, i, 0, 0);
    }
}

void fuzz_setup(void)
{
    static const uint32_t wait[] = { 0x10500073, 0xffdff06f }; /* wfi; j back */
    struct err e = ERR_INIT;

    log_init(fuzz_name, LOG_ERROR, 2);
#ifndef __x86_64__
    config.backend = TCG_INTERP;
#endif
    loop = loop_new(&e);
    if (vm_new("fuzz", &riscv64_arch, &tcg_engine_ops, loop, &config, &vm, &e) < 0 ||
        vm_add_vcpus(vm, 2, "max", &e) < 0 || mem_new_ram("ram", 0x4000, &ram, &e) < 0 ||
        mem_map(vm->root, RAM, 0, ram, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    vm->on_state = on_state;
    vm->on_reset = on_reset;
    memcpy(mem_ram_host(ram), wait, sizeof(wait));
    if (vm_start(vm, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
}

void fuzz_finish(void)
{
    vm_free(vm);
    mem_free(ram);
    loop_run_once(loop, 0, NULL);
    loop_free(loop);
}

static void drain(int fd)
{
    char buf[65536];

    loop_run_once(loop, 0, NULL);
    while (read(fd, buf, sizeof(buf)) > 0) {
    }
}

static void send_all(int fd, const void *p, size_t n)
{
    ssize_t done = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)done; /* the stub may have gone */
}

static void send_part(int fd, const uint8_t *p, size_t n, bool packet)
{
    uint8_t buf[FUZZ_INPUT_MAX + 4], sum = 0;
    size_t i;

    if (!packet) {
        send_all(fd, p, n);
    } else {
        buf[0] = '$';
        memcpy(buf + 1, p, n);
        for (i = 0; i < n; i++) {
            sum = (uint8_t)(sum + p[i]);
        }
        buf[n + 1] = '#';
        buf[n + 2] = (uint8_t) "0123456789abcdef"[sum >> 4];
        buf[n + 3] = (uint8_t) "0123456789abcdef"[sum & 15];
        send_all(fd, buf, n + 4);
    }
    drain(fd);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct err e = ERR_INIT;
    int pair[2];
    size_t at = 0;
    bool packet = true;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0 || gdb_new(vm, pair[1], false, &gdb, &e) < 0) {
        FUZZ_FAIL("no connection: %s", e.msg);
    }
    while (at < size) {
        const uint8_t *end = memchr(data + at, 0xff, size - at);
        size_t n = end ? (size_t)(end - data) - at : size - at;

        send_part(pair[0], data + at, n, packet);
        at += n + 1;
        packet = !end || at >= size || data[at] != 0xff;
        at += !packet;
    }
    drain(pair[0]);
    close(pair[0]);
    gdb_free(gdb);
    gdb = NULL;
    if (vm->state == VM_RUNNING) {
        vm_pause(vm);
    }
    loop_run_once(loop, 0, NULL);
    vm_reset(vm);
}
