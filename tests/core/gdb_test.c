/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the GDB stub over a socket pair: an engine made for the purpose runs a guest whose
 * every instruction adds 4 to its pc.
 */
#include "engine/core/gdb.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"
#include "tests/lib/testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#define RAM 0x80000000ull

struct fake {
    struct riscv_cpu cpu; /* first: vcpu->cpu */
    _Atomic bool kicked;
    bool step;
};

static uint64_t breakpoints[256];
static unsigned n_breakpoints;

static int fake_init(struct vcpu *c, struct err *e)
{
    (void)e;
    c->cpu = xnew(struct fake);
    return 0;
}

static void fake_done(struct vcpu *c)
{
    free(c->cpu);
}

static bool at_breakpoint(uint64_t pc)
{
    for (unsigned i = 0; i < n_breakpoints; i++) {
        if (breakpoints[i] == pc) {
            return true;
        }
    }
    return false;
}

static enum vcpu_exit fake_run(struct vcpu *c)
{
    struct fake *f = c->cpu;
    for (;;) {
        if (atomic_exchange(&f->kicked, false)) {
            return VCPU_EXIT_KICK;
        }
        if (!f->step && at_breakpoint(f->cpu.pc)) {
            return VCPU_EXIT_DEBUG;
        }
        f->cpu.pc += 4;
        if (f->step) {
            return VCPU_EXIT_DEBUG;
        }
        sched_yield();
    }
}

static void fake_kick(struct vcpu *c)
{
    atomic_store(&((struct fake *)c->cpu)->kicked, true);
}

static void fake_irq(struct vcpu *c)
{
    (void)c;
}

static bool fake_translate(struct vcpu *c, uint64_t va, uint64_t *gpa)
{
    (void)c;
    *gpa = va - 0xffffffff00000000;
    return va >= 0xffffffff00000000;
}

static int fake_breakpoints(struct vm *vm, const uint64_t *va, unsigned n)
{
    ck_assert_int_ne(vm->state, VM_RUNNING);
    memcpy(breakpoints, va, n * sizeof(*va));
    n_breakpoints = n;
    return 0;
}

static void fake_step(struct vcpu *c, bool on)
{
    ck_assert_int_ne(c->vm->state, VM_RUNNING);
    ((struct fake *)c->cpu)->step = on;
}

static const struct engine_ops fake_engine = {
    .name = "fake",
    .vcpu_init = fake_init,
    .vcpu_done = fake_done,
    .run = fake_run,
    .kick = fake_kick,
    .irq = fake_irq,
    .debug_translate = fake_translate,
    .debug_breakpoints = fake_breakpoints,
    .debug_step = fake_step,
};

struct fixture {
    struct loop *loop;
    struct vm *vm;
    struct gdb *g;
    struct mem_region *ram;
    int fd; /* the client's end */
    struct buf got;
};

static void on_state(void *arg, enum vm_state state, const char *reason)
{
    struct fixture *x = arg;
    (void)state;
    (void)reason;
    gdb_vm_state(x->g);
}

static void on_reset(void *arg)
{
    struct fixture *x = arg;
    for (unsigned i = 0; i < x->vm->n_vcpus; i++) {
        x->vm->arch->cpu_boot(x->vm->vcpus[i], RAM, i, 0, 0);
    }
}

static struct riscv_cpu *cpu(struct fixture *x, unsigned i)
{
    return x->vm->vcpus[i]->cpu;
}

static void make(struct fixture *x)
{
    struct err e = ERR_INIT;
    int pair[2];
    memset(x, 0, sizeof(*x));
    x->loop = loop_new(&e);
    ck_assert_int_eq(vm_new("v", &riscv64_arch, &fake_engine, x->loop, NULL, &x->vm, &e), 0);
    ck_assert_int_eq(vm_add_vcpus(x->vm, 2, "max", &e), 0);
    ck_assert_int_eq(mem_new_ram("ram", 0x4000, &x->ram, &e), 0);
    ck_assert_int_eq(mem_map(x->vm->root, RAM, 0, x->ram, &e), 0);
    x->vm->on_state = on_state;
    x->vm->on_state_arg = x;
    x->vm->on_reset = on_reset;
    x->vm->on_reset_arg = x;
    ck_assert_int_eq(vm_start(x->vm, &e), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    x->fd = pair[0];
    fcntl(x->fd, F_SETFL, O_NONBLOCK);
    ck_assert_msg(gdb_new(x->vm, pair[1], false, &x->g, &e) == 0, "%s", e.msg);
}

static void drop(struct fixture *x)
{
    gdb_free(x->g);
    close(x->fd);
    vm_free(x->vm);
    mem_free(x->ram);
    loop_run_once(x->loop, 0, NULL);
    loop_free(x->loop);
    buf_done(&x->got);
}

static void send_raw(struct fixture *x, const void *p, size_t n)
{
    (void)!send(x->fd, p, n, MSG_NOSIGNAL); /* the stub may be gone */
}

static void send_packet(struct fixture *x, const char *text)
{
    uint8_t sum = 0;
    for (const char *p = text; *p; p++) {
        sum = (uint8_t)(sum + (uint8_t)*p);
    }
    AUTO_BUF b = BUF_INIT;
    buf_printf(&b, "$%s#%02x", text, sum);
    send_raw(x, b.data, b.len);
}

static void receive(struct fixture *x)
{
    char data[8192];
    loop_run_once(x->loop, 1000000, NULL);
    ssize_t n = read(x->fd, data, sizeof(data));
    if (n > 0) {
        buf_add(&x->got, data, (size_t)n);
    }
}

/* The contents of the next packet; acknowledges it. */
static const char *answer(struct fixture *x)
{
    static char text[8192];
    for (;;) {
        char *from = x->got.len ? memchr(x->got.data, '$', x->got.len) : NULL;
        char *hash = from ? strchr(from, '#') : NULL;
        if (hash && hash + 2 < x->got.data + x->got.len) {
            size_t n = (size_t)(hash - from) - 1;
            memcpy(text, from + 1, n);
            text[n] = '\0';
            buf_consume(&x->got, (size_t)(hash + 3 - x->got.data));
            send_raw(x, "+", 1);
            return text;
        }
        receive(x);
    }
}

static const char *ask(struct fixture *x, const char *text)
{
    send_packet(x, text);
    return answer(x);
}

START_TEST(client_meets_a_stopped_guest_and_its_threads)
{
    struct fixture x;
    make(&x);
    ck_assert_ptr_nonnull(strstr(ask(&x, "qSupported:multiprocess+"), "PacketSize=1000"));
    ck_assert_str_eq(ask(&x, "?"), "T02thread:1;");
    ck_assert_str_eq(ask(&x, "qfThreadInfo"), "m1,2");
    ck_assert_str_eq(ask(&x, "qsThreadInfo"), "l");
    ck_assert_str_eq(ask(&x, "qC"), "QC1");
    ck_assert_str_eq(ask(&x, "T2"), "OK");
    ck_assert_str_eq(ask(&x, "T3"), "E16");
    ck_assert_str_eq(ask(&x, "Hg2"), "OK");
    ck_assert_str_eq(ask(&x, "Hg9"), "E16");
    ck_assert_str_eq(ask(&x, "qC"), "QC2");
    ck_assert_str_eq(ask(&x, "vCont?"), "vCont;c;C;s;S");
    ck_assert_str_eq(ask(&x, "qThreadExtraInfo,1"), "764350552030"); /* vCPU 0 */
    ck_assert_str_eq(ask(&x, "vMustReplyEmpty"), "");
    ck_assert_str_eq(ask(&x, "Z2,80000000,4"), "");
    drop(&x);
}
END_TEST

START_TEST(target_description_comes_in_pieces)
{
    struct fixture x;
    make(&x);
    AUTO_BUF xml = BUF_INIT;
    const char *a;
    do {
        AUTO_BUF q = BUF_INIT;
        buf_printf(&q, "qXfer:features:read:target.xml:%zx,200", xml.len);
        a = ask(&x, q.data);
        ck_assert(*a == 'm' || *a == 'l');
        buf_add_str(&xml, a + 1);
    } while (*a == 'm');
    ck_assert_ptr_nonnull(strstr(xml.data, "riscv:rv64"));
    ck_assert_ptr_nonnull(strstr(xml.data, "name=\"satp\" bitsize=\"64\" regnum=\"449\""));
    ck_assert_str_eq(xml.data + xml.len - 10, "</target>\n");
    drop(&x);
}
END_TEST

START_TEST(registers_are_read_and_written)
{
    struct fixture x;
    make(&x);
    cpu(&x, 0)->x[1] = 0x1122334455667788;
    const char *all = ask(&x, "g");
    ck_assert_uint_eq(strlen(all), 33 * 16);
    ck_assert_int_eq(strncmp(all + 16, "8877665544332211", 16), 0);
    ck_assert_int_eq(strncmp(all + 32 * 16, "0000008000000000", 16), 0);
    ck_assert_str_eq(ask(&x, "p20"), "0000008000000000");
    ck_assert_str_eq(ask(&x, "P2=0102030405060708"), "OK");
    ck_assert_uint_eq(cpu(&x, 0)->x[2], 0x0807060504030201);
    ck_assert_str_eq(ask(&x, "P20=0500008000000000"), "OK");
    ck_assert_uint_eq(cpu(&x, 0)->pc, 0x80000004);
    ck_assert_str_eq(ask(&x, "P21=000000000000f03f"), "OK");
    ck_assert_uint_eq(cpu(&x, 0)->f[0], 0x3ff0000000000000);
    ck_assert_str_eq(ask(&x, "P0=ffffffffffffffff"), "OK");
    ck_assert_uint_eq(cpu(&x, 0)->x[0], 0);
    ck_assert_str_eq(ask(&x, "p1041"), "0300000000000000"); /* priv */
    ck_assert_str_eq(ask(&x, "P1041=0000000000000000"), "E16");
    ck_assert_str_eq(ask(&x, "pffff"), "E16");
    ck_assert_str_eq(ask(&x, "pfffffffff"), "E16");
    ck_assert_str_eq(ask(&x, "P1=12"), "E16");
    AUTO_BUF set = BUF_INIT;
    buf_add_str(&set, "G");
    for (unsigned i = 0; i < 33; i++) {
        buf_printf(&set, "%02x00000000000000", i * 2);
    }
    ck_assert_str_eq(ask(&x, set.data), "OK");
    ck_assert_uint_eq(cpu(&x, 0)->x[31], 62);
    ck_assert_uint_eq(cpu(&x, 0)->pc, 64);
    drop(&x);
}
END_TEST

START_TEST(memory_is_reached_by_virtual_address)
{
    struct fixture x;
    make(&x);
    ck_assert_str_eq(ask(&x, "Mffffffff80000ffe,4:01020304"), "OK");
    ck_assert_mem_eq(mem_ram_host(x.ram) + 0xffe, "\x01\x02\x03\x04", 4);
    ck_assert_str_eq(ask(&x, "mffffffff80000ffd,6"), "000102030400");
    ck_assert_str_eq(ask(&x, "mffffffff80003ffe,8"), "0000"); /* as much as there is */
    ck_assert_str_eq(ask(&x, "m80000000,4"), "E14");
    ck_assert_str_eq(ask(&x, "mffffffffffffffff,4"), "E14");
    ck_assert_str_eq(ask(&x, "Mffffffff80003ffe,4:01020304"), "E14");
    ck_assert_str_eq(ask(&x, "Mffffffff80000000,4:0102"), "E16");
    ck_assert_str_eq(ask(&x, "Mffffffff80000000,ffffffff:01"), "E16");
    ck_assert_str_eq(ask(&x, "Xffffffff80000000,3:}\x03}\x04z"), "OK"); /* # $ z */
    ck_assert_mem_eq(mem_ram_host(x.ram), "\x23\x24z", 3);
    ck_assert_str_eq(ask(&x, "Xffffffff80000000,0:"), "OK");
    drop(&x);
}
END_TEST

START_TEST(breakpoints_stop_every_vcpu)
{
    struct fixture x;
    make(&x);
    ck_assert_str_eq(ask(&x, "Z0,80000100,2"), "OK");
    ck_assert_str_eq(ask(&x, "Z0,80000100,2"), "OK");
    ck_assert_uint_eq(n_breakpoints, 1);
    const char *a = ask(&x, "vCont;c");
    ck_assert_int_eq(strncmp(a, "T05thread:", 10), 0);
    unsigned hit = (unsigned)atoi(a + 10) - 1;
    ck_assert_uint_eq(cpu(&x, hit)->pc, 0x80000100);
    ck_assert_int_eq(x.vm->state, VM_PAUSED);
    ck_assert_str_eq(ask(&x, "z0,80000100,2"), "OK");
    ck_assert_uint_eq(n_breakpoints, 0);
    drop(&x);
}
END_TEST

START_TEST(one_vcpu_steps_while_the_others_stay_or_run)
{
    struct fixture x;
    make(&x);
    for (unsigned i = 1; i <= 50; i++) {
        uint64_t other = cpu(&x, 0)->pc;
        ck_assert_str_eq(ask(&x, "vCont;s:2"), "T05thread:2;");
        ck_assert_uint_eq(cpu(&x, 1)->pc, RAM + i * 4);
        ck_assert_uint_eq(cpu(&x, 0)->pc, other);
    }
    ck_assert_str_eq(ask(&x, "vCont;s:2;c"), "T05thread:2;");
    ck_assert_uint_eq(cpu(&x, 1)->pc, RAM + 51 * 4);
    ck_assert_str_eq(ask(&x, "Hg1"), "OK");
    uint64_t pc = cpu(&x, 0)->pc;
    ck_assert_str_eq(ask(&x, "s"), "T05thread:1;");
    ck_assert_uint_eq(cpu(&x, 0)->pc, pc + 4);
    ck_assert_str_eq(ask(&x, "vCont;t"), "E16");
    ck_assert_str_eq(ask(&x, "vCont;s:7"), "E16");
    drop(&x);
}
END_TEST

static void run_until_moved(struct fixture *x)
{
    for (unsigned i = 0; i < 3; i++) {
        receive(x);
    }
    ck_assert_int_eq(x->vm->state, VM_RUNNING);
}

START_TEST(interrupt_stops_a_running_guest)
{
    struct fixture x;
    make(&x);
    send_packet(&x, "c");
    run_until_moved(&x);
    ck_assert_str_eq(ask(&x, "m0,1"), "E01"); /* not while it runs */
    send_raw(&x, "\x03", 1);
    ck_assert_str_eq(answer(&x), "T02thread:1;");
    ck_assert_int_eq(x.vm->state, VM_PAUSED);
    drop(&x);
}
END_TEST

START_TEST(pause_and_stop_by_others_are_told)
{
    struct fixture x;
    make(&x);
    send_packet(&x, "c");
    run_until_moved(&x);
    vm_pause(x.vm);
    ck_assert_str_eq(answer(&x), "T02thread:1;");
    send_packet(&x, "c");
    run_until_moved(&x);
    vm_stop(x.vm, "quit");
    ck_assert_str_eq(answer(&x), "W00");
    ck_assert_str_eq(ask(&x, "?"), "W00");
    ck_assert_str_eq(ask(&x, "g"), "E01");
    drop(&x);
}
END_TEST

START_TEST(guest_runs_on_without_breakpoints_when_the_client_goes)
{
    struct fixture x;
    make(&x);
    ck_assert_str_eq(ask(&x, "Z0,80000100,2"), "OK");
    ck_assert_int_eq(strncmp(ask(&x, "c"), "T05", 3), 0);
    shutdown(x.fd, SHUT_RDWR);
    while (x.vm->state != VM_RUNNING) {
        loop_run_once(x.loop, 1000000, NULL);
    }
    ck_assert_uint_eq(n_breakpoints, 0);
    drop(&x);
    make(&x);
    ck_assert_str_eq(ask(&x, "D"), "OK");
    ck_assert_int_eq(x.vm->state, VM_RUNNING);
    drop(&x);
}
END_TEST

START_TEST(reset_and_kill_come_through)
{
    struct fixture x;
    make(&x);
    cpu(&x, 0)->pc = 0x1234;
    ck_assert_int_eq(strncmp(ask(&x, "qRcmd,7265736574"), "7265", 4), 0); /* reset */
    ck_assert_uint_eq(cpu(&x, 0)->pc, RAM);
    ck_assert_int_eq(strncmp(ask(&x, "qRcmd,00"), "6b6e", 4), 0); /* known: */
    send_packet(&x, "k");
    while (x.vm->state != VM_STOPPED) {
        loop_run_once(x.loop, 1000000, NULL);
    }
    drop(&x);
}
END_TEST

START_TEST(wrong_checksums_are_refused_and_answers_repeated)
{
    struct fixture x;
    make(&x);
    send_raw(&x, "$qC#00", 6);
    while (x.got.len == 0) {
        receive(&x);
    }
    ck_assert_mem_eq(x.got.data, "-", 1);
    ck_assert_str_eq(ask(&x, "qC"), "QC1");
    send_raw(&x, "-", 1);
    ck_assert_str_eq(answer(&x), "QC1");
    ck_assert_str_eq(ask(&x, "QStartNoAckMode"), "OK");
    buf_consume(&x.got, x.got.len);
    ck_assert_str_eq(ask(&x, "qC"), "QC1");
    ck_assert_uint_eq(x.got.len, 0);
    drop(&x);
}
END_TEST

START_TEST(random_input_harms_nothing)
{
    static const char letters[] = "gGpPmMXzZcCsSqQvHTD?k$#}*+-,:;=0123456789abcdef\x03";
    uint64_t rnd = test_seed();
    for (unsigned round = 0; round < 60; round++) {
        struct fixture x;
        make(&x);
        for (unsigned i = 0; i < 60; i++) {
            char text[80];
            unsigned n = 1 + test_random(&rnd) % 60;
            for (unsigned k = 0; k < n; k++) {
                text[k] = letters[test_random(&rnd) % (sizeof(letters) - 1)];
            }
            text[n] = '\0';
            if (test_random(&rnd) % 3 && !strpbrk(text, "$#\x03")) {
                AUTO_BUF b = BUF_INIT;
                uint8_t sum = 0;
                for (unsigned k = 0; k < n; k++) {
                    sum = (uint8_t)(sum + (uint8_t)text[k]);
                }
                buf_printf(&b, "$%s#%02x", text, sum);
                (void)!send(x.fd, b.data, b.len, MSG_NOSIGNAL);
            } else {
                (void)!send(x.fd, text, n, MSG_NOSIGNAL);
            }
            loop_run_once(x.loop, 0, NULL);
            receive(&x);
            buf_consume(&x.got, x.got.len);
        }
        drop(&x);
    }
}
END_TEST

START_TEST(endless_packet_closes_the_connection)
{
    struct fixture x;
    make(&x);
    static char data[2000];
    memset(data, 'a', sizeof(data));
    send_raw(&x, "$", 1);
    char byte;
    ssize_t n = -1;
    for (unsigned i = 0; i < 100 && n != 0; i++) {
        (void)!send(x.fd, data, sizeof(data), MSG_NOSIGNAL);
        loop_run_once(x.loop, 1000000, NULL);
        n = read(x.fd, &byte, 1);
        if (n < 0 && errno == ECONNRESET) {
            n = 0;
        }
    }
    ck_assert_int_eq(n, 0);
    drop(&x);
}
END_TEST

START_TEST(engine_without_debugging_says_so)
{
    struct err e = ERR_INIT;
    struct loop *loop = loop_new(&e);
    struct engine_ops plain = fake_engine;
    plain.debug_step = NULL;
    struct vm *vm;
    struct gdb *g = NULL;
    ck_assert_int_eq(vm_new("v", &riscv64_arch, &plain, loop, NULL, &vm, &e), 0);
    ck_assert_int_eq(gdb_new(vm, 0, false, &g, &e), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(e.msg, "'fake'"));
    ck_assert_ptr_null(g);
    gdb_free(NULL);
    vm_free(vm);
    loop_free(loop);
}
END_TEST

static Suite *suite_gdb(void)
{
    Suite *s = suite_create("gdb");
    TCase *c = tcase_create("gdb");
    tcase_add_test(c, client_meets_a_stopped_guest_and_its_threads);
    tcase_add_test(c, target_description_comes_in_pieces);
    tcase_add_test(c, registers_are_read_and_written);
    tcase_add_test(c, memory_is_reached_by_virtual_address);
    tcase_add_test(c, breakpoints_stop_every_vcpu);
    tcase_add_test(c, one_vcpu_steps_while_the_others_stay_or_run);
    tcase_add_test(c, interrupt_stops_a_running_guest);
    tcase_add_test(c, pause_and_stop_by_others_are_told);
    tcase_add_test(c, guest_runs_on_without_breakpoints_when_the_client_goes);
    tcase_add_test(c, reset_and_kill_come_through);
    tcase_add_test(c, wrong_checksums_are_refused_and_answers_repeated);
    tcase_add_test(c, random_input_harms_nothing);
    tcase_add_test(c, endless_packet_closes_the_connection);
    tcase_add_test(c, engine_without_debugging_says_so);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_gdb, NULL);
}
