/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GDB stub. Owns struct gdb, its sockets and the set of breakpoints. Main thread.
 *
 * The client is not trusted with more than the guest: packets are bounded, memory is reached
 * only as the guest's own DMA would, and a client that does not read its answers is not read.
 */
#include "engine/core/gdb.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PACKET_MAX 4096 /* contents of a packet, told to the client */
#define MAX_BREAKPOINTS 256

enum action { STAY, CONTINUE, STEP };

struct gdb {
    struct vm *vm;
    int listener, fd; /* -1: none */
    struct loop_fd *listen_watch, *watch;
    struct buf in, out;
    struct buf last; /* the last packet sent, for '-' */
    bool no_ack;
    bool running;     /* the client waits for a stop */
    bool resume_last; /* run on when the client goes */
    unsigned cur;     /* vCPU of register and memory packets */
    uint64_t breakpoint[MAX_BREAKPOINTS];
    unsigned n_breakpoints;
};

/* ---- sending ---- */

static void flush(struct gdb *g)
{
    while (g->out.len) {
        ssize_t n = send(g->fd, g->out.data, g->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break; /* full: goes on when writable; broken: reading will tell */
        }
        buf_consume(&g->out, (size_t)n);
    }
    if (g->watch) { /* nothing more is taken in while the answer is not taken out */
        loop_fd_set(g->watch, g->out.len ? LOOP_WRITE : LOOP_READ);
    }
}

static void reply(struct gdb *g, const char *data, size_t n)
{
    uint8_t sum = 0;
    buf_consume(&g->last, g->last.len);
    buf_add_char(&g->last, '$');
    for (size_t i = 0; i < n; i++) {
        char c = data[i];
        if (c == '#' || c == '$' || c == '}' || c == '*') {
            buf_add_char(&g->last, '}');
            sum = (uint8_t)(sum + '}');
            c = (char)(c ^ 0x20);
        }
        buf_add_char(&g->last, c);
        sum = (uint8_t)(sum + (uint8_t)c);
    }
    buf_printf(&g->last, "#%02x", sum);
    buf_add(&g->out, g->last.data, g->last.len);
}

static void reply_str(struct gdb *g, const char *s)
{
    reply(g, s, strlen(s));
}

/* ---- stopping and running ---- */

static struct vcpu *current_vcpu(struct gdb *g)
{
    return g->vm->vcpus[g->cur < g->vm->n_vcpus ? g->cur : 0];
}

static void tell_stop(struct gdb *g, unsigned signal)
{
    char text[40];
    if (g->vm->state == VM_STOPPED) {
        reply_str(g, "W00");
    } else {
        snprintf(text, sizeof(text), "T%02xthread:%x;", signal, g->cur + 1);
        reply_str(g, text);
    }
}

static void no_steps(struct gdb *g)
{
    for (unsigned i = 0; i < g->vm->n_vcpus; i++) {
        g->vm->engine->debug_step(g->vm->vcpus[i], false);
        vcpu_hold(g->vm->vcpus[i], false);
    }
    vm_debug_clear(g->vm);
}

/* A vCPU met a breakpoint or ended its step; all stand at the barrier. */
static void on_debug(void *arg)
{
    struct gdb *g = arg;
    for (unsigned i = 0; i < g->vm->n_vcpus; i++) {
        if (g->vm->vcpus[i]->debug_stop) {
            g->cur = i;
            break;
        }
    }
    no_steps(g);
    if (g->running) {
        g->running = false;
        tell_stop(g, 5);
        flush(g);
    }
}

static void interrupt(struct gdb *g)
{
    if (g->running) {
        g->running = false;
        vm_pause(g->vm);
        no_steps(g);
        tell_stop(g, 2);
    }
}

void gdb_vm_state(struct gdb *g)
{
    if (g && g->fd >= 0 && g->running && g->vm->state != VM_RUNNING) {
        g->running = false;
        no_steps(g);
        tell_stop(g, 2);
        flush(g);
    }
}

static void resume(struct gdb *g, const enum action *what)
{
    struct vm *vm = g->vm;
    if (vm->state != VM_PAUSED || vm->ended) {
        tell_stop(g, 0);
        return;
    }
    g->running = true;
    g->resume_last = true;
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        vm->engine->debug_step(vm->vcpus[i], what[i] == STEP);
        vcpu_hold(vm->vcpus[i], what[i] == STAY);
        if (what[i] == STEP) {
            vcpu_kick(vm->vcpus[i]); /* out of WFI, which may end at any time */
        }
    }
    vm_resume(vm);
}

/* ---- hexadecimal ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* A number of at most 16 digits at *p, which moves behind it; false: none. */
static bool take_hex(const char **p, uint64_t *v)
{
    unsigned n = 0;
    for (*v = 0; hex_digit(**p) >= 0 && n < 16; n++, (*p)++) {
        *v = *v << 4 | (unsigned)hex_digit(**p);
    }
    return n > 0;
}

static bool take_char(const char **p, char c)
{
    if (**p != c) {
        return false;
    }
    (*p)++;
    return true;
}

/* Exactly n bytes of hex digits. */
static bool take_bytes(const char **p, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit((*p)[0]), low = high < 0 ? -1 : hex_digit((*p)[1]);
        if (low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
        *p += 2;
    }
    return true;
}

static void add_hex(struct buf *b, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%02x", p[i]);
    }
}

/* ---- registers ---- */

static bool add_reg(struct gdb *g, unsigned n, struct buf *b)
{
    const struct gdb_arch *a = g->vm->arch->gdb;
    struct vcpu *c = current_vcpu(g);
    unsigned size = a->size(c, n);
    uint64_t v = size ? a->get(c, n) : 0;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(v >> (i * 8));
        add_hex(b, &byte, 1);
    }
    return size > 0;
}

static bool put_reg(struct gdb *g, unsigned n, const char **p)
{
    const struct gdb_arch *a = g->vm->arch->gdb;
    struct vcpu *c = current_vcpu(g);
    uint8_t bytes[8] = { 0 };
    unsigned size = a->size(c, n);
    uint64_t v = 0;
    if (size == 0 || !take_bytes(p, bytes, size)) {
        return false;
    }
    for (unsigned i = 0; i < size; i++) {
        v |= (uint64_t)bytes[i] << (i * 8);
    }
    return a->put(c, n, v);
}

static void regs_written(struct gdb *g)
{
    if (g->vm->engine->regs_put) {
        g->vm->engine->regs_put(current_vcpu(g));
    }
}

static void regs_wanted(struct gdb *g)
{
    if (g->vm->engine->regs_get) {
        g->vm->engine->regs_get(current_vcpu(g));
    }
}

static void cmd_get_regs(struct gdb *g, const char *p)
{
    (void)p;
    AUTO_BUF b = BUF_INIT;
    regs_wanted(g);
    for (unsigned i = 0; i < g->vm->arch->gdb->n_general; i++) {
        add_reg(g, i, &b);
    }
    reply(g, b.data ? b.data : "", b.len);
}

static void cmd_put_regs(struct gdb *g, const char *p)
{
    regs_wanted(g);
    for (unsigned i = 0; i < g->vm->arch->gdb->n_general && *p; i++) {
        const char *at = p;
        if (!put_reg(g, i, &p) && p == at) {
            break;
        }
    }
    regs_written(g);
    reply_str(g, *p ? "E16" : "OK");
}

static void cmd_get_reg(struct gdb *g, const char *p)
{
    AUTO_BUF b = BUF_INIT;
    uint64_t n;
    regs_wanted(g);
    if (take_hex(&p, &n) && n < 65536 && add_reg(g, (unsigned)n, &b)) {
        reply(g, b.data, b.len);
    } else {
        reply_str(g, "E16");
    }
}

static void cmd_put_reg(struct gdb *g, const char *p)
{
    uint64_t n;
    regs_wanted(g);
    bool ok = take_hex(&p, &n) && n < 65536 && take_char(&p, '=') &&
              put_reg(g, (unsigned)n, &p);
    regs_written(g);
    reply_str(g, ok ? "OK" : "E16");
}

/* ---- memory ---- */

/* Calls for each piece of a page that is RAM; false at the first that is not. */
static bool access_memory(struct gdb *g, uint64_t va, uint8_t *p, size_t n, bool write)
{
    while (n) {
        uint64_t gpa;
        size_t step = MEM_PAGE_SIZE - (va & (MEM_PAGE_SIZE - 1));
        step = step < n ? step : n;
        if (!g->vm->engine->debug_translate(current_vcpu(g), va, &gpa)) {
            return false;
        }
        int ret = write ? mem_dma_write(g->vm->mem, gpa, p, step)
                        : mem_dma_read(g->vm->mem, gpa, p, step);
        if (ret < 0) {
            return false;
        }
        va += step;
        p += step;
        n -= step;
    }
    return true;
}

static void cmd_read(struct gdb *g, const char *p)
{
    uint8_t data[PACKET_MAX / 2];
    uint64_t va, n;
    if (!take_hex(&p, &va) || !take_char(&p, ',') || !take_hex(&p, &n)) {
        reply_str(g, "E16");
        return;
    }
    n = n < sizeof(data) ? n : sizeof(data);
    while (n && !access_memory(g, va, data, n, false)) {
        /* As much as can be read: GDB asks for more than a page's end. */
        uint64_t last = (va + n - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
        n = last > va ? last - va : 0;
    }
    AUTO_BUF b = BUF_INIT;
    add_hex(&b, data, n);
    reply_str(g, n ? b.data : "E14");
}

static void cmd_write_hex(struct gdb *g, const char *p)
{
    uint8_t data[PACKET_MAX / 2];
    uint64_t va, n;
    if (!take_hex(&p, &va) || !take_char(&p, ',') || !take_hex(&p, &n) || !take_char(&p, ':') ||
        n > sizeof(data) || !take_bytes(&p, data, n)) {
        reply_str(g, "E16");
        return;
    }
    reply_str(g, access_memory(g, va, data, n, true) ? "OK" : "E14");
}

/* X: the bytes as they are; `end` is behind the packet. */
static void cmd_write_binary(struct gdb *g, const char *p, const char *end)
{
    uint8_t data[PACKET_MAX];
    uint64_t va, n;
    if (!take_hex(&p, &va) || !take_char(&p, ',') || !take_hex(&p, &n) || !take_char(&p, ':') ||
        n > sizeof(data) || (size_t)(end - p) != n) {
        reply_str(g, "E16");
        return;
    }
    memcpy(data, p, n);
    reply_str(g, access_memory(g, va, data, n, true) ? "OK" : "E14");
}

/* ---- breakpoints ---- */

static int apply_breakpoints(struct gdb *g)
{
    return g->vm->engine->debug_breakpoints(g->vm, g->breakpoint, g->n_breakpoints);
}

/* Z and z, kinds 0 and 1 (software and hardware are the same to an engine). */
static void cmd_breakpoint(struct gdb *g, const char *p, bool insert)
{
    uint64_t kind, va;
    if (!take_hex(&p, &kind) || kind > 1) {
        reply_str(g, ""); /* watchpoints: not supported */
        return;
    }
    if (!take_char(&p, ',') || !take_hex(&p, &va)) {
        reply_str(g, "E16");
        return;
    }
    unsigned i = 0;
    while (i < g->n_breakpoints && g->breakpoint[i] != va) {
        i++;
    }
    bool known = i < g->n_breakpoints;
    if (insert && !known && i == MAX_BREAKPOINTS) {
        reply_str(g, "E1c");
        return;
    }
    if (insert && !known) {
        g->breakpoint[g->n_breakpoints++] = va;
    } else if (!insert && known) {
        g->breakpoint[i] = g->breakpoint[--g->n_breakpoints];
    }
    reply_str(g, insert == known || apply_breakpoints(g) == 0 ? "OK" : "E16");
}

/* ---- threads and running ---- */

/* "1", "-1" (all), "0" (any), also as "p1.2". False: none of ours. */
static bool take_thread(struct gdb *g, const char **p, int *index)
{
    uint64_t n;
    if (take_char(p, 'p') && (!take_hex(p, &n) || !take_char(p, '.'))) {
        return false;
    }
    if (take_char(p, '-')) {
        *index = -1;
        return take_hex(p, &n) && n == 1;
    }
    if (!take_hex(p, &n) || n > g->vm->n_vcpus) {
        return false;
    }
    *index = n ? (int)n - 1 : (int)g->cur;
    return true;
}

static void cmd_set_thread(struct gdb *g, const char *p)
{
    int index = -1;
    char what = *p ? *p++ : '\0';
    if ((what != 'g' && what != 'c') || !take_thread(g, &p, &index)) {
        reply_str(g, "E16");
        return;
    }
    if (what == 'g' && index >= 0) {
        g->cur = (unsigned)index;
    }
    reply_str(g, "OK");
}

static void cmd_thread_alive(struct gdb *g, const char *p)
{
    int index;
    reply_str(g, take_thread(g, &p, &index) && index >= 0 ? "OK" : "E16");
}

/* vCont;action[:thread][;action[:thread]]... : the first that fits a thread counts. */
static void cmd_vcont(struct gdb *g, const char *p)
{
    AUTO_FREE enum action *what = xnew_n(enum action, g->vm->n_vcpus);
    AUTO_FREE bool *given = xnew_n(bool, g->vm->n_vcpus);
    while (take_char(&p, ';')) {
        uint64_t signal;
        int thread = -1;
        char verb = *p ? *p++ : '\0';
        bool ok = verb == 'c' || verb == 's' ||
                  ((verb == 'C' || verb == 'S') && take_hex(&p, &signal));
        if (!ok || (take_char(&p, ':') && !take_thread(g, &p, &thread))) {
            reply_str(g, "E16");
            return;
        }
        for (unsigned i = 0; i < g->vm->n_vcpus; i++) {
            if (!given[i] && (thread < 0 || thread == (int)i)) {
                given[i] = true;
                what[i] = verb == 'c' || verb == 'C' ? CONTINUE : STEP;
            }
        }
    }
    if (*p) {
        reply_str(g, "E16");
        return;
    }
    resume(g, what);
}

static void run_all(struct gdb *g, bool step)
{
    AUTO_FREE enum action *what = xnew_n(enum action, g->vm->n_vcpus);
    for (unsigned i = 0; i < g->vm->n_vcpus; i++) {
        what[i] = !step ? CONTINUE : i == g->cur ? STEP : STAY;
    }
    resume(g, what);
}

/* ---- queries ---- */

static void cmd_xml(struct gdb *g, const char *p)
{
    AUTO_BUF xml = BUF_INIT;
    uint64_t at, n;
    if (!take_hex(&p, &at) || !take_char(&p, ',') || !take_hex(&p, &n)) {
        reply_str(g, "E16");
        return;
    }
    g->vm->arch->gdb->xml(g->vm->vcpus[0], &xml);
    at = at < xml.len ? at : xml.len;
    n = n < PACKET_MAX / 2 ? n : PACKET_MAX / 2;
    AUTO_BUF b = BUF_INIT;
    bool last = n >= xml.len - at;
    buf_add_char(&b, last ? 'l' : 'm');
    buf_add(&b, xml.data + at, last ? xml.len - at : n);
    reply(g, b.data, b.len);
}

static void cmd_threads(struct gdb *g)
{
    AUTO_BUF b = BUF_INIT;
    buf_add_char(&b, 'm');
    for (unsigned i = 0; i < g->vm->n_vcpus; i++) {
        buf_printf(&b, "%s%x", i ? "," : "", i + 1);
    }
    reply(g, b.data, b.len);
}

static void cmd_thread_name(struct gdb *g, const char *p)
{
    AUTO_BUF b = BUF_INIT;
    char name[32];
    int index;
    if (!take_thread(g, &p, &index) || index < 0) {
        reply_str(g, "E16");
        return;
    }
    struct vcpu *c = g->vm->vcpus[index];
    int n = snprintf(name, sizeof(name), "vCPU %d%s", index, c->halted ? " (waits)" : "");
    add_hex(&b, (const uint8_t *)name, (size_t)n);
    reply(g, b.data, b.len);
}

/* monitor COMMAND: text in hexadecimal both ways. */
static void cmd_monitor(struct gdb *g, const char *p)
{
    char text[64] = "";
    const char *answer = "known: reset\n";
    size_t n = strlen(p) / 2;
    AUTO_BUF b = BUF_INIT;
    if (n < sizeof(text) && take_bytes(&p, (uint8_t *)text, n) && strcmp(text, "reset") == 0) {
        if (g->vm->replay) { /* it would not stand on the tape */
            answer =
                "the VM is replayed: it cannot be reset; detach and start the replay anew\n";
        } else {
            vm_reset(g->vm);
            answer = "reset\n";
        }
    }
    add_hex(&b, (const uint8_t *)answer, strlen(answer));
    reply(g, b.data, b.len);
}

static void cmd_query(struct gdb *g, const char *p)
{
    static const char features[] = "Xfer:features:read:target.xml:";
    if (str_starts(p, "Supported")) {
        AUTO_BUF b = BUF_INIT;
        buf_printf(&b, "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+",
                   PACKET_MAX);
        reply(g, b.data, b.len);
    } else if (str_starts(p, features)) {
        cmd_xml(g, p + sizeof(features) - 1);
    } else if (strcmp(p, "fThreadInfo") == 0) {
        cmd_threads(g);
    } else if (strcmp(p, "sThreadInfo") == 0) {
        reply_str(g, "l");
    } else if (str_starts(p, "ThreadExtraInfo,")) {
        cmd_thread_name(g, p + strlen("ThreadExtraInfo,"));
    } else if (strcmp(p, "C") == 0) {
        char text[16];
        snprintf(text, sizeof(text), "QC%x", g->cur + 1);
        reply_str(g, text);
    } else if (strcmp(p, "Attached") == 0) {
        reply_str(g, "1");
    } else if (str_starts(p, "Rcmd,")) {
        cmd_monitor(g, p + strlen("Rcmd,"));
    } else {
        reply_str(g, "");
    }
}

/* ---- the connection ---- */

static void close_client(struct gdb *g)
{
    if (g->fd < 0) {
        return;
    }
    loop_fd_free(g->watch);
    g->watch = NULL;
    close(g->fd);
    g->fd = -1;
    g->running = false;
    buf_consume(&g->in, g->in.len);
    buf_consume(&g->out, g->out.len);
    g->vm->on_debug = NULL;
    bool again = g->vm->state == VM_RUNNING;
    vm_pause(g->vm); /* breakpoints change at the barrier */
    no_steps(g);
    g->n_breakpoints = 0;
    (void)apply_breakpoints(g);
    if (again || g->resume_last) {
        vm_resume(g->vm);
    }
}

static void cmd_detach(struct gdb *g)
{
    g->resume_last = true;
    reply_str(g, "OK");
    flush(g);
    close_client(g);
}

/* Commands that look at a stopped guest. */
static void dispatch_stopped(struct gdb *g, const char *p, const char *end)
{
    switch (*p) {
    case 'g':
        cmd_get_regs(g, p + 1);
        break;
    case 'G':
        cmd_put_regs(g, p + 1);
        break;
    case 'p':
        cmd_get_reg(g, p + 1);
        break;
    case 'P':
        cmd_put_reg(g, p + 1);
        break;
    case 'm':
        cmd_read(g, p + 1);
        break;
    case 'M':
        cmd_write_hex(g, p + 1);
        break;
    case 'X':
        cmd_write_binary(g, p + 1, end);
        break;
    case 'Z':
    case 'z':
        cmd_breakpoint(g, p + 1, *p == 'Z');
        break;
    case 'c':
    case 'C':
        run_all(g, false);
        break;
    case 's':
    case 'S':
        run_all(g, true);
        break;
    default:
        reply_str(g, "");
    }
}

static void dispatch(struct gdb *g, const char *p, const char *end)
{
    if (*p == 'q') {
        cmd_query(g, p + 1);
    } else if (*p == '?') {
        tell_stop(g, 2);
    } else if (*p == 'H') {
        cmd_set_thread(g, p + 1);
    } else if (*p == 'T') {
        cmd_thread_alive(g, p + 1);
    } else if (strcmp(p, "QStartNoAckMode") == 0) {
        reply_str(g, "OK");
        g->no_ack = true;
    } else if (strcmp(p, "vCont?") == 0) {
        reply_str(g, "vCont;c;C;s;S");
    } else if (*p == 'D') {
        cmd_detach(g);
    } else if (*p == 'k') {
        vm_request(g->vm, VM_REQ_CRASH, "debugger");
    } else if (g->vm->state != VM_PAUSED) {
        reply_str(g, "E01"); /* runs, or has stopped for good */
    } else if (str_starts(p, "vCont;")) {
        cmd_vcont(g, p + strlen("vCont"));
    } else {
        dispatch_stopped(g, p, end);
    }
}

/* Takes the escapes out of a packet's contents, in place; returns the new length. */
static size_t unescape(char *p, size_t n)
{
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '}' && i + 1 < n) {
            p[out++] = (char)(p[++i] ^ 0x20);
        } else {
            p[out++] = p[i];
        }
    }
    return out;
}

/* One packet at the front of the input. False: it has not come whole. */
static bool take_packet(struct gdb *g)
{
    char *hash = memchr(g->in.data, '#', g->in.len);
    if (!hash || (size_t)(hash - g->in.data) + 3 > g->in.len) {
        return false;
    }
    size_t n = (size_t)(hash - g->in.data) - 1, whole = n + 4;
    uint8_t sum = 0, told = 0;
    const char *digits = hash + 1;
    for (size_t i = 1; i <= n; i++) {
        sum = (uint8_t)(sum + (uint8_t)g->in.data[i]);
    }
    bool good = take_bytes(&digits, &told, 1) && told == sum;
    AUTO_FREE char *text = xalloc(n + 1);
    memcpy(text, g->in.data + 1, n);
    n = unescape(text, n);
    text[n] = '\0';
    buf_consume(&g->in, whole);
    if (!g->no_ack) {
        buf_add_char(&g->out, good ? '+' : '-');
    }
    if (good) {
        dispatch(g, text, text + n);
    }
    return true;
}

static void take_input(struct gdb *g)
{
    while (g->fd >= 0 && g->in.len && !g->out.len) {
        char c = g->in.data[0];
        if (c == '$') {
            if (!take_packet(g)) {
                break;
            }
        } else {
            buf_consume(&g->in, 1);
            if (c == 3) {
                interrupt(g);
            } else if (c == '-' && !g->no_ack) {
                buf_add(&g->out, g->last.data ? g->last.data : "", g->last.len);
            }
        }
        if (g->fd >= 0) {
            flush(g);
        }
    }
    if (g->fd >= 0 && g->in.len > PACKET_MAX * 2 + 16) {
        log_warn("core", "gdb: a packet longer than %d bytes, connection closed", PACKET_MAX);
        close_client(g);
    }
}

static void on_client(void *arg, int fd, unsigned events)
{
    struct gdb *g = arg;
    if (events & LOOP_WRITE) {
        flush(g);
    }
    if (events & LOOP_READ) {
        char data[PACKET_MAX];
        ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
            close_client(g);
            return;
        }
        if (n > 0) {
            buf_add(&g->in, data, (size_t)n);
        }
    }
    take_input(g);
}

static void open_client(struct gdb *g, int fd)
{
    g->fd = fd;
    g->no_ack = false;
    g->cur = 0;
    g->resume_last = g->vm->state == VM_RUNNING;
    g->vm->on_debug = on_debug;
    g->vm->on_debug_arg = g;
    g->watch = loop_fd_new(g->vm->loop, fd, LOOP_READ, on_client, g);
    vm_pause(g->vm);
}

static void on_listener(void *arg, int fd, unsigned events)
{
    struct gdb *g = arg;
    (void)events;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0) {
        return;
    }
    if (g->fd >= 0) {
        log_warn("core", "gdb: a debugger is connected already, a second one was refused");
        close(client);
        return;
    }
    open_client(g, client);
}

int gdb_new(struct vm *vm, int fd, bool listening, struct gdb **out, struct err *e)
{
    if (!vm->arch->gdb || !vm->engine->debug_translate || !vm->engine->debug_step ||
        !vm->engine->debug_breakpoints) {
        return err_set(e, -ENOTSUP, "%s guests cannot be debugged under the engine '%s'",
                       vm->arch->name, vm->engine->name);
    }
    int ret = fd_set_nonblock(fd, true, e);
    if (ret < 0) {
        return ret;
    }
    struct gdb *g = xnew(struct gdb);
    g->vm = vm;
    g->listener = g->fd = -1;
    if (listening) {
        g->listener = fd;
        g->listen_watch = loop_fd_new(vm->loop, fd, LOOP_READ, on_listener, g);
    } else {
        open_client(g, fd);
    }
    *out = g;
    return 0;
}

void gdb_free(struct gdb *g)
{
    if (!g) {
        return;
    }
    close_client(g);
    loop_fd_free(g->listen_watch);
    if (g->listener >= 0) {
        close(g->listener);
    }
    buf_done(&g->in);
    buf_done(&g->out);
    buf_done(&g->last);
    free(g);
}
