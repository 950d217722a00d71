/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole rv-virt board on a VM that runs no code: random access to every register, rings of
 * random bytes, resets, the device tree, the list of state fields against its golden.
 */
#include "devices/board/board.h"
#include "devices/registry.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/arch/x86/cpu.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "storage/block.h"
#include "tests/device/rig.h"
#include "tests/lib/testing.h"

#include <fcntl.h>
#include <libfdt.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_SIZE (16u << 20)
#define DISK_SIZE (1u << 20)

struct rv {
    struct rig r; /* ram stays NULL: it is the board's */
    struct board *board;
    struct blk_pool *pool;
    struct rig_chr chr;
    int image;
};

/* An anonymous file of n bytes. */
static int memory_file(const void *p, size_t n)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fd_write_all(fd, p, n, "test", NULL), 0);
    return fd;
}

static int build(struct rv *v, struct board_config *c, struct err *e)
{
    struct blk_options o = { .name = "root", .driver = "raw", .path = "test" };
    AUTO_FREE char *zero = xalloc(DISK_SIZE);

    memset(v, 0, sizeof(*v));
    rig_chr_init(&v->chr, 1u << 30);
    v->r.loop = loop_new(e);
    ck_assert_int_eq(vm_new("rv", c->xlen == 32 ? &riscv32_arch : &riscv64_arch, &rig_engine,
                            v->r.loop, NULL, &v->r.vm, e),
                     0);
    ck_assert_int_eq(blk_pool_new(v->r.loop, &(struct blk_pool_options){ 0 }, &v->pool, e), 0);
    o.fd = memory_file(zero, DISK_SIZE);
    ck_assert_msg(blk_open(v->pool, &o, &c->disk[0].node, e) == 0, "%s", e->msg);
    c->disk[0].name = "root";
    c->n_disks = 1;
    c->console = &v->chr.chr;
    v->image = c->firmware.fd;
    return rv_virt_board.build(v->r.vm, c, &v->board, e);
}

static void rv_free(struct rv *v)
{
    vm_free(v->r.vm);
    rv_virt_board.free(v->board);
    blk_pool_free(v->pool);
    loop_free(v->r.loop);
    close(v->image);
}

static struct board_config config(void)
{
    static const uint32_t code[] = { 0x10500073, 0xffdff06f }; /* wfi; j back */

    return (struct board_config){
        .xlen = 64,
        .cpu_model = "max",
        .cpus = 4,
        .memory = RAM_SIZE,
        .firmware = { .path = "firmware", .fd = memory_file(code, sizeof(code)) },
        .append = "console=ttyS0",
        .rng = true,
    };
}

static void rv_new(struct rv *v, struct board_config c)
{
    struct err e = ERR_INIT;

    ck_assert_msg(build(v, &c, &e) == 0, "%s", e.msg);
}

/* --- random access --- */

static const struct {
    uint64_t base, size;
} places[] = {
    { 0x1000, 0xf000 },     { 0x100000, 0x1000 },    { 0x101000, 0x1000 },
    { 0x2000000, 0x10000 }, { 0xc000000, 0x600000 }, { 0x10000000, 0x100 },
    { 0x10001000, 0x8000 }, { 0x10100000, 0x18 },
};

/* Mostly small offsets, where the registers are. */
static uint64_t pick_address(uint64_t *seed)
{
    unsigned i = test_random(seed) % ARRAY_LEN(places);
    uint64_t at = test_random(seed);

    switch (test_random(seed) % 4) {
    case 0:
        at %= places[i].size;
        break;
    case 1:
        at = (at % (places[i].size / 4)) * 4;
        break;
    default:
        at %= places[i].size < 0x200 ? places[i].size : 0x200;
        at += i == 6 ? (test_random(seed) % 8) * 0x1000 : 0;
    }
    return places[i].base + at;
}

static uint64_t pick_value(uint64_t *seed)
{
    uint64_t v = test_random(seed);

    switch (test_random(seed) % 6) {
    case 0:
        return v % 16;
    case 1:
        return 1ull << (v % 64);
    case 2:
        return (uint32_t)RIG_RAM + (v % RAM_SIZE & ~15ull); /* rings and DMA find RAM */
    case 3:
        return UINT64_MAX;
    default:
        return v;
    }
}

/* What a guest does to a device that is set up: queues with addresses in RAM, full of noise. */
static void random_queue(struct rv *v, uint64_t *seed)
{
    struct rig *r = &v->r;
    uint64_t at = 0x10001000 + (test_random(seed) % 3) * 0x1000;
    uint8_t *ram = mem_dma_map(r->vm->mem, RIG_RAM, RAM_SIZE, true);

    for (unsigned i = 0; i < 4096; i += 8) {
        uint64_t noise = test_random(seed);

        if (i % 16 == 0 && noise % 4) {
            noise = RIG_RAM + noise % RAM_SIZE; /* an address */
        } else if (i % 16 == 8 && noise % 4) {
            noise &= 0x0007000700000fffull; /* a plausible length, flags and next */
        }
        memcpy(ram + i, &noise, 8);
    }
    wr32(r, at + 0x70, 0);
    wr32(r, at + 0x70, 3);
    wr32(r, at + 0x24, 1);
    wr32(r, at + 0x20, 1);
    wr32(r, at + 0x24, 0);
    wr32(r, at + 0x20, (uint32_t)test_random(seed) & 0x30000200);
    wr32(r, at + 0x70, 11);
    wr32(r, at + 0x30, (uint32_t)(test_random(seed) % 2));
    wr32(r, at + 0x38, 8);
    wr32(r, at + 0x80, (uint32_t)RIG_RAM);
    wr32(r, at + 0x90, (uint32_t)RIG_RAM + 2048);
    wr32(r, at + 0xa0, (uint32_t)RIG_RAM + 3072);
    wr32(r, at + 0x44, 1);
    wr32(r, at + 0x70, 15);
    for (unsigned i = 0; i < 20; i++) {
        uint16_t *idx = (uint16_t *)(void *)(ram + 2050);

        *idx += (uint16_t)(test_random(seed) % 4);
        wr32(r, at + 0x50, (uint32_t)(test_random(seed) % 3));
        rig_turn(r);
    }
}

static void save_and_load_all(struct rv *v)
{
    list_for_each (it, &v->r.vm->devices) {
        struct device *d = list_entry(it, struct device, node);

        while (d->cls->quiesce && !d->cls->quiesce(d)) {
            ck_assert_int_eq(loop_run_once(v->r.loop, 1000000, NULL), 0);
        }
    }
    list_for_each (it, &v->r.vm->devices) {
        struct device *d = list_entry(it, struct device, node);

        if (d->cls->state) {
            rig_state_round_trip(d);
        }
    }
}

static void hammer(struct rv *v, uint64_t *seed, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t at = pick_address(seed);
        unsigned size = 1u << (test_random(seed) % 4);

        if (test_random(seed) % 3) {
            rig_write(&v->r, at, pick_value(seed), size);
        } else {
            (void)rig_read(&v->r, at, size);
        }
        if (i % 64 == 0 && v->chr.chr.front) {
            const struct chr_front_ops *f = v->chr.chr.front;

            if (f->room(v->chr.chr.front_arg) > 0) {
                f->receive(v->chr.chr.front_arg, (const uint8_t *)"x", 1);
            }
            rig_turn(&v->r);
        }
        if (i % 512 == 0) {
            random_queue(v, seed);
        }
    }
}

START_TEST(device_regs_survive_random_access)
{
    uint64_t seed = test_seed();
    unsigned resets = 0;

    for (unsigned vm = 0; vm < 24; vm++) {
        struct rv v;
        struct board_config c = config();

        c.virtio_console = vm % 2;
        rv_new(&v, c);
        rig_start(&v.r);
        for (unsigned i = 0; i < 8 && v.r.vm->state == VM_RUNNING; i++) {
            hammer(&v, &seed, 4000);
            vm_pause(v.r.vm);
            if (v.r.vm->state == VM_PAUSED) {
                save_and_load_all(&v);
            }
            vm_resume(v.r.vm);
            if (i % 3 == 2) {
                vm_reset(v.r.vm);
                resets++;
            }
        }
        rv_free(&v);
    }
    printf("# %u resets\n", resets);
}
END_TEST

/* --- reset, device tree, configurations --- */

START_TEST(reset_reloads_firmware_and_device_tree)
{
    struct rv v;
    uint32_t size;
    uint64_t entry, tree;

    rv_new(&v, config());
    rig_start(&v.r);
    entry = rig_read(&v.r, 0x1018, 8);
    tree = rig_read(&v.r, 0x1020, 8);
    ck_assert_uint_eq(entry, RIG_RAM);
    ck_assert_uint_eq(rd32(&v.r, entry), 0x10500073);
    ck_assert_uint_eq(rd32(&v.r, tree), 0xedfe0dd0);
    ck_assert_ptr_nonnull(rv_virt_board.fdt(v.board, &size));
    wr32(&v.r, entry, 0);
    wr32(&v.r, tree, 0);
    wr32(&v.r, 0x1018, 0); /* boot ROM: denied */
    vm_reset(v.r.vm);
    ck_assert_uint_eq(rig_read(&v.r, 0x1018, 8), entry);
    ck_assert_uint_eq(rd32(&v.r, entry), 0x10500073);
    ck_assert_uint_eq(rd32(&v.r, tree), 0xedfe0dd0);
    rv_free(&v);
}
END_TEST

static int node_at(const void *fdt, const char *path)
{
    int node = fdt_path_offset(fdt, path);

    ck_assert_msg(node >= 0, "no node %s", path);
    return node;
}

static uint32_t cell(const void *fdt, const char *path, const char *prop, unsigned i)
{
    int len = 0;
    const fdt32_t *p = fdt_getprop(fdt, node_at(fdt, path), prop, &len);

    ck_assert_msg(p && len >= (int)(4 * (i + 1)), "%s has no %s[%u]", path, prop, i);
    return fdt32_to_cpu(p[i]);
}

static void check_str(const void *fdt, const char *path, const char *prop, const char *want)
{
    const char *s = fdt_getprop(fdt, node_at(fdt, path), prop, NULL);

    ck_assert_msg(s && strcmp(s, want) == 0, "%s %s is '%s'", path, prop, s ? s : "absent");
}

/* Addresses and interrupts are those of QEMU's virt board (its dumpdtb, 7.2). */
START_TEST(device_tree_is_address_compatible)
{
    static const struct {
        const char *path, *compatible;
        uint32_t at, size, irq;
    } nodes[] = {
        { "/soc/serial@10000000", "ns16550a", 0x10000000, 0x100, 10 },
        { "/soc/rtc@101000", "google,goldfish-rtc", 0x101000, 0x1000, 11 },
        { "/soc/vmgenid@1000a000", "microsoft,vmgenid", 0x1000a000, 0x1000, 13 },
        { "/soc/test@100000", "sifive,test1", 0x100000, 0x1000, 0 },
        { "/soc/clint@2000000", "sifive,clint0", 0x2000000, 0x10000, 0 },
        { "/soc/plic@c000000", "sifive,plic-1.0.0", 0xc000000, 0x600000, 0 },
        { "/soc/virtio_mmio@10001000", "virtio,mmio", 0x10001000, 0x1000, 1 },
        { "/soc/virtio_mmio@10008000", "virtio,mmio", 0x10008000, 0x1000, 8 },
        { "/fw-cfg@10100000", "qemu,fw-cfg-mmio", 0x10100000, 0x18, 0 },
    };
    struct rv v;
    uint32_t size, n = 0;
    const void *fdt;

    rv_new(&v, config());
    fdt = rv_virt_board.fdt(v.board, &size);
    ck_assert_int_eq(fdt_check_full(fdt, size), 0);
    for (unsigned i = 0; i < ARRAY_LEN(nodes); i++) {
        check_str(fdt, nodes[i].path, "compatible", nodes[i].compatible);
        ck_assert_uint_eq(cell(fdt, nodes[i].path, "reg", 1), nodes[i].at);
        ck_assert_uint_eq(cell(fdt, nodes[i].path, "reg", 3), nodes[i].size);
        if (nodes[i].irq) {
            ck_assert_uint_eq(cell(fdt, nodes[i].path, "interrupts", 0), nodes[i].irq);
            ck_assert_uint_eq(cell(fdt, nodes[i].path, "interrupt-parent", 0),
                              cell(fdt, "/soc/plic@c000000", "phandle", 0));
        }
    }
    check_str(fdt, "/chosen", "bootargs", "console=ttyS0");
    check_str(fdt, "/chosen", "stdout-path", "/soc/serial@10000000");
    check_str(fdt, "/cpus/cpu@3", "mmu-type", "riscv,sv57");
    check_str(fdt, "/cpus/cpu@3", "riscv,isa-base", "rv64i");
    check_str(fdt, "/cpus/cpu@3", "riscv,isa-extensions", "i");
    ck_assert_uint_eq(cell(fdt, "/cpus", "timebase-frequency", 0), 10000000);
    ck_assert_uint_eq(cell(fdt, "/memory@80000000", "reg", 3), RAM_SIZE);
    ck_assert_uint_eq(cell(fdt, "/soc/plic@c000000", "riscv,ndev", 0), 96);
    ck_assert_uint_eq(cell(fdt, "/soc/plic@c000000", "interrupts-extended", 4 * 4 - 1), 9);
    ck_assert_uint_eq(cell(fdt, "/poweroff", "value", 0), 0x5555);
    ck_assert_uint_eq(cell(fdt, "/reboot", "regmap", 0),
                      cell(fdt, "/soc/test@100000", "phandle", 0));
    for (int node = fdt_next_node(fdt, -1, NULL); node >= 0;
         node = fdt_next_node(fdt, node, NULL)) {
        n += fdt_getprop(fdt, node, "phandle", NULL) != NULL;
    }
    ck_assert_uint_eq(n, 2 + 2 * 4);
    rv_free(&v);
}
END_TEST

START_TEST(riscv32_board_has_32_bit_boot_code_and_sv32)
{
    struct rv v;
    struct board_config c = config();
    uint32_t size;
    const void *fdt;

    c.xlen = 32;
    rv_new(&v, c);
    fdt = rv_virt_board.fdt(v.board, &size);
    check_str(fdt, "/cpus/cpu@0", "mmu-type", "riscv,sv32");
    rig_start(&v.r);
    ck_assert_uint_eq(rd32(&v.r, 0x100c), 0x0202a583); /* lw a1, 32(t0) */
    ck_assert_uint_eq(rd32(&v.r, 0x1028), 0x4942534f);
    ck_assert_uint_eq(rd32(&v.r, 0x102c), 2);
    rv_free(&v);
}
END_TEST

static uint64_t pc_of(const struct rv *v, unsigned hart)
{
    return ((const struct riscv_cpu *)v->r.vm->vcpus[hart]->cpu)->pc;
}

/* OpenSBI 1.1 may start the kernel twice when harts poll while it starts them. */
START_TEST(harts_wait_for_an_interrupt_when_firmware_starts_a_kernel)
{
    static const uint32_t wfi = 0x10500073;
    struct rv v;
    struct board_config c = config();

    rv_new(&v, c);
    rig_start(&v.r);
    ck_assert_uint_eq(pc_of(&v, 0), 0x1000);
    ck_assert_uint_eq(pc_of(&v, 3), 0x1000); /* firmware alone has them all, as on QEMU */
    rv_free(&v);
    c = config();
    c.kernel.path = "kernel";
    c.kernel.fd = memory_file(&wfi, sizeof(wfi));
    rv_new(&v, c);
    rig_start(&v.r);
    for (unsigned turn = 0; turn < 2; turn++) {
        ck_assert_uint_eq(pc_of(&v, 0), 0x1000);
        for (unsigned i = 1; i < 4; i++) {
            ck_assert_uint_eq(pc_of(&v, i), 0x1080);
        }
        vm_reset(v.r.vm);
    }
    ck_assert_uint_eq(rd32(&v.r, 0x1088), wfi);
    rv_free(&v);
    close(c.kernel.fd);
}
END_TEST

static void refused(struct board_config c, const char *word)
{
    struct rv v;
    struct err e = ERR_INIT;

    ck_assert_int_lt(build(&v, &c, &e), 0);
    ck_assert_msg(strstr(e.msg, word) != NULL, "message is '%s'", e.msg);
    rv_free(&v);
}

START_TEST(impossible_configurations_are_refused)
{
    struct board_config c = config();
    char big[8192] = { 0 };

    c.firmware.path = NULL;
    refused(c, "nothing to run");
    c = config();
    c.initrd = c.firmware;
    refused(c, "needs a kernel");
    c = config();
    c.cpus = 65;
    refused(c, "vCPUs");
    c = config();
    c.cpu_model = "m68k";
    refused(c, "m68k");
    c = config();
    c.xlen = 32;
    c.memory = 4ull << 30;
    refused(c, "2 GiB");
    c = config();
    c.memory = 4096;
    c.firmware.fd = memory_file(big, sizeof(big));
    refused(c, "firmware");
    c = config();
    c.memory = 4096;
    refused(c, "device tree");
    c = config();
    c.kernel = (struct board_file){ .path = "kernel", .fd = memory_file("", 0) };
    refused(c, "empty");
}
END_TEST

/* --- state golden --- */

static void list_fields(struct buf *b, const char *prefix, const struct st_table *t)
{
    static const char *const kinds[] = {
        [ST_U8] = "u8",   [ST_U16] = "u16",       [ST_U32] = "u32",
        [ST_U64] = "u64", [ST_BOOL] = "bool",     [ST_BYTES] = "bytes",
        [ST_BUF] = "buf", [ST_STRUCT] = "struct", [ST_TIMER] = "timer",
    };

    for (const struct st_field *f = t->fields; f->name; f++) {
        buf_printf(b, "%s.%s %s %u since %u%s\n", prefix, f->name, kinds[f->kind], f->count,
                   f->since, f->flags & ST_OPTIONAL ? " optional" : "");
        if (f->kind == ST_STRUCT) {
            AUTO_FREE char *inner = xasprintf("%s.%s", prefix, f->name);

            list_fields(b, inner, f->table);
        }
    }
}

/* A field that changes here breaks the restore of older snapshots: add fields with a higher
 * `since` instead. */
START_TEST(state_fields_match_the_golden)
{
    AUTO_BUF have = BUF_INIT;
    AUTO_BUF want = BUF_INIT;
    const char *src = getenv("VMD_SRCDIR");
    AUTO_FREE char *path = xasprintf("%s/tests/device/state.golden", src ? src : ".");

    static const struct arch_ops *const archs[] = { &riscv64_arch, &x86_64_arch };

    for (unsigned i = 0; i < ARRAY_LEN(archs); i++) {
        AUTO_FREE char *name = xasprintf("vcpu-%s", archs[i]->name);

        buf_printf(&have, "%s version %u\n", name, archs[i]->state->version);
        list_fields(&have, name, archs[i]->state);
    }
    for (unsigned i = 0; device_classes()[i]; i++) {
        const struct device_class *cls = device_classes()[i];

        if (cls->state) {
            buf_printf(&have, "%s version %u\n", cls->name, cls->state->version);
            list_fields(&have, cls->name, cls->state);
        }
    }
    if (getenv("VMD_WRITE_GOLDEN")) {
        ck_assert_int_eq(file_replace(path, have.data, have.len, 0644, NULL), 0);
    }
    ck_assert_msg(file_slurp(path, &want, 1 << 20, NULL) == 0, "no %s", path);
    ck_assert_str_eq(have.data, want.data);
}
END_TEST

static Suite *suite_board(void)
{
    Suite *s = suite_create("board");
    TCase *t = tcase_create("rv-virt");

    tcase_set_timeout(t, 600);
    tcase_add_test(t, device_regs_survive_random_access);
    tcase_add_test(t, reset_reloads_firmware_and_device_tree);
    tcase_add_test(t, device_tree_is_address_compatible);
    tcase_add_test(t, riscv32_board_has_32_bit_boot_code_and_sv32);
    tcase_add_test(t, harts_wait_for_an_interrupt_when_firmware_starts_a_kernel);
    tcase_add_test(t, impossible_configurations_are_refused);
    tcase_add_test(t, state_fields_match_the_golden);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_board, NULL);
}
