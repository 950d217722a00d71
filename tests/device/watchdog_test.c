/* SPDX-License-Identifier: Apache-2.0 */
/* The 6300ESB's watchdog by its registers, as a driver uses it. */
#include "devices/misc/i6300esb.h"
#include "devices/registry.h"
#include "tests/device/pci_rig.h"
#include "tests/lib/testing.h"

#define FN (5 << 3)
#define BAR PCI_MMIO
enum { TIMER1 = 0, TIMER2 = 4, RELOAD = 12, CONFIG = 0x60, LOCK = 0x68 };

struct dog {
    struct pci_rig p;
    struct device *d;
    struct watchdog_host host;
    unsigned expired;
};

static void on_expired(void *arg)
{
    ((struct dog *)arg)->expired++;
}

static bool has_expired(void *arg)
{
    return ((struct dog *)arg)->expired > 0;
}

static void dog_new(struct dog *g)
{
    *g = (struct dog){ .host = { on_expired, g } };
    pci_rig_new(&g->p);
    g->d = pci_rig_device(&g->p, &i6300esb_class);
    ck_assert_int_eq(dev_set_ptr(g->d, "host", &g->host, NULL), 0);
    pci_rig_plug(&g->p, g->d, NULL, FN);
    rig_start(g->p.r);
    cfg_write(&g->p, FN, 0x10, BAR, 4);
    cfg_write(&g->p, FN, PCI_COMMAND, PCI_CMD_MEMORY, 2);
}

static void set(struct dog *g, unsigned reg, uint32_t value, unsigned size)
{
    rig_write(g->p.r, BAR + RELOAD, 0x80, 2);
    rig_write(g->p.r, BAR + RELOAD, 0x86, 2);
    rig_write(g->p.r, BAR + reg, value, size);
}

START_TEST(watchdog_is_what_drivers_look_for)
{
    struct dog g;

    dog_new(&g);
    ck_assert_uint_eq(cfg_read(&g.p, FN, 0, 4), 0x25ab8086);
    ck_assert_uint_eq(cfg_read(&g.p, FN, 8, 4) >> 8, 0x088000);
    rig_write(g.p.r, BAR + TIMER1, 5, 4); /* locked */
    ck_assert_uint_eq(rd32(g.p.r, BAR + TIMER1), 0xfffff);
    set(&g, TIMER1, 5, 4);
    ck_assert_uint_eq(rd32(g.p.r, BAR + TIMER1), 5);
    rig_write(g.p.r, BAR + TIMER1, 6, 4); /* unlocked once */
    ck_assert_uint_eq(rd32(g.p.r, BAR + TIMER1), 5);
    rig_write(g.p.r, BAR + RELOAD, 0x86, 2); /* the second word alone */
    rig_write(g.p.r, BAR + TIMER2, 6, 4);
    ck_assert_uint_eq(rd32(g.p.r, BAR + TIMER2), 0xfffff);
    rig_state_round_trip(g.d);
    pci_rig_free(&g.p);
}
END_TEST

START_TEST(watchdog_that_is_not_fed_tells)
{
    struct dog g;

    dog_new(&g);
    cfg_write(&g.p, FN, CONFIG, 4, 2); /* microseconds */
    set(&g, TIMER1, 3, 4);
    set(&g, TIMER2, 3, 4);
    rig_turn(g.p.r);
    ck_assert_uint_eq(g.expired, 0);
    cfg_write(&g.p, FN, LOCK, 2, 1);
    rig_until(g.p.r, has_expired, &g);
    ck_assert_uint_eq(rig_read(g.p.r, BAR + RELOAD, 2), 0x200);
    set(&g, RELOAD, 0x200, 2);
    ck_assert_uint_eq(rig_read(g.p.r, BAR + RELOAD, 2), 0);
    ck_assert_uint_eq(g.expired, 1); /* once: it does not run freely */
    pci_rig_free(&g.p);
}
END_TEST

START_TEST(watchdog_that_is_stopped_or_may_not_act_tells_nobody)
{
    struct dog g;

    dog_new(&g);
    set(&g, TIMER1, 0xfffff, 4);
    cfg_write(&g.p, FN, LOCK, 2, 1);
    cfg_write(&g.p, FN, LOCK, 0, 1);
    cfg_write(&g.p, FN, CONFIG, 4 | 0x20, 2);
    set(&g, TIMER1, 0, 4);
    set(&g, TIMER2, 0, 4);
    cfg_write(&g.p, FN, LOCK, 3, 1);
    for (unsigned i = 0; i < 1000 && !(rig_read(g.p.r, BAR + RELOAD, 2) & 0x200); i++) {
        rig_turn(g.p.r);
    }
    ck_assert_uint_eq(rig_read(g.p.r, BAR + RELOAD, 2), 0x200);
    ck_assert_uint_eq(g.expired, 0);
    cfg_write(&g.p, FN, LOCK, 0, 1); /* locked until a reset */
    ck_assert_uint_eq(cfg_read(&g.p, FN, LOCK, 1), 3);
    dev_reset(g.d);
    ck_assert_uint_eq(cfg_read(&g.p, FN, LOCK, 1), 0);
    pci_rig_free(&g.p);
}
END_TEST

static Suite *suite_watchdog(void)
{
    Suite *s = suite_create("watchdog");
    TCase *t = tcase_create("i6300esb");

    tcase_add_test(t, watchdog_is_what_drivers_look_for);
    tcase_add_test(t, watchdog_that_is_not_fed_tells);
    tcase_add_test(t, watchdog_that_is_stopped_or_may_not_act_tells_nobody);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_watchdog, NULL);
}
