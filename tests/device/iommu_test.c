/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-iommu by its requests: what a function behind it reaches, against a table of pages that is kept beside; what is refused, and what is
 * told. A guest's driver does its work in tests/e2e/guest_iommu.py.
 */
#include "devices/misc/virtio_iommu.h"
#include "tests/device/pci_rig.h"
#include "tests/device/vio.h"

#include <errno.h>
#include <linux/virtio_iommu.h>

#define FN 0x10 /* of the function that is looked at */
#define OTHER 0x18
#define ALL_FEATURES (1u << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 6)
#define TAIL (BUF + 0x1000)
#define EVENT (BUF + 0x2000)

struct unit {
    struct pci_rig p;
    struct vio v;
    struct device *fn, *other;
};

static struct device *plug(struct unit *u, unsigned at)
{
    struct device *d = pci_rig_device(&u->p, &pvpanic_pci_class);

    pci_rig_plug(&u->p, d, NULL, at);
    return d;
}

static void unit_new(struct unit *u)
{
    struct pci_iommu port;

    memset(u, 0, sizeof(*u));
    pci_rig_new(&u->p);
    u->v.r = u->p.r;
    u->v.dev = rig_device(u->p.r, &virtio_iommu_class);
    ck_assert_int_eq(dev_set_ptr(u->v.dev, "host", u->p.host, NULL), 0);
    ck_assert_int_eq(dev_set_u64(u->v.dev, "msi-first", 0xfee00000, NULL), 0);
    ck_assert_int_eq(dev_set_u64(u->v.dev, "msi-last", 0xfeefffff, NULL), 0);
    port = virtio_iommu_port(u->v.dev);
    pci_host_set_iommu(u->p.host, &port);
    u->fn = plug(u, FN);
    u->other = plug(u, OTHER);
    vio_place(&u->v);
}

/* Its status, or -1: the device has not answered. */
static int request(struct unit *u, const void *req, uint32_t n)
{
    uint8_t *tail = rig_ram(u->p.r, TAIL);

    memcpy(rig_ram(u->p.r, BUF), req, n);
    memset(tail, 0xee, 4);
    put(&u->v, DESC(0), 0, (struct desc){ BUF, n, NEXT, 1 });
    put(&u->v, DESC(0), 1, (struct desc){ TAIL, 4, WRITE, 0 });
    offer(&u->v, 0, 0);
    rig_until(u->p.r, all_used, &u->v);
    return tail[1] || tail[2] || tail[3] ? -1 : tail[0];
}

static int attach(struct unit *u, uint32_t domain, uint32_t endpoint, uint32_t flags)
{
    struct virtio_iommu_req_attach r = { .head.type = VIRTIO_IOMMU_T_ATTACH,
                                         .domain = domain,
                                         .endpoint = endpoint,
                                         .flags = flags };

    return request(u, &r, sizeof(r) - 4);
}

static int detach(struct unit *u, uint32_t domain, uint32_t endpoint)
{
    struct virtio_iommu_req_detach r = { .head.type = VIRTIO_IOMMU_T_DETACH,
                                         .domain = domain,
                                         .endpoint = endpoint };

    return request(u, &r, sizeof(r) - 4);
}

static int map(struct unit *u, uint32_t domain, uint64_t first, uint64_t last, uint64_t to,
               uint32_t flags)
{
    struct virtio_iommu_req_map r = { .head.type = VIRTIO_IOMMU_T_MAP,
                                      .domain = domain,
                                      .virt_start = first,
                                      .virt_end = last,
                                      .phys_start = to,
                                      .flags = flags };

    return request(u, &r, sizeof(r) - 4);
}

static int unmap(struct unit *u, uint32_t domain, uint64_t first, uint64_t last)
{
    struct virtio_iommu_req_unmap r = { .head.type = VIRTIO_IOMMU_T_UNMAP,
                                        .domain = domain,
                                        .virt_start = first,
                                        .virt_end = last };

    return request(u, &r, sizeof(r) - 4);
}

static bool reaches(struct device *d, uint64_t at, bool write)
{
    uint32_t word = 0;

    return (write ? dma_write(d, at, &word, 4) : dma_read(d, at, &word, 4)) == 0;
}

START_TEST(functions_reach_all_until_they_are_attached)
{
    struct unit u;

    unit_new(&u);
    ck_assert(reaches(u.fn, RIG_RAM, true));
    bring_up(&u.v, ALL_FEATURES, 2);
    ck_assert_uint_eq(rd32(u.p.r, AT + R_CONFIG), 0xfffff000);
    ck_assert(reaches(u.fn, RIG_RAM, true));
    ck_assert_int_eq(attach(&u, 1, FN, 0), VIRTIO_IOMMU_S_OK);
    ck_assert(!reaches(u.fn, RIG_RAM, false));
    ck_assert(reaches(u.other, RIG_RAM, true));
    rig_write(u.p.r, AT + R_CONFIG + 36, 0, 1); /* the switch */
    ck_assert(!reaches(u.other, RIG_RAM, false));
    ck_assert_int_eq(attach(&u, 2, OTHER, VIRTIO_IOMMU_ATTACH_F_BYPASS), VIRTIO_IOMMU_S_OK);
    ck_assert(reaches(u.other, RIG_RAM, true));
    ck_assert(reaches(u.fn, RIG_RAM, true) == false);
    wr32(u.p.r, AT + R_STATUS, 0); /* what a reset leaves is what the switch says */
    ck_assert(!reaches(u.fn, RIG_RAM, false) && !reaches(u.other, RIG_RAM, false));
    dev_reset(u.v.dev);
    ck_assert(reaches(u.fn, RIG_RAM, true) && reaches(u.other, RIG_RAM, true));
    bring_up(&u.v, 1u << 2, 2); /* a driver that does not know the switch */
    ck_assert(!reaches(u.fn, RIG_RAM, false));
    pci_rig_free(&u.p);
}
END_TEST

START_TEST(requests_get_the_statuses_of_the_specification)
{
    const uint32_t rw = VIRTIO_IOMMU_MAP_F_READ | VIRTIO_IOMMU_MAP_F_WRITE;
    static const uint8_t nonsense[40] = { 9 };
    struct unit u;

    unit_new(&u);
    bring_up(&u.v, ALL_FEATURES, 2);
    ck_assert_int_eq(attach(&u, 1, 0x20, 0), VIRTIO_IOMMU_S_NOENT); /* no such function */
    ck_assert_int_eq(attach(&u, 1, FN | 0x10000, 0), VIRTIO_IOMMU_S_NOENT);
    ck_assert_int_eq(attach(&u, 1, FN, 2), VIRTIO_IOMMU_S_INVAL);
    ck_assert_int_eq(map(&u, 1, 0, 0xfff, RIG_RAM, rw), VIRTIO_IOMMU_S_NOENT);
    ck_assert_int_eq(unmap(&u, 1, 0, 0xfff), VIRTIO_IOMMU_S_NOENT);
    ck_assert_int_eq(attach(&u, 1, FN, 0), VIRTIO_IOMMU_S_OK);
    ck_assert_int_eq(attach(&u, 1, FN, 0), VIRTIO_IOMMU_S_OK);
    ck_assert_int_eq(attach(&u, 1, OTHER, VIRTIO_IOMMU_ATTACH_F_BYPASS), VIRTIO_IOMMU_S_INVAL);
    ck_assert_int_eq(detach(&u, 2, FN), VIRTIO_IOMMU_S_INVAL);
    ck_assert_int_eq(detach(&u, 1, OTHER), VIRTIO_IOMMU_S_NOENT);
    ck_assert_int_eq(map(&u, 1, 0x1000, 0x2fff, RIG_RAM, rw | 8), VIRTIO_IOMMU_S_INVAL);
    ck_assert_int_eq(map(&u, 1, 0x3000, 0x2fff, RIG_RAM, rw), VIRTIO_IOMMU_S_INVAL);
    ck_assert_int_eq(map(&u, 1, 0x1001, 0x2fff, RIG_RAM, rw), VIRTIO_IOMMU_S_RANGE);
    ck_assert_int_eq(map(&u, 1, 0x1000, 0x2ffe, RIG_RAM, rw), VIRTIO_IOMMU_S_RANGE);
    ck_assert_int_eq(map(&u, 1, 0x1000, 0x2fff, RIG_RAM + 1, rw), VIRTIO_IOMMU_S_RANGE);
    ck_assert_int_eq(map(&u, 1, 0x1000, UINT64_MAX, 0x2000, rw), VIRTIO_IOMMU_S_RANGE);
    ck_assert_int_eq(map(&u, 1, 0x1000, 0x2fff, RIG_RAM, rw), VIRTIO_IOMMU_S_OK);
    ck_assert_int_eq(map(&u, 1, 0x2000, 0x3fff, RIG_RAM, rw), VIRTIO_IOMMU_S_INVAL);
    ck_assert_int_eq(map(&u, 1, 0, UINT64_MAX, 0, rw), VIRTIO_IOMMU_S_INVAL);
    ck_assert_int_eq(unmap(&u, 1, 0x1000, 0x1fff), VIRTIO_IOMMU_S_RANGE);
    ck_assert_int_eq(unmap(&u, 1, 0x2000, 0x5fff), VIRTIO_IOMMU_S_RANGE);
    ck_assert(reaches(u.fn, 0x1ffe, true));
    ck_assert_int_eq(unmap(&u, 1, 0, UINT64_MAX), VIRTIO_IOMMU_S_OK);
    ck_assert_int_eq(unmap(&u, 1, 0, UINT64_MAX), VIRTIO_IOMMU_S_OK);
    ck_assert(!reaches(u.fn, 0x1ffe, true));
    ck_assert_int_eq(map(&u, 1, 0, UINT64_MAX, 0, rw), VIRTIO_IOMMU_S_OK);
    ck_assert(reaches(u.fn, RIG_RAM, true));
    ck_assert_int_eq(request(&u, nonsense, sizeof(nonsense)), VIRTIO_IOMMU_S_UNSUPP);
    ck_assert_int_eq(request(&u, (const uint8_t[]){ VIRTIO_IOMMU_T_MAP, 0, 0, 0 }, 4),
                     VIRTIO_IOMMU_S_INVAL);
    ck_assert_int_eq(attach(&u, 3, FN, 0), VIRTIO_IOMMU_S_OK); /* from one domain to another */
    ck_assert(!reaches(u.fn, RIG_RAM, true));
    ck_assert_int_eq(map(&u, 1, 0, 0xfff, 0, rw), VIRTIO_IOMMU_S_NOENT);
    pci_rig_free(&u.p);
}
END_TEST

START_TEST(reserved_addresses_are_told_and_pass)
{
    struct virtio_iommu_req_probe r = { .head.type = VIRTIO_IOMMU_T_PROBE, .endpoint = FN };
    const struct virtio_iommu_probe_resv_mem *m;
    struct unit u;
    uint64_t gpa, n = 0x200000;

    unit_new(&u);
    bring_up(&u.v, ALL_FEATURES, 2);
    memcpy(rig_ram(u.p.r, BUF), &r, sizeof(r));
    put(&u.v, DESC(0), 0, (struct desc){ BUF, sizeof(r), NEXT, 1 });
    put(&u.v, DESC(0), 1, (struct desc){ TAIL, 512 + 4, WRITE, 0 });
    offer(&u.v, 0, 0);
    rig_until(u.p.r, all_used, &u.v);
    m = rig_ram(u.p.r, TAIL);
    ck_assert_uint_eq(m->head.type, VIRTIO_IOMMU_PROBE_T_RESV_MEM);
    ck_assert_uint_eq(m->head.length, sizeof(*m) - sizeof(m->head));
    ck_assert_uint_eq(m->subtype, VIRTIO_IOMMU_RESV_MEM_T_MSI);
    ck_assert(m->start == 0xfee00000 && m->end == 0xfeefffff);
    ck_assert_uint_eq(((uint8_t *)rig_ram(u.p.r, TAIL))[512], VIRTIO_IOMMU_S_OK);
    ck_assert_int_eq(attach(&u, 1, FN, 0), VIRTIO_IOMMU_S_OK);
    ck_assert_int_eq(u.fn->dma->translate(u.fn->dma->arg, 0xfeeff000, true, &gpa, &n), 0);
    ck_assert(gpa == 0xfeeff000 && n == 0x1000);
    pci_rig_free(&u.p);
}
END_TEST

START_TEST(what_is_out_of_reach_is_told)
{
    const struct virtio_iommu_fault *f;
    struct unit u;

    unit_new(&u);
    bring_up(&u.v, ALL_FEATURES, 2);
    ck_assert_int_eq(attach(&u, 1, FN, 0), VIRTIO_IOMMU_S_OK);
    ck_assert(!reaches(u.fn, 0xabcd000, true));
    rig_turn(u.p.r); /* no buffer yet: it waits */
    ck_assert_uint_eq(used_idx(&u.v, 1), 0);
    for (uint16_t i = 0; i < 4; i++) {
        put(&u.v, DESC(1), i, (struct desc){ EVENT + 64u * i, 64, WRITE, 0 });
        offer(&u.v, 1, i);
    }
    rig_turn(u.p.r);
    ck_assert_uint_eq(used_idx(&u.v, 1), 1);
    f = rig_ram(u.p.r, EVENT);
    ck_assert_uint_eq(f->reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
    ck_assert_uint_eq(f->flags, VIRTIO_IOMMU_FAULT_F_WRITE | VIRTIO_IOMMU_FAULT_F_ADDRESS);
    ck_assert(f->endpoint == FN && f->address == 0xabcd000);
    rig_write(u.p.r, AT + R_CONFIG + 36, 0, 1);
    for (unsigned i = 0; i < 100;
         i++) { /* more than wait, none of which is forgotten by the queue */
        ck_assert(!reaches(u.other, 0x1000 * i, false));
    }
    rig_turn(u.p.r);
    ck_assert_uint_eq(used_idx(&u.v, 1), 4);
    f = rig_ram(u.p.r, EVENT + 64);
    ck_assert_uint_eq(f->reason, VIRTIO_IOMMU_FAULT_R_DOMAIN);
    ck_assert(f->endpoint == OTHER && f->address == 0);
    pci_rig_free(&u.p);
}
END_TEST

/* --- against a table of pages --- */

enum { PAGES = 64, DOMAINS = 3, RAM_PAGES = RIG_RAM_SIZE / 4096 };

struct page {
    unsigned mapping; /* 0: none */
    uint64_t to;
    uint32_t flags;
};

/* Of the first page to the last one; true: it may be done. */
static bool model_unmap(struct page *p, unsigned first, unsigned last)
{
    for (unsigned i = 0; i < PAGES; i++) {
        for (unsigned k = first; k <= last; k++) {
            if ((i < first || i > last) && p[i].mapping && p[i].mapping == p[k].mapping) {
                return false;
            }
        }
    }
    memset(&p[first], 0, (last - first + 1) * sizeof(*p));
    return true;
}

static bool model_map(struct page *p, unsigned first, unsigned last, uint64_t to,
                      uint32_t flags, unsigned number)
{
    for (unsigned i = first; i <= last; i++) {
        if (p[i].mapping) {
            return false;
        }
    }
    for (unsigned i = first; i <= last; i++) {
        p[i] = (struct page){ number, to + (i - first) * 4096ull, flags };
    }
    return true;
}

static void compare(struct unit *u, const struct page *p)
{
    for (unsigned i = 0; i < PAGES; i++) {
        for (unsigned write = 0; write < 2; write++) {
            uint64_t n = 4096 - 8, gpa = 0;
            bool may = p[i].mapping && p[i].flags & (write ? 2 : 1);
            int rc = u->fn->dma->translate(u->fn->dma->arg, 0x100000 + i * 4096ull + 8, write,
                                           &gpa, &n);

            ck_assert_msg((rc == 0) == may, "page %u, write %u: %d", i, write, rc);
            ck_assert(!may || (gpa == p[i].to + 8 && n == 4096 - 8));
        }
    }
}

START_TEST(random_mappings_are_as_a_table_of_pages_says)
{
    static struct page table[DOMAINS][PAGES];
    struct unit u;

    memset(table, 0, sizeof(table));
    unit_new(&u);
    bring_up(&u.v, ALL_FEATURES, 2);
    srandom(11);
    for (unsigned step = 0; step < 20000; step++) {
        unsigned d = (unsigned)random() % DOMAINS, first = (unsigned)random() % PAGES;
        unsigned last = first + (unsigned)random() % 6;
        uint64_t at = 0x100000 + first * 4096ull;

        last = last < PAGES ? last : PAGES - 1;
        uint64_t end = 0x100000 + last * 4096ull + 4095;
        if (step % 500 == 0) { /* its domain goes when it leaves, alone in it */
            if (step) {
                ck_assert_int_eq(detach(&u, 100 + (step / 500 + 2) % 3, FN), 0);
            }
            ck_assert_int_eq(attach(&u, 100 + (step / 500) % 3, FN, 0), 0);
            memset(table, 0, sizeof(table));
        }
        bool here = d == (step / 500) % 3;
        int want, got;
        if (random() % 2) {
            uint64_t to = RIG_RAM + (unsigned)random() % RAM_PAGES * 4096ull;
            uint32_t flags = 1 + (unsigned)random() % 3;

            want = here && model_map(table[d], first, last, to, flags, step + 1) ? 0
                   : here ? VIRTIO_IOMMU_S_INVAL
                          : VIRTIO_IOMMU_S_NOENT;
            got = map(&u, 100 + d, at, end, to, flags);
        } else {
            want = !here                                ? VIRTIO_IOMMU_S_NOENT
                   : model_unmap(table[d], first, last) ? 0
                                                        : VIRTIO_IOMMU_S_RANGE;
            got = unmap(&u, 100 + d, at, end);
        }
        ck_assert_msg(got == want, "step %u: %d, not %d", step, got, want);
        if (step % 50 == 49) {
            compare(&u, table[(step / 500) % 3]);
        }
        if (step % 1000 == 777) {
            rig_state_round_trip(u.v.dev);
        }
    }
    pci_rig_free(&u.p);
}
END_TEST

START_TEST(pieces_are_put_together)
{
    struct unit u;
    uint8_t bytes[3 * 4096], back[3 * 4096];
    uint64_t gpa, n;

    unit_new(&u);
    bring_up(&u.v, ALL_FEATURES, 2);
    ck_assert_int_eq(attach(&u, 1, FN, 0), 0);
    ck_assert_int_eq(map(&u, 1, 0x1000, 0x1fff, RIG_RAM + 0x92000, 3), 0);
    ck_assert_int_eq(map(&u, 1, 0x2000, 0x2fff, RIG_RAM + 0x90000, 3), 0);
    ck_assert_int_eq(map(&u, 1, 0x3000, 0x3fff, RIG_RAM + 0x91000, 3), 0);
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    }
    ck_assert_int_eq(dma_write(u.fn, 0x1000, bytes, sizeof(bytes)), 0);
    ck_assert_mem_eq(rig_ram(u.p.r, RIG_RAM + 0x92000), bytes, 4096);
    ck_assert_mem_eq(rig_ram(u.p.r, RIG_RAM + 0x90000), bytes + 4096, 8192);
    ck_assert_int_eq(dma_read(u.fn, 0x1000, back, sizeof(back)), 0);
    ck_assert_mem_eq(back, bytes, sizeof(back));
    ck_assert_int_eq(dma_read(u.fn, 0x1001, back, sizeof(back)), -EFAULT); /* one too many */
    ck_assert_ptr_null(dma_map(u.fn, 0x1800, 4096, true, &gpa));
    ck_assert_ptr_eq(dma_map(u.fn, 0x2800, 4096, true, &gpa),
                     rig_ram(u.p.r, RIG_RAM + 0x90800));
    n = 8192;
    ck_assert_ptr_eq(dma_piece(u.fn, 0x1800, &n, true, &gpa),
                     rig_ram(u.p.r, RIG_RAM + 0x92800));
    ck_assert_uint_eq(n, 0x800);
    pci_rig_free(&u.p);
}
END_TEST

static Suite *suite_iommu(void)
{
    Suite *s = suite_create("virtio-iommu");
    TCase *t = tcase_create("requests");

    tcase_set_timeout(t, 120);
    tcase_add_test(t, functions_reach_all_until_they_are_attached);
    tcase_add_test(t, requests_get_the_statuses_of_the_specification);
    tcase_add_test(t, reserved_addresses_are_told_and_pass);
    tcase_add_test(t, what_is_out_of_reach_is_told);
    tcase_add_test(t, random_mappings_are_as_a_table_of_pages_says);
    tcase_add_test(t, pieces_are_put_together);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_iommu, NULL);
}
