/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVMe as a driver sees it: queues made by hand in guest RAM, commands right and wrong, on a disk
 * in memory.
 */
#include "devices/block/nvme_namespaces.h"
#include "devices/registry.h"
#include "engine/base/mem.h"
#include "storage/block.h"
#include "tests/device/pci_rig.h"
#include "tests/lib/testing.h"

#include <endian.h>
#include <sys/mman.h>
#include <unistd.h>

#define FN PCI_DEVFN(2, 0)
#define BAR PCI_MMIO
#define ENTRIES 8
#define DISK (1u << 20)
#define SQ(q) (RIG_RAM + 0x10000u * (q) + 0x1000)
#define CQ(q) (RIG_RAM + 0x10000u * (q) + 0x2000)
#define DATA (RIG_RAM + 0x40000)
#define LIST (RIG_RAM + 0x30000)

enum {
    DELETE_SQ = 0,
    CREATE_SQ = 1,
    GET_LOG = 2,
    DELETE_CQ = 4,
    CREATE_CQ = 5,
    IDENTIFY = 6,
    ABORT = 8,
    SET_FEATURES = 9,
    GET_FEATURES = 10,
    EVENT = 12,
    FORMAT = 0x80
};
enum { FLUSH = 0, WRITE = 1, READ = 2, COMPARE = 5, ZEROES = 8, DSM = 9 };

struct cmd {
    uint8_t opcode, flags;
    uint16_t cid;
    uint32_t nsid;
    uint64_t reserved, metadata, prp1, prp2;
    uint32_t dw[6]; /* 10 to 15 */
};

struct nv {
    struct pci_rig p;
    struct device *d;
    struct blk_pool *pool;
    uint16_t tail[3], head[3], cid;
    bool phase[3];
    uint32_t dw0;
};

static void nv_new(struct nv *v)
{
    struct nvme_namespaces *ns = xnew(struct nvme_namespaces);
    struct err e = ERR_INIT;

    memset(v, 0, sizeof(*v));
    pci_rig_new(&v->p);
    ck_assert_int_eq(blk_pool_new(v->p.r->loop,
                                  &(struct blk_pool_options){ .io_threads = test_io_threads() },
                                  &v->pool, &e),
                     0);
    for (ns->n = 0; ns->n < 2; ns->n++) {
        struct blk_options o = { .name = ns->n ? "two" : "one",
                                 .driver = "raw",
                                 .path = "test" };

        o.fd = memfd_create("disk", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(o.fd, DISK), 0);
        ck_assert_msg(blk_open(v->pool, &o, &ns->node[ns->n], &e) == 0, "%s", e.msg);
    }
    v->d = pci_rig_device(&v->p, &nvme_class);
    ck_assert_int_eq(dev_set_ptr(v->d, "namespaces", ns, NULL), 0);
    pci_rig_plug(&v->p, v->d, NULL, FN);
    rig_start(v->p.r);
    cfg_write(&v->p, FN, PCI_BAR0, (uint32_t)BAR, 4);
    cfg_write(&v->p, FN, PCI_COMMAND, PCI_CMD_MEMORY | PCI_CMD_MASTER, 2);
}

static void nv_free(struct nv *v)
{
    struct blk_pool *pool = v->pool;
    struct loop *loop = v->p.r->loop;

    vm_free(v->p.r->vm);
    blk_pool_free(pool);
    mem_free(v->p.r->ram);
    loop_free(loop);
    free(v->p.r);
}

static void queue_clear(struct nv *v, unsigned q)
{
    memset(rig_ram(v->p.r, SQ(q)), 0, 0x2000);
    v->tail[q] = v->head[q] = 0;
    v->phase[q] = true;
}

static void nv_enable(struct nv *v)
{
    struct rig *r = v->p.r;

    queue_clear(v, 0);
    wr32(r, BAR + 0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    rig_write(r, BAR + 0x28, SQ(0), 8);
    rig_write(r, BAR + 0x30, CQ(0), 8);
    wr32(r, BAR + 0x14, 0x00460001);
    ck_assert_uint_eq(rd32(r, BAR + 0x1c), 1);
}

static void put(struct nv *v, unsigned q, struct cmd c)
{
    c.cid = ++v->cid;
    memcpy((struct cmd *)rig_ram(v->p.r, SQ(q)) + v->tail[q], &c, sizeof(c));
    v->tail[q] = (v->tail[q] + 1) % ENTRIES;
    wr32(v->p.r, BAR + 0x1000 + 8 * q, v->tail[q]);
}

struct waiting {
    struct nv *v;
    unsigned q;
};

static bool has_completion(void *arg)
{
    struct waiting *w = arg;
    volatile uint16_t *entry = (volatile uint16_t *)rig_ram(w->v->p.r, CQ(w->q)) +
                               8 * w->v->head[w->q];

    return (entry[7] & 1) == w->v->phase[w->q];
}

/* The next completion's status. */
static uint16_t completion(struct nv *v, unsigned q)
{
    struct waiting w = { v, q };
    uint16_t *entry, status;

    rig_until(v->p.r, has_completion, &w);
    entry = (uint16_t *)rig_ram(v->p.r, CQ(q)) + 8 * v->head[q];
    status = (uint16_t)(entry[7] >> 1) & 0x3fff;
    memcpy(&v->dw0, entry, 4);
    if (++v->head[q] == ENTRIES) {
        v->head[q] = 0;
        v->phase[q] = !v->phase[q];
    }
    wr32(v->p.r, BAR + 0x1004 + 8 * q, v->head[q]);
    return status;
}

static uint16_t run(struct nv *v, unsigned q, struct cmd c)
{
    put(v, q, c);
    return completion(v, q);
}

static void io_queue(struct nv *v)
{
    queue_clear(v, 1);
    ck_assert_uint_eq(run(v, 0,
                          (struct cmd){ .opcode = CREATE_CQ,
                                        .prp1 = CQ(1),
                                        .dw = { (ENTRIES - 1) << 16 | 1, 3 } }),
                      0);
    ck_assert_uint_eq(run(v, 0,
                          (struct cmd){ .opcode = CREATE_SQ,
                                        .prp1 = SQ(1),
                                        .dw = { (ENTRIES - 1) << 16 | 1, 1 << 16 | 1 } }),
                      0);
}

START_TEST(identify_tells_namespaces_and_limits)
{
    struct nv v;
    uint8_t *p;

    nv_new(&v);
    ck_assert_uint_eq(rd32(v.p.r, BAR + 8), 0x00010400);
    nv_enable(&v);
    p = rig_ram(v.p.r, DATA);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = IDENTIFY, .prp1 = DATA, .dw = { 1 } }),
                      0);
    ck_assert_uint_eq(p[516], 2);
    ck_assert_uint_eq(p[77], 7);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = IDENTIFY, .prp1 = DATA, .nsid = 2 }),
                      0);
    ck_assert_uint_eq(*(uint64_t *)(void *)p, DISK / 512);
    ck_assert_uint_eq(
        run(&v, 0, (struct cmd){ .opcode = IDENTIFY, .prp1 = DATA, .nsid = 1, .dw = { 2 } }),
        0);
    ck_assert_uint_eq(*(uint64_t *)(void *)p, 2);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = IDENTIFY, .prp1 = DATA, .nsid = 3 }),
                      0x0b);
    ck_assert_uint_eq(
        run(&v, 0, (struct cmd){ .opcode = IDENTIFY, .prp1 = DATA, .dw = { 99 } }), 0x02);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = 0x7f }), 0x01);
    ck_assert_uint_eq(
        run(&v, 0,
            (struct cmd){
                .opcode = GET_LOG, .nsid = UINT32_MAX, .prp1 = DATA, .dw = { 127 << 16 | 2 } }),
        0);
    ck_assert_uint_eq(p[1] | p[2] << 8, 310);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = GET_LOG, .prp1 = DATA, .dw = { 77 } }),
                      0x109);
    ck_assert_uint_eq(
        run(&v, 0, (struct cmd){ .opcode = SET_FEATURES, .dw = { 7, 0x00ff00ff } }), 0);
    ck_assert_uint_eq(v.dw0, 0x000f000f);
    nv_free(&v);
}
END_TEST

START_TEST(data_moves_by_prps_prp_lists_and_sgls)
{
    struct nv v;
    uint8_t *p;
    uint64_t *list;

    nv_new(&v);
    nv_enable(&v);
    io_queue(&v);
    p = rig_ram(v.p.r, DATA);
    list = rig_ram(v.p.r, LIST);
    for (unsigned i = 0; i < 0x10000; i++) {
        p[i] = (uint8_t)(i * 7 + (i >> 8));
    }
    for (unsigned i = 0; i < 4; i++) {
        list[i] = DATA + 0x1000 * (i + 1);
    }
    /* 16 KiB from an odd place: five pieces. */
    ck_assert_uint_eq(run(&v, 1,
                          (struct cmd){ .opcode = WRITE,
                                        .nsid = 1,
                                        .prp1 = DATA + 0x200,
                                        .prp2 = LIST,
                                        .dw = { 8, 0, 31 } }),
                      0);
    memset(p + 0x10000, 0, 0x8000);
    list[0] = DATA + 0x10000; /* one data block by a segment of SGLs */
    ((uint32_t *)(void *)list)[2] = 16384;
    ((uint8_t *)list)[15] = 0;
    ck_assert_uint_eq(run(&v, 1,
                          (struct cmd){ .opcode = READ,
                                        .flags = 0x40,
                                        .nsid = 1,
                                        .prp1 = LIST,
                                        .prp2 = 0x3000000000000010ull,
                                        .dw = { 8, 0, 31 } }),
                      0);
    ck_assert_int_eq(memcmp(p + 0x10000, p + 0x200, 16384), 0);
    ck_assert_uint_eq(
        run(&v, 1,
            (struct cmd){
                .opcode = COMPARE, .nsid = 1, .prp1 = DATA + 0x10000, .dw = { 8, 0, 7 } }),
        0);
    p[0x10000] ^= 1;
    ck_assert_uint_eq(
        run(&v, 1,
            (struct cmd){
                .opcode = COMPARE, .nsid = 1, .prp1 = DATA + 0x10000, .dw = { 8, 0, 7 } }),
        0x285);
    ck_assert_uint_eq(
        run(&v, 1, (struct cmd){ .opcode = ZEROES, .nsid = 1, .dw = { 8, 0, 7 } }), 0);
    ck_assert_uint_eq(
        run(&v, 1, (struct cmd){ .opcode = READ, .nsid = 1, .prp1 = DATA, .dw = { 8, 0, 7 } }),
        0);
    ck_assert_uint_eq(p[0] | p[4095], 0);
    ck_assert_uint_eq(run(&v, 1, (struct cmd){ .opcode = FLUSH, .nsid = UINT32_MAX }), 0);
    memset(p, 0, 32);
    p[4] = 8;
    p[8] = 16;
    ck_assert_uint_eq(
        run(&v, 1, (struct cmd){ .opcode = DSM, .nsid = 1, .prp1 = DATA, .dw = { 1, 4 } }), 0);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = FORMAT, .nsid = 1 }), 0);
    rig_state_round_trip(v.d);
    nv_free(&v);
}
END_TEST

START_TEST(wrong_commands_get_their_status)
{
    struct nv v;
    static const struct {
        struct cmd c;
        uint16_t status;
    } cases[] = {
        { { .opcode = READ, .nsid = 1, .prp1 = DATA, .dw = { DISK / 512, 0, 0 } }, 0x80 },
        { { .opcode = READ, .nsid = 1, .prp1 = DATA, .dw = { UINT32_MAX, UINT32_MAX, 7 } },
          0x80 },
        { { .opcode = READ, .nsid = 3, .prp1 = DATA }, 0x0b },
        { { .opcode = READ, .nsid = 1, .prp1 = DATA + 1 }, 0x13 },
        { { .opcode = READ, .nsid = 1, .prp1 = 0x1000 }, 0x04 },
        { { .opcode = READ, .nsid = 1, .prp1 = BAR }, 0x04 },
        { { .opcode = READ, .nsid = 1, .prp1 = DATA, .prp2 = DATA + 8, .dw = { 0, 0, 15 } },
          0x13 },
        { { .opcode = READ, .nsid = 1, .prp1 = DATA, .prp2 = LIST, .dw = { 0, 0, 2047 } },
          0x02 },
        { { .opcode = READ, .flags = 0x40, .nsid = 1, .prp1 = DATA, .prp2 = 256 }, 0x0f },
        { { .opcode = READ,
            .flags = 0x40,
            .nsid = 1,
            .prp1 = DATA,
            .prp2 = 0x5000000000000200ull },
          0x11 },
        { { .opcode = READ,
            .flags = 0x40,
            .nsid = 1,
            .prp1 = LIST,
            .prp2 = 0x2000000000000008ull },
          0x0d },
        { { .opcode = READ, .flags = 0xc0, .nsid = 1, .prp1 = DATA }, 0x02 },
        { { .opcode = READ, .flags = 1, .nsid = 1, .prp1 = DATA }, 0x02 },
        { { .opcode = 0x55, .nsid = 1 }, 0x01 },
        { { .opcode = DSM, .nsid = 1, .prp1 = 0x1000, .dw = { 255, 4 } }, 0x04 },
    };

    nv_new(&v);
    nv_enable(&v);
    io_queue(&v);
    memset(rig_ram(v.p.r, LIST), 0, 0x1000);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint16_t status = run(&v, 1, cases[i].c);

        ck_assert_msg(status == cases[i].status, "case %u: 0x%x", i, status);
    }
    ck_assert_uint_eq(
        run(&v, 0,
            (struct cmd){ .opcode = CREATE_CQ, .prp1 = CQ(1), .dw = { 7 << 16 | 1, 1 } }),
        0x101);
    ck_assert_uint_eq(run(&v, 0,
                          (struct cmd){ .opcode = CREATE_SQ,
                                        .prp1 = SQ(2),
                                        .dw = { 7 << 16 | 2, 9 << 16 | 1 } }),
                      0x100);
    ck_assert_uint_eq(
        run(&v, 0, (struct cmd){ .opcode = CREATE_CQ, .prp1 = CQ(2), .dw = { 2, 1 } }), 0x102);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = DELETE_CQ, .dw = { 1 } }), 0x10c);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = DELETE_SQ, .dw = { 1 } }), 0);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = DELETE_CQ, .dw = { 1 } }), 0);
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = DELETE_CQ, .dw = { 0 } }), 0x101);
    nv_free(&v);
}
END_TEST

START_TEST(a_bad_doorbell_is_an_event_and_aborts_give_requests_back)
{
    struct nv v;

    nv_new(&v);
    nv_enable(&v);
    put(&v, 0, (struct cmd){ .opcode = EVENT });
    wr32(v.p.r, BAR + 0x1000, 99);
    ck_assert_uint_eq(completion(&v, 0), 0);
    ck_assert_uint_eq(v.dw0, 0x00010100);
    put(&v, 0, (struct cmd){ .opcode = EVENT });
    put(&v, 0, (struct cmd){ .opcode = ABORT, .dw = { (uint32_t)v.cid << 16 } });
    ck_assert_uint_eq(completion(&v, 0), 7);
    ck_assert_uint_eq(completion(&v, 0), 0);
    ck_assert_uint_eq(v.dw0, 0);
    for (unsigned i = 0; i < 4; i++) {
        put(&v, 0, (struct cmd){ .opcode = EVENT });
    }
    ck_assert_uint_eq(run(&v, 0, (struct cmd){ .opcode = EVENT }), 0x105);
    wr32(v.p.r, BAR + 0x1008, 1); /* a queue that is not there */
    ck_assert_uint_eq(completion(&v, 0), 0);
    rig_state_round_trip(v.d);
    nv_free(&v);
}
END_TEST

START_TEST(commands_wait_for_places_in_their_completion_queue)
{
    struct nv v;
    unsigned seen = 0;

    nv_new(&v);
    nv_enable(&v);
    io_queue(&v);
    for (unsigned i = 0; i < ENTRIES - 1; i++) {
        put(&v, 1, (struct cmd){ .opcode = READ, .nsid = 1, .prp1 = DATA });
    }
    for (unsigned i = 0; i < 50; i++) {
        rig_turn(v.p.r);
    }
    for (unsigned i = 0; i < 3; i++) { /* more, while the driver looks at none */
        put(&v, 1, (struct cmd){ .opcode = READ, .nsid = 1, .prp1 = DATA });
    }
    while (seen < ENTRIES - 1 + 3) {
        ck_assert_uint_eq(completion(&v, 1), 0);
        seen++;
    }
    nv_free(&v);
}
END_TEST

START_TEST(a_reset_under_load_drops_everything)
{
    struct nv v;

    nv_new(&v);
    for (unsigned round = 0; round < 20; round++) {
        nv_enable(&v);
        io_queue(&v);
        for (unsigned i = 0; i < 6; i++) {
            put(&v, 1,
                (struct cmd){
                    .opcode = i % 3 == 2 ? COMPARE : i % 3, .nsid = 1, .prp1 = DATA });
        }
        if (round % 2) {
            rig_turn(v.p.r);
        }
        if (round % 5 == 4) {
            vm_reset(v.p.r->vm);
            cfg_write(&v.p, FN, PCI_BAR0, (uint32_t)BAR, 4);
            cfg_write(&v.p, FN, PCI_COMMAND, PCI_CMD_MEMORY | PCI_CMD_MASTER, 2);
        } else {
            wr32(v.p.r, BAR + 0x14, 0);
        }
        ck_assert_uint_eq(rd32(v.p.r, BAR + 0x1c), 0);
        ck_assert(!v.p.wire[2].level);
    }
    for (unsigned i = 0; i < 50; i++) {
        rig_turn(v.p.r);
    }
    nv_free(&v);
}
END_TEST

START_TEST(the_wire_follows_completions_and_shutdown_ends)
{
    struct nv v;

    nv_new(&v);
    nv_enable(&v);
    ck_assert(!v.p.wire[2].level);
    put(&v, 0, (struct cmd){ .opcode = SET_FEATURES, .dw = { 6, 0 } });
    rig_turn(v.p.r);
    ck_assert(v.p.wire[2].level);
    wr32(v.p.r, BAR + 0x0c, 1);
    ck_assert(!v.p.wire[2].level);
    wr32(v.p.r, BAR + 0x10, 1);
    ck_assert(v.p.wire[2].level);
    ck_assert_uint_eq(completion(&v, 0), 0);
    ck_assert(!v.p.wire[2].level);
    wr32(v.p.r, BAR + 0x14, 0x00464001);
    for (unsigned i = 0; i < 1000 && (rd32(v.p.r, BAR + 0x1c) & 0xc) != 8; i++) {
        rig_turn(v.p.r);
        usleep(1000);
    }
    ck_assert_uint_eq(rd32(v.p.r, BAR + 0x1c), 9);
    wr32(v.p.r, BAR + 0x14, 0);
    wr32(v.p.r, BAR + 0x28, 0x123); /* low bits do not stick */
    ck_assert_uint_eq(rd32(v.p.r, BAR + 0x28), 0);
    wr32(v.p.r, BAR + 0x24, 0);
    wr32(v.p.r, BAR + 0x14, 1); /* no sizes: fatal */
    ck_assert_uint_eq(rd32(v.p.r, BAR + 0x1c), 2);
    nv_free(&v);
}
END_TEST

static Suite *suite_nvme(void)
{
    Suite *s = suite_create("nvme");
    TCase *t = tcase_create("nvme");

    tcase_set_timeout(t, 120);
    tcase_add_test(t, identify_tells_namespaces_and_limits);
    tcase_add_test(t, data_moves_by_prps_prp_lists_and_sgls);
    tcase_add_test(t, wrong_commands_get_their_status);
    tcase_add_test(t, a_bad_doorbell_is_an_event_and_aborts_give_requests_back);
    tcase_add_test(t, commands_wait_for_places_in_their_completion_queue);
    tcase_add_test(t, a_reset_under_load_drops_everything);
    tcase_add_test(t, the_wire_follows_completions_and_shutdown_ends);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_nvme, NULL);
}
