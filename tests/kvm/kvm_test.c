/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM engine on bare guests (guests.S): modes, paging, ports, MMIO, interrupts, four processors, dirty log, debugging, state,
 * kicks. Skipped where /dev/kvm is missing.
 */
#include "engine/arch/x86/cpu.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/bus.h"
#include "engine/core/state.h"
#include "engine/core/vm.h"
#include "engine/kvm/kvm.h"
#include "tests/lib/testing.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#if defined(__x86_64__)
extern const uint8_t guests_begin[], guests_end[], r_real[], p_triple[], r_smp[], p_long[],
    p_dirty[], p_steps[], p_count[], p_ports[], p_bells[], step_0[], step_1[], step_2[],
    step_3[];

#define MIB (1u << 20)
#define RAM_SIZE (8u * MIB)

static uint64_t at(const uint8_t *label)
{
    return 0x8000 + (uint64_t)(label - guests_begin);
}

struct machine {
    struct loop *loop;
    struct vm *vm;
    struct kvm_config config;
    struct mem_region *ram, *rom, *dev, *ports;
    const uint8_t *entry;
    bool real;
    uint8_t regs[4096];
    uint32_t next; /* what port 0xf0 answers */
    char text[64];
    unsigned n_text, resets, stops, dev_writes, n_rung;
    unsigned rung[8];
    int code;
};

static uint64_t dev_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct machine *m = opaque;
    uint64_t v = 0;
    memcpy(&v, m->regs + offset, size);
    return v;
}

static void dev_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct machine *m = opaque;
    memcpy(m->regs + offset, &value, size);
    m->dev_writes++;
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct machine *m = opaque;
    (void)size;
    return offset == 0xf0 - 0xe0 ? m->next++ : 0;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct machine *m = opaque;
    (void)size;
    if (offset == 0xe9 - 0xe0 && m->n_text < sizeof(m->text) - 1) {
        m->text[m->n_text++] = (char)value;
    } else if (offset == 0xf4 - 0xe0) {
        m->code = (int)value;
        vm_request(m->vm, VM_REQ_POWEROFF, "guest-poweroff");
    }
}

static const struct mem_io_ops dev_ops = { .read = dev_read, .write = dev_write };
static const struct mem_io_ops port_ops = { .read = port_read, .write = port_write };

static void on_reset(void *arg)
{
    struct machine *m = arg;
    struct vcpu *c = m->vm->vcpus[0];
    struct x86_cpu *x = c->cpu;
    memcpy(mem_ram_host(m->ram) + 0x8000, guests_begin, (size_t)(guests_end - guests_begin));
    if (m->real) {
        x->seg[X86_CS].selector = 0;
        x->seg[X86_CS].base = 0;
        x->rip = at(m->entry);
    } else {
        m->vm->arch->cpu_boot(c, at(m->entry), 0, 0, 0);
    }
    if (m->resets++ == 3) {
        vm_request(m->vm, VM_REQ_POWEROFF, "guest-poweroff");
    }
}

static void on_state(void *arg, enum vm_state state, const char *reason)
{
    struct machine *m = arg;
    (void)reason;
    if (state == VM_STOPPED || (state == VM_PAUSED && strcmp(reason, "debug") == 0)) {
        m->stops++;
        loop_quit(m->loop);
    }
}

static void on_debug(void *arg)
{
    (void)arg; /* on_state is called, too */
}

static void machine_init(struct machine *m, const uint8_t *entry, bool real, unsigned cpus)
{
    struct err e = ERR_INIT;
    memset(m, 0, sizeof(*m));
    m->entry = entry;
    m->real = real;
    m->config.fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    m->config.pid = getpid();
    m->loop = loop_new(&e);
    ck_assert_msg(vm_new("t", &x86_64_arch, &kvm_engine_ops, m->loop, &m->config, &m->vm, &e) ==
                      0,
                  "%s", e.msg);
    ck_assert_msg(vm_add_vcpus(m->vm, cpus, "max", &e) == 0, "%s", e.msg);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &m->ram, &e), 0);
    ck_assert_int_eq(mem_new_rom("rom", 0x20000, &m->rom, &e), 0);
    m->dev = mem_new_io("dev", 4096, &dev_ops, m, NULL);
    m->ports = mem_new_io("ports", 32, &port_ops, m, NULL);
    ck_assert_int_eq(mem_map(m->vm->root, 0, 0, m->ram, &e), 0);
    ck_assert_int_eq(mem_map(m->vm->root, 0xe0000, 1, m->rom, &e), 0);
    ck_assert_int_eq(mem_map(m->vm->root, 0xd0000000, 0, m->dev, &e), 0);
    ck_assert_int_eq(mem_map(m->vm->port_root, 0xe0, 0, m->ports, &e), 0);
    m->vm->on_reset = on_reset;
    m->vm->on_reset_arg = m;
    m->vm->on_debug = on_debug;
    m->vm->on_state = on_state;
    m->vm->on_state_arg = m;
    ck_assert_msg(vm_start(m->vm, &e) == 0, "%s", e.msg);
}

static void machine_run(struct machine *m)
{
    struct err e = ERR_INIT;
    vm_resume(m->vm);
    ck_assert_msg(loop_run(m->loop, &e) == 0, "%s", e.msg);
}

static void machine_done(struct machine *m)
{
    struct mem_region *mine[] = { m->ram, m->rom, m->dev, m->ports };
    vm_stop(m->vm, "end");
    for (unsigned i = 0; i < ARRAY_LEN(mine); i++) {
        mem_unmap(mine[i]);
    }
    vm_free(m->vm);
    for (unsigned i = 0; i < ARRAY_LEN(mine); i++) {
        mem_free(mine[i]);
    }
    loop_free(m->loop);
    close(m->config.fd);
}

static void run_well(const uint8_t *entry, bool real, unsigned cpus)
{
    struct machine m;
    machine_init(&m, entry, real, cpus);
    machine_run(&m);
    ck_assert_int_eq(m.code, 1);
    machine_done(&m);
}

START_TEST(real_mode_computes_and_prints)
{
    struct machine m;
    machine_init(&m, r_real, true, 1);
    machine_run(&m);
    ck_assert_int_eq(m.code, 1);
    ck_assert_str_eq(m.text, "real");
    machine_done(&m);
}
END_TEST

START_TEST(long_mode_pages_faults_mmio_and_timer)
{
    run_well(p_long, false, 1);
}
END_TEST

START_TEST(four_processors_start_and_answer_ipis)
{
    run_well(r_smp, true, 4);
}
END_TEST

START_TEST(triple_fault_resets)
{
    struct machine m;
    machine_init(&m, p_triple, false, 1);
    machine_run(&m);
    ck_assert_uint_eq(m.resets, 4);
    machine_done(&m);
}
END_TEST

START_TEST(dirty_log_has_what_the_guest_wrote)
{
    struct machine m;
    uint64_t bits[RAM_SIZE / 4096 / 64 + 1], left[RAM_SIZE / 4096 / 64 + 1];
    machine_init(&m, p_dirty, false, 1);
    mem_dirty_start(m.vm->mem);
    ck_assert_uint_le((mem_ram_pages(m.vm->mem) + 63) / 64, ARRAY_LEN(bits));
    machine_run(&m);
    ck_assert_int_eq(m.code, 1);
    mem_dirty_take(m.vm->mem, bits);
    for (unsigned page = 0x200; page < RAM_SIZE / 4096; page++) {
        bool want = (page - 0x200) % 3 == 0 && (page - 0x200) / 3 < 16;
        ck_assert_msg((bits[page / 64] >> page % 64 & 1) == want, "page 0x%x", page);
    }
    mem_dirty_take(m.vm->mem, left);
    for (unsigned i = 0; i < (mem_ram_pages(m.vm->mem) + 63) / 64; i++) {
        ck_assert_uint_eq(left[i], 0);
    }
    mem_dirty_stop(m.vm->mem);
    machine_done(&m);
}
END_TEST

static uint64_t rip(struct machine *m)
{
    struct vcpu *c = m->vm->vcpus[0];
    m->vm->engine->regs_get(c);
    return ((struct x86_cpu *)c->cpu)->rip;
}

static void go_on(struct machine *m)
{
    vm_debug_clear(m->vm);
    machine_run(m);
}

static void debug_with(unsigned n)
{
    /* With more than the processor has, the others are where nothing runs. */
    const uint64_t all[6] = { at(step_1), at(step_3), 0x700000, 0x700001, 0x700002, 0x700003 };
    const struct engine_ops *ops = &kvm_engine_ops;
    struct machine m;
    uint64_t gpa = 0;
    machine_init(&m, p_steps, false, 1);
    ck_assert_int_eq(ops->debug_breakpoints(m.vm, all, n), 0);
    ck_assert(ops->debug_translate(m.vm->vcpus[0], 0x8123, &gpa));
    ck_assert_uint_eq(gpa, 0x8123);
    machine_run(&m);
    ck_assert_uint_eq(rip(&m), at(step_1));
    ck_assert_int_eq(ops->debug_breakpoints(m.vm, all + 1, n - 1), 0);
    ops->debug_step(m.vm->vcpus[0], true);
    go_on(&m);
    ck_assert_uint_eq(rip(&m), at(step_2));
    ops->debug_step(m.vm->vcpus[0], false);
    go_on(&m);
    ck_assert_uint_eq(rip(&m), at(step_3));
    struct x86_cpu *x = m.vm->vcpus[0]->cpu;
    ck_assert_uint_eq(x->gpr[X86_RAX], 2);
    x->gpr[X86_RAX] = 1998; /* the debugger shortens it */
    ops->regs_put(m.vm->vcpus[0]);
    ck_assert_int_eq(ops->debug_breakpoints(m.vm, NULL, 0), 0);
    go_on(&m);
    ck_assert_int_eq(m.code, 1);
    machine_done(&m);
}

START_TEST(breakpoints_and_steps)
{
    debug_with(2);
    debug_with(6);
}
END_TEST

START_TEST(kicks_lose_no_access)
{
    struct machine m;
    unsigned pauses = 0;
    struct err e = ERR_INIT;
    machine_init(&m, p_ports, false, 1);
    vm_resume(m.vm);
    while (m.vm->state != VM_STOPPED) {
        vm_pause(m.vm);
        kvm_engine_ops.regs_get(m.vm->vcpus[0]);
        if (pauses % 2) {
            kvm_engine_ops.regs_put(m.vm->vcpus[0]); /* the whole state out and in */
        }
        pauses++;
        vm_resume(m.vm);
        ck_assert_int_eq(loop_run_once(m.loop, 1, &e), 0);
    }
    ck_assert_int_eq(m.code, 1);
    ck_assert_uint_gt(pauses, 2);
    machine_done(&m);
}
END_TEST

/* The guest waits for the count. */
static void on_bell(void *arg, unsigned n)
{
    struct machine *m = arg;
    ck_assert_uint_lt(m->n_rung, ARRAY_LEN(m->rung));
    m->rung[m->n_rung++] = n;
    *(volatile uint32_t *)(void *)(mem_ram_host(m->ram) + 0x600) = m->n_rung;
}

START_TEST(bells_ring_without_an_exit)
{
    const struct mem_bells values = {
        .offset = 0x100, .size = 4, .count = 3, .match = true, .rung = on_bell
    };
    const struct mem_bells places = { .step = 4, .size = 2, .count = 4, .rung = on_bell };
    struct mem_bells mine[2] = { values, places };
    struct err e = ERR_INIT;
    AUTO_BUF stats = BUF_INIT;
    struct machine m;
    machine_init(&m, p_bells, false, 1);
    struct mem_region *other = mem_new_io("other", 16, &dev_ops, &m, NULL);
    mine[0].arg = mine[1].arg = &m;
    mem_set_bells(m.dev, &mine[0]);
    mem_set_bells(other, &mine[1]);
    ck_assert_int_eq(mem_map(m.vm->root, 0xd0008000, 0, other, &e), 0);
    mem_commit(m.vm->mem);
    mem_unmap(other);
    ck_assert_int_eq(mem_map(m.vm->root, 0xd0001000, 0, other, &e), 0);
    mem_commit(m.vm->mem);
    memset(mem_ram_host(m.ram) + 0x600, 0, 4);
    machine_run(&m);
    ck_assert_int_eq(m.code, 1);
    ck_assert_uint_eq(m.n_rung, 3);
    ck_assert(m.rung[0] == 0 && m.rung[1] == 2 && m.rung[2] == 1);
    ck_assert_uint_eq(m.dev_writes, 1);
    ck_assert_uint_eq(m.regs[0x100], 9);
    kvm_engine_ops.stats(m.vm, &stats);
    buf_add(&stats, "", 1);
    ck_assert_ptr_nonnull(strstr((const char *)stats.data, "bells 7 "));
    ck_assert_ptr_nonnull(strstr((const char *)stats.data, "rings 3 "));
    mem_unmap(other);
    mem_commit(m.vm->mem);
    machine_done(&m);
    mem_free(other);
}
END_TEST

START_TEST(state_goes_on_in_another_machine)
{
    struct machine a, b;
    AUTO_BUF saved = BUF_INIT;
    struct err e = ERR_INIT;
    size_t used;
    machine_init(&a, p_count, false, 1);
    machine_init(&b, p_count, false, 1);
    vm_resume(a.vm);
    while (*(volatile uint32_t *)(mem_ram_host(a.ram) + 0x600) == 0) {
    }
    vm_pause(a.vm);
    kvm_engine_ops.regs_get(a.vm->vcpus[0]);
    st_save(x86_64_arch.state, a.vm->vcpus[0]->cpu, &saved);
    memcpy(mem_ram_host(b.ram), mem_ram_host(a.ram), RAM_SIZE);
    ck_assert_msg(st_load(x86_64_arch.state, b.vm->vcpus[0]->cpu, sizeof(struct x86_cpu),
                          saved.data, saved.len, &used, &e) == 0,
                  "%s", e.msg);
    kvm_engine_ops.regs_put(b.vm->vcpus[0]);
    machine_run(&b);
    ck_assert_int_eq(b.code, 1);
    const uint32_t *out = (const uint32_t *)(const void *)(mem_ram_host(b.ram) + 0x600);
    ck_assert_uint_eq(out[0], 300000);
    ck_assert_uint_eq(out[1], (uint32_t)(300000ull * 300001 / 2));
    machine_done(&a);
    machine_done(&b);
}
END_TEST

START_TEST(models_name_what_the_host_lacks)
{
    struct machine m;
    struct err e = ERR_INIT;
    struct x86_features f;
    machine_init(&m, r_real, true, 1);
    const struct x86_features *host = &((struct x86_cpu *)m.vm->vcpus[0]->cpu)->offered;
    ck_assert_int_eq(x86_features_make("host", host, 0, 1, &f, &e), 0);
    ck_assert_int_eq(x86_features_make("x86-64", host, 0, 1, &f, &e), 0);
    ck_assert(!x86_has(&f, "avx2"));
    ck_assert_int_eq(x86_features_make("486", host, 0, 1, &f, &e), -EINVAL);
    ck_assert_int_eq(x86_features_make("max,+nonsense", host, 0, 1, &f, &e), -EINVAL);
    if (!x86_has(host, "svm") && !x86_has(host, "vmx")) {
        ck_assert_int_eq(x86_features_make("x86-64,+svm,+vmx", host, 0, 1, &f, &e), -ENOTSUP);
        ck_assert_ptr_nonnull(strstr(e.msg, "svm, vmx"));
    }
    machine_done(&m);
}
END_TEST

/* Saved on a machine with one feature more, which has a name or none. */
START_TEST(state_of_a_bigger_cpu_is_refused_by_name)
{
    struct machine m;
    struct err e = ERR_INIT;
    machine_init(&m, r_real, true, 1);
    struct x86_cpu *c = m.vm->vcpus[0]->cpu;
    const struct {
        uint32_t leaf, reg, bit;
        const char *name;
    } more[] = { { 7, X86_EBX, 16, "avx512f" },
                 { 1, X86_ECX, 2, "CPUID 0x1.0 ecx bit 2" },
                 { 1, X86_EDX, 28, NULL } }; /* several processors: follows from elsewhere */
    for (unsigned i = 0; i < ARRAY_LEN(more); i++) {
        AUTO_BUF saved = BUF_INIT;
        struct x86_cpuid *l = x86_leaf(&c->features, more[i].leaf, 0);
        size_t used;
        ck_assert_ptr_nonnull(l);
        uint32_t mine = l->reg[more[i].reg], bit = 1u << more[i].bit;
        l->reg[more[i].reg] = mine | bit;
        x86_features_words(&c->features, c->cpuid);
        st_save(x86_64_arch.state, c, &saved);
        int same = st_load(x86_64_arch.state, c, sizeof(*c), saved.data, saved.len, &used, &e);
        ck_assert_msg(same == 0, "%s", e.msg);
        l->reg[more[i].reg] = mine & ~bit;
        int rc = st_load(x86_64_arch.state, c, sizeof(*c), saved.data, saved.len, &used, &e);
        ck_assert_int_eq(rc, more[i].name ? -ENOTSUP : 0);
        ck_assert_msg(!more[i].name || strstr(e.msg, more[i].name), "%s", e.msg);
        ck_assert_msg(!more[i].name || strstr(e.msg, "cpuid"), "%s", e.msg);
        l->reg[more[i].reg] = mine;
        x86_features_words(&c->features, c->cpuid);
    }
    machine_done(&m);
}
END_TEST

START_TEST(missing_kvm_is_told_with_a_remedy)
{
    struct err e = ERR_INIT;
    ck_assert_int_eq(kvm_usable(-1, "x86_64", &e), -ENODEV);
    ck_assert_ptr_nonnull(strstr(e.msg, "kvm_intel"));
    AUTO_FD fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(kvm_usable(fd, "x86_64", &e), -ENOTSUP);
    ck_assert_int_eq(kvm_usable(fd, "riscv64", &e), -ENOTSUP);
}
END_TEST

static Suite *kvm_suite(void)
{
    Suite *s = suite_create("kvm");
    TCase *t = tcase_create("guests");
    tcase_set_timeout(t, 120); /* a guard against hangs only */
    tcase_add_test(t, missing_kvm_is_told_with_a_remedy);
    tcase_add_test(t, models_name_what_the_host_lacks);
    tcase_add_test(t, state_of_a_bigger_cpu_is_refused_by_name);
    tcase_add_test(t, real_mode_computes_and_prints);
    tcase_add_test(t, long_mode_pages_faults_mmio_and_timer);
    tcase_add_test(t, four_processors_start_and_answer_ipis);
    tcase_add_test(t, triple_fault_resets);
    tcase_add_test(t, dirty_log_has_what_the_guest_wrote);
    tcase_add_test(t, breakpoints_and_steps);
    tcase_add_test(t, kicks_lose_no_access);
    tcase_add_test(t, bells_ring_without_an_exit);
    tcase_add_test(t, state_goes_on_in_another_machine);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    AUTO_FD fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    struct err e = ERR_INIT;
    if (fd < 0 || kvm_usable(fd, "x86_64", &e) != 0) {
        printf("skipped: %s\n", fd < 0 ? "/dev/kvm is missing or may not be opened" : e.msg);
        return 77;
    }
    return test_main(argc, argv, kvm_suite, NULL);
}
#else
int main(void)
{
    printf("skipped: these guests are x86-64's, and this host is not\n");
    return 77;
}
#endif
