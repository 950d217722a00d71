/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of device classes: properties, register tables (masks, write-1-to-clear, arrays,
 * parts of registers, hooks), life and the reference.
 */
#include "engine/core/device.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"
#include "tests/lib/testing.h"

struct gadget {
    struct device dev;
    uint64_t speed;
    bool fast;
    char *title;
    void *backend;
    uint32_t ctrl, status, table[4];
    uint16_t half;
    uint64_t wide;
    /* What hooks saw */
    unsigned writes, index;
    uint64_t old, value;
    unsigned realized, resets;
};

static unsigned destroyed;

static uint64_t read_counter(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r;
    return 0xc0de0000 + ((struct gadget *)d)->writes * 16 + index;
}

static void on_written(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                       uint64_t value)
{
    (void)r;
    struct gadget *g = (struct gadget *)d;
    g->writes++;
    g->index = index;
    g->old = old;
    g->value = value;
}

static uint64_t read_wide(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r;
    (void)index;
    return ((struct gadget *)d)->wide;
}

#define FIELD(f) offsetof(struct gadget, f)
static const struct dev_reg regs[] = {
    { .name = "ID",
      .offset = 0,
      .size = 4,
      .reset = 0x74726976,
      .field = DEV_NO_FIELD,
      .doc = "constant" },
    { .name = "CTRL",
      .offset = 4,
      .size = 4,
      .writable = 0x00ff00ff,
      .reset = 0x11111111,
      .field = FIELD(ctrl),
      .written = on_written,
      .doc = "control" },
    { .name = "STATUS",
      .offset = 8,
      .size = 4,
      .writable = 0xf,
      .w1c = 0xff00,
      .reset = 0xff00,
      .field = FIELD(status),
      .written = on_written,
      .doc = "status" },
    { .name = "DOORBELL",
      .offset = 12,
      .size = 4,
      .writable = 0xffff,
      .field = DEV_NO_FIELD,
      .written = on_written,
      .doc = "doorbell" },
    { .name = "TABLE",
      .offset = 16,
      .size = 4,
      .count = 4,
      .stride = 8,
      .writable = UINT32_MAX,
      .reset = 7,
      .field = FIELD(table),
      .written = on_written,
      .doc = "array" },
    { .name = "COUNT",
      .offset = 48,
      .size = 4,
      .count = 2,
      .field = DEV_NO_FIELD,
      .read = read_counter,
      .doc = "read hook" },
    { .name = "HALF",
      .offset = 56,
      .size = 4,
      .field_size = 2,
      .writable = UINT32_MAX,
      .reset = 0xbeef,
      .field = FIELD(half),
      .doc = "field smaller than the register" },
    { .name = "WIDE",
      .offset = 64,
      .size = 8,
      .writable = UINT64_MAX,
      .field = FIELD(wide),
      .doc = "64 bits" },
    { .name = "HOOKED",
      .offset = 72,
      .size = 8,
      .writable = UINT64_MAX,
      .field = DEV_NO_FIELD,
      .read = read_wide,
      .written = on_written,
      .doc = "only hooks know it" },
    { .name = NULL },
};

static uint64_t raw_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    struct gadget *g = opaque;
    return g->speed + offset;
}
static const struct mem_io_ops raw_ops = { .read = raw_read };

static const struct dev_reg_block blocks[] = {
    { .name = "mmio", .size = 0x100, .regs = regs },
    { .name = "raw", .size = 0x10, .ops = &raw_ops },
    { .name = NULL },
};

static const struct dev_prop props[] = {
    { .name = "speed",
      .kind = PROP_U64,
      .offset = FIELD(speed),
      .def = 100,
      .min = 10,
      .max = 1000,
      .doc = "Hz" },
    { .name = "fast", .kind = PROP_BOOL, .offset = FIELD(fast), .def = 1, .doc = "hurry" },
    { .name = "title", .kind = PROP_STR, .offset = FIELD(title), .doc = "name" },
    { .name = "backend",
      .kind = PROP_PTR,
      .offset = FIELD(backend),
      .required = true,
      .doc = "what is behind" },
    { .name = NULL },
};

static int gadget_realize(struct device *d, struct err *e)
{
    struct gadget *g = (struct gadget *)d;
    g->realized++;
    return g->speed == 13 ? err_set(e, -EIO, "unlucky") : 0;
}

static void gadget_reset(struct device *d)
{
    struct gadget *g = (struct gadget *)d;
    ck_assert_uint_eq(g->ctrl, 0x11111111); /* the table went first */
    g->resets++;
}

static void gadget_destroy(struct device *d)
{
    (void)d;
    destroyed++;
}

static const struct st_field fields[] = { ST_FIELD(struct gadget, ctrl, ST_U32, 1, "control"),
                                          ST_END };
static const struct st_table state = { .name = "gadget", .version = 1, .fields = fields };

static const struct device_class gadget_class = {
    .name = "gadget",
    .doc = "A device for tests.",
    .size = sizeof(struct gadget),
    .props = props,
    .blocks = blocks,
    .n_irqs = 2,
    .state = &state,
    .realize = gadget_realize,
    .reset = gadget_reset,
    .destroy = gadget_destroy,
};

/* A VM of which only the list of devices is used. */
struct fixture {
    struct vm vm;
    struct gadget *g;
    struct mem_region *root;
    struct mem_space *s;
};

static struct gadget *new_gadget(struct vm *vm, const char *id)
{
    struct device *d = NULL;
    struct err e = ERR_INIT;
    ck_assert_msg(dev_new(vm, &gadget_class, id, &d, &e) == 0, "%s", e.msg);
    return (struct gadget *)d;
}

static void make(struct fixture *x)
{
    memset(x, 0, sizeof(*x));
    destroyed = 0;
    list_init(&x->vm.devices);
    x->g = new_gadget(&x->vm, "g0");
    ck_assert_int_eq(dev_set_ptr(&x->g->dev, "backend", x, NULL), 0);
    ck_assert_int_eq(dev_realize(&x->g->dev, NULL), 0);
    x->root = mem_new_container("root", 0x10000);
    ck_assert_int_eq(mem_map(x->root, 0x1000, 0, x->g->dev.mmio[0], NULL), 0);
    ck_assert_int_eq(mem_map(x->root, 0x2000, 0, x->g->dev.mmio[1], NULL), 0);
    x->s = mem_space_new(x->root);
    mem_commit(x->s);
}

static void drop(struct fixture *x)
{
    mem_space_free(x->s);
    dev_free(&x->g->dev);
    mem_free(x->root);
}

static uint64_t rd(struct fixture *x, uint64_t offset, unsigned size)
{
    uint64_t v = 0;
    ck_assert_int_eq(bus_read(mem_find(x->s, 0x1000), 0x1000 + offset, size, &v), BUS_OK);
    return v;
}

static void wr(struct fixture *x, uint64_t offset, unsigned size, uint64_t v)
{
    ck_assert_int_eq(bus_write(x->s, mem_find(x->s, 0x1000), 0x1000 + offset, size, v), BUS_OK);
}

START_TEST(constant_register_reads_its_reset_value_and_ignores_writes)
{
    struct fixture x;
    make(&x);
    wr(&x, 0, 4, 0);
    ck_assert_uint_eq(rd(&x, 0, 4), 0x74726976);
    ck_assert_uint_eq(rd(&x, 1, 2), 0x7269);
    drop(&x);
}
END_TEST

START_TEST(only_writable_bits_change)
{
    struct fixture x;
    make(&x);
    ck_assert_uint_eq(rd(&x, 4, 4), 0x11111111);
    wr(&x, 4, 4, UINT32_MAX);
    ck_assert_uint_eq(rd(&x, 4, 4), 0x11ff11ff);
    ck_assert_uint_eq(x.g->old, 0x11111111);
    ck_assert_uint_eq(x.g->value, 0x00ff00ff);
    wr(&x, 6, 1, 0x22); /* one byte of it */
    ck_assert_uint_eq(rd(&x, 4, 4), 0x112211ff);
    ck_assert_uint_eq(x.g->value, 0x00220000);
    unsigned writes = x.g->writes;
    wr(&x, 5, 1, 0xff); /* touches no writable bit */
    ck_assert_uint_eq(x.g->writes, writes);
    drop(&x);
}
END_TEST

START_TEST(ones_clear_write_one_to_clear_bits)
{
    struct fixture x;
    make(&x);
    wr(&x, 8, 4, 0x0305);
    ck_assert_uint_eq(rd(&x, 8, 4), 0xfc05);
    wr(&x, 8, 4, 0);
    ck_assert_uint_eq(rd(&x, 8, 4), 0xfc00);
    wr(&x, 9, 1, 0xf0);
    ck_assert_uint_eq(rd(&x, 8, 4), 0x0c00);
    ck_assert_uint_eq(x.g->value, 0xf000);
    drop(&x);
}
END_TEST

START_TEST(doorbell_without_field_gets_the_value)
{
    struct fixture x;
    make(&x);
    wr(&x, 12, 4, 0xabcd1234);
    ck_assert_uint_eq(x.g->value, 0x1234);
    ck_assert_uint_eq(rd(&x, 12, 4), 0);
    drop(&x);
}
END_TEST

START_TEST(arrays_have_a_stride_and_an_index)
{
    struct fixture x;
    make(&x);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(rd(&x, 16 + i * 8, 4), 7);
        wr(&x, 16 + i * 8, 4, 100 + i);
        ck_assert_uint_eq(x.g->index, i);
        ck_assert_uint_eq(x.g->table[i], 100 + i);
        ck_assert_uint_eq(rd(&x, 20 + i * 8, 4), 0); /* between the elements */
    }
    wr(&x, 16, 8, 0x1122334455667788); /* the register and the gap behind it */
    ck_assert_uint_eq(x.g->table[0], 0x55667788);
    ck_assert_uint_eq(x.g->table[1], 101);
    uint64_t low = 0xc0de0000 + x.g->writes * 16;
    ck_assert_uint_eq(rd(&x, 48, 8), low | (low + 1) << 32); /* two registers in one access */
    drop(&x);
}
END_TEST

START_TEST(fields_may_be_smaller_and_registers_64_bits_wide)
{
    struct fixture x;
    make(&x);
    ck_assert_uint_eq(rd(&x, 56, 4), 0xbeef);
    wr(&x, 56, 4, 0x12345678);
    ck_assert_uint_eq(rd(&x, 56, 4), 0x5678);
    ck_assert_uint_eq(x.g->wide, 0);
    wr(&x, 68, 4, 0xaabbccdd);
    wr(&x, 64, 2, 0x1122);
    ck_assert_uint_eq(rd(&x, 64, 8), 0xaabbccdd00001122);
    wr(&x, 76, 4, 0x55667788); /* half of what only a hook knows: merged with what it reads */
    ck_assert_uint_eq(x.g->value, 0x5566778800001122);
    drop(&x);
}
END_TEST

START_TEST(random_accesses_anywhere_are_harmless)
{
    struct fixture x;
    make(&x);
    uint64_t rnd = test_seed();
    for (unsigned i = 0; i < 20000; i++) {
        unsigned size = 1u << (test_random(&rnd) % 4);
        uint64_t at = test_random(&rnd) % (0x101 - size), v = 0;
        if (test_random(&rnd) & 1) {
            wr(&x, at, size, test_random(&rnd));
        } else {
            v = rd(&x, at, size);
        }
        ck_assert(size == 8 || v >> (size * 8) == 0);
        ck_assert_uint_eq(x.g->ctrl & 0xff00ff00, 0x11001100);
        ck_assert_uint_eq(x.g->status & ~0xff0fu, 0);
    }
    dev_reset(&x.g->dev);
    ck_assert_uint_eq(x.g->status, 0xff00);
    ck_assert_uint_eq(x.g->table[3], 7);
    ck_assert_uint_eq(x.g->half, 0xbeef);
    drop(&x);
}
END_TEST

START_TEST(raw_block_gets_the_device)
{
    struct fixture x;
    make(&x);
    uint64_t v = 0;
    ck_assert_int_eq(bus_read(mem_find(x.s, 0x2000), 0x2003, 1, &v), BUS_OK);
    ck_assert_uint_eq(v, 103);
    drop(&x);
}
END_TEST

START_TEST(properties_have_defaults_kinds_and_bounds)
{
    struct err e = ERR_INIT;
    struct vm vm;
    list_init(&vm.devices);
    struct gadget *g = new_gadget(&vm, "g1");
    struct device *d = &g->dev;
    ck_assert_uint_eq(g->speed, 100);
    ck_assert(g->fast);
    ck_assert_int_eq(dev_set_u64(d, "speed", 1001, &e), -ERANGE);
    ck_assert_ptr_nonnull(strstr(e.msg, "10 to 1000"));
    ck_assert_int_eq(dev_set_u64(d, "speed", 9, &e), -ERANGE);
    ck_assert_int_eq(dev_set_u64(d, "speed", 1000, &e), 0);
    ck_assert_int_eq(dev_set_bool(d, "speed", true, &e), -EINVAL);
    ck_assert_int_eq(dev_set_bool(d, "fast", false, &e), 0);
    ck_assert_int_eq(dev_set_u64(d, "colour", 1, &e), -ENOENT);
    ck_assert_ptr_nonnull(strstr(e.msg, "speed, fast, title, backend"));
    ck_assert_int_eq(dev_set_str(d, "title", "one", &e), 0);
    ck_assert_int_eq(dev_set_str(d, "title", "two", &e), 0);
    ck_assert_str_eq(g->title, "two");
    ck_assert_int_eq(dev_realize(d, &e), -EINVAL); /* backend is missing */
    ck_assert_ptr_nonnull(strstr(e.msg, "backend"));
    ck_assert_int_eq(dev_set_ptr(d, "backend", NULL, &e), 0);
    ck_assert_int_eq(dev_realize(d, &e), -EINVAL);
    ck_assert_int_eq(dev_set_ptr(d, "backend", g, &e), 0);
    ck_assert_int_eq(dev_realize(d, &e), 0);
    ck_assert_int_eq(dev_set_u64(d, "speed", 50, &e), -EBUSY);
    ck_assert_uint_eq(g->resets, 1);
    dev_free(d);
}
END_TEST

START_TEST(devices_are_found_by_unique_ids)
{
    struct fixture x;
    make(&x);
    struct device *d = NULL;
    struct err e = ERR_INIT;
    ck_assert_ptr_eq(dev_find(&x.vm, "g0"), &x.g->dev);
    ck_assert_ptr_null(dev_find(&x.vm, "g1"));
    ck_assert_int_eq(dev_new(&x.vm, &gadget_class, "g0", &d, &e), -EEXIST);
    ck_assert_int_eq(dev_new(&x.vm, &gadget_class, "", &d, &e), -EINVAL);
    ck_assert_int_eq(dev_new(&x.vm, &gadget_class, "a b", &d, &e), -EINVAL);
    struct gadget *twin = new_gadget(&x.vm, "g1"), *late = new_gadget(&x.vm, "g1");
    dev_set_ptr(&twin->dev, "backend", &x, NULL);
    dev_set_ptr(&late->dev, "backend", &x, NULL);
    ck_assert_int_eq(dev_realize(&twin->dev, &e), 0);
    ck_assert_int_eq(dev_realize(&late->dev, &e), -EEXIST);
    dev_free(&late->dev);
    dev_free(&twin->dev);
    ck_assert_ptr_null(dev_find(&x.vm, "g1"));
    drop(&x);
    ck_assert_uint_eq(destroyed, 3);
}
END_TEST

START_TEST(failed_realize_leaves_a_device_that_can_be_freed)
{
    struct err e = ERR_INIT;
    struct vm vm;
    list_init(&vm.devices);
    struct gadget *g = new_gadget(&vm, "g1");
    dev_set_ptr(&g->dev, "backend", &vm, NULL);
    dev_set_u64(&g->dev, "speed", 13, NULL);
    ck_assert_int_eq(dev_realize(&g->dev, &e), -EIO);
    ck_assert_ptr_null(dev_find(&vm, "g1"));
    dev_free(&g->dev);
    dev_free(NULL);
}
END_TEST

START_TEST(reference_names_every_register_property_and_field)
{
    AUTO_BUF b = BUF_INIT;
    dev_describe(&gadget_class, &b);
    for (const struct dev_reg *r = regs; r->name; r++) {
        ck_assert_ptr_nonnull(strstr(b.data, r->name));
    }
    for (const struct dev_prop *p = props; p->name; p++) {
        ck_assert_ptr_nonnull(strstr(b.data, p->name));
    }
    ck_assert_ptr_nonnull(strstr(b.data, "Interrupt lines: 2."));
    ck_assert_ptr_nonnull(strstr(b.data, "| `ctrl` | 1 | control |"));
    ck_assert_ptr_nonnull(strstr(b.data, "write 1 to clear 0xff00"));
}
END_TEST

static Suite *suite_device(void)
{
    Suite *s = suite_create("device");
    TCase *c = tcase_create("device");
    tcase_add_test(c, constant_register_reads_its_reset_value_and_ignores_writes);
    tcase_add_test(c, only_writable_bits_change);
    tcase_add_test(c, ones_clear_write_one_to_clear_bits);
    tcase_add_test(c, doorbell_without_field_gets_the_value);
    tcase_add_test(c, arrays_have_a_stride_and_an_index);
    tcase_add_test(c, fields_may_be_smaller_and_registers_64_bits_wide);
    tcase_add_test(c, random_accesses_anywhere_are_harmless);
    tcase_add_test(c, raw_block_gets_the_device);
    tcase_add_test(c, properties_have_defaults_kinds_and_bounds);
    tcase_add_test(c, devices_are_found_by_unique_ids);
    tcase_add_test(c, failed_realize_leaves_a_device_that_can_be_freed);
    tcase_add_test(c, reference_names_every_register_property_and_field);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_device, NULL);
}
