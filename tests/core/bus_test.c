/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of MMIO dispatch: splitting, widening, alignment, holes, ROM, locks.
 */
#include "engine/core/bus.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"

/* A device that is bytes, and remembers how it was accessed. */
struct dev {
    uint8_t bytes[64];
    unsigned n;
    struct {
        bool write;
        uint64_t offset;
        unsigned size;
    } log[16];
    struct bus_lock *lock;
};

static void note(struct dev *d, bool write, uint64_t offset, unsigned size)
{
    ck_assert_uint_lt(d->n, 16);
    ck_assert_uint_eq(offset % size, 0);
    d->log[d->n].write = write;
    d->log[d->n].offset = offset;
    d->log[d->n++].size = size;
    if (d->lock) { /* held by the dispatcher */
        ck_assert_int_ne(pthread_mutex_trylock(&d->lock->mutex), 0);
    }
}

static uint64_t dev_read(void *opaque, uint64_t offset, unsigned size)
{
    struct dev *d = opaque;
    note(d, false, offset, size);
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++) {
        v |= (uint64_t)d->bytes[offset + i] << (i * 8);
    }
    return v;
}

static void dev_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct dev *d = opaque;
    note(d, true, offset, size);
    for (unsigned i = 0; i < size; i++) {
        d->bytes[offset + i] = (uint8_t)(value >> (i * 8));
    }
}

struct fixture {
    struct dev d;
    struct mem_io_ops ops;
    struct mem_region *root, *io, *ram, *rom;
    struct mem_space *s;
    struct bus_lock lock;
};

#define IO 0x1000
#define RAM 0x2000
#define ROM 0x3000

static void make(struct fixture *x, unsigned min, unsigned max)
{
    memset(x, 0, sizeof(*x));
    bus_lock_init(&x->lock);
    x->d.lock = &x->lock;
    x->ops = (struct mem_io_ops){
        .read = dev_read, .write = dev_write, .min_size = (uint8_t)min, .max_size = (uint8_t)max
    };
    for (unsigned i = 0; i < sizeof(x->d.bytes); i++) {
        x->d.bytes[i] = (uint8_t)(i + 1);
    }
    x->root = mem_new_container("root", 1 << 20);
    x->io = mem_new_io("io", sizeof(x->d.bytes), &x->ops, &x->d, &x->lock);
    ck_assert_int_eq(mem_new_ram("ram", 0x1000, &x->ram, NULL), 0);
    ck_assert_int_eq(mem_new_rom("rom", 0x1000, &x->rom, NULL), 0);
    ck_assert_int_eq(mem_map(x->root, IO, 0, x->io, NULL), 0);
    ck_assert_int_eq(mem_map(x->root, RAM, 0, x->ram, NULL), 0);
    ck_assert_int_eq(mem_map(x->root, ROM, 0, x->rom, NULL), 0);
    x->s = mem_space_new(x->root);
    mem_commit(x->s);
}

static void drop(struct fixture *x)
{
    mem_space_free(x->s);
    mem_free(x->io);
    mem_free(x->ram);
    mem_free(x->rom);
    mem_free(x->root);
    bus_lock_done(&x->lock);
}

static enum bus_result rd(struct fixture *x, uint64_t at, unsigned size, uint64_t *v)
{
    x->d.n = 0;
    return bus_read(mem_find(x->s, at), at, size, v);
}

static enum bus_result wr(struct fixture *x, uint64_t at, unsigned size, uint64_t v)
{
    x->d.n = 0;
    return bus_write(x->s, mem_find(x->s, at), at, size, v);
}

START_TEST(access_of_a_size_the_device_takes_is_passed_on)
{
    struct fixture x;
    make(&x, 0, 0);
    uint64_t v = 0;
    ck_assert_int_eq(rd(&x, IO + 8, 8, &v), BUS_OK);
    ck_assert_uint_eq(v, 0x100f0e0d0c0b0a09);
    ck_assert_uint_eq(x.d.n, 1);
    ck_assert_int_eq(wr(&x, IO + 2, 2, 0xffffabcd), BUS_OK);
    ck_assert_uint_eq(x.d.n, 1);
    ck_assert_uint_eq(x.d.bytes[2], 0xcd);
    ck_assert_uint_eq(x.d.bytes[3], 0xab);
    ck_assert_uint_eq(x.d.bytes[4], 5);
    drop(&x);
}
END_TEST

START_TEST(wide_access_is_split_low_address_first)
{
    struct fixture x;
    make(&x, 1, 4);
    uint64_t v = 0;
    ck_assert_int_eq(rd(&x, IO + 8, 8, &v), BUS_OK);
    ck_assert_uint_eq(v, 0x100f0e0d0c0b0a09);
    ck_assert_uint_eq(x.d.n, 2);
    ck_assert_uint_eq(x.d.log[0].offset, 8);
    ck_assert_uint_eq(x.d.log[1].offset, 12);
    ck_assert_int_eq(wr(&x, IO, 8, 0x1122334455667788), BUS_OK);
    ck_assert_uint_eq(x.d.n, 2);
    ck_assert_int_eq(rd(&x, IO, 8, &v), BUS_OK);
    ck_assert_uint_eq(v, 0x1122334455667788);
    drop(&x);
}
END_TEST

START_TEST(narrow_access_is_widened)
{
    struct fixture x;
    make(&x, 4, 4);
    uint64_t v = 0;
    ck_assert_int_eq(rd(&x, IO + 5, 1, &v), BUS_OK);
    ck_assert_uint_eq(v, 6);
    ck_assert_uint_eq(x.d.n, 1);
    ck_assert_uint_eq(x.d.log[0].offset, 4);
    ck_assert_uint_eq(x.d.log[0].size, 4);
    ck_assert_int_eq(wr(&x, IO + 6, 1, 0x77), BUS_OK);
    ck_assert_uint_eq(x.d.n, 1); /* written without reading first: the other bytes are zero */
    ck_assert_uint_eq(x.d.bytes[6], 0x77);
    ck_assert_uint_eq(x.d.bytes[5], 0);
    drop(&x);
}
END_TEST

START_TEST(every_read_gives_the_same_bytes_however_it_is_cut)
{
    static const uint8_t limits[][2] = { { 1, 8 }, { 1, 4 }, { 1, 1 }, { 2, 2 }, { 4, 4 },
                                         { 2, 8 }, { 8, 8 }, { 4, 8 }, { 1, 2 } };
    for (size_t l = 0; l < ARRAY_LEN(limits); l++) {
        struct fixture x;
        make(&x, limits[l][0], limits[l][1]);
        for (unsigned at = 0; at < 64; at++) {
            for (unsigned size = 1; size <= 8 && at + size <= 64; size *= 2) {
                uint64_t v = 0, want = 0;
                for (unsigned i = 0; i < size; i++) {
                    want |= (uint64_t)(at + i + 1) << (i * 8);
                }
                ck_assert_int_eq(rd(&x, IO + at, size, &v), BUS_OK);
                ck_assert_uint_eq(v, want);
                for (unsigned i = 0; i < x.d.n; i++) {
                    ck_assert_uint_ge(x.d.log[i].size, limits[l][0]);
                    ck_assert_uint_le(x.d.log[i].size, limits[l][1]);
                }
            }
        }
        drop(&x);
    }
}
END_TEST

START_TEST(access_that_leaves_the_range_reaches_nothing)
{
    struct fixture x;
    make(&x, 0, 0);
    uint64_t v = 0x55;
    ck_assert_int_eq(rd(&x, IO + 62, 4, &v), BUS_NONE);
    ck_assert_int_eq(wr(&x, IO + 63, 2, 0), BUS_NONE);
    const struct mem_range *io = mem_find(x.s, IO);
    ck_assert_int_eq(bus_read(io, IO - 1, 1, &v), BUS_NONE);
    ck_assert_int_eq(bus_read(io, IO + 64, 1, &v), BUS_NONE);
    ck_assert_int_eq(bus_read(io, UINT64_MAX, 8, &v), BUS_NONE);
    ck_assert_uint_eq(v, 0x55);
    ck_assert_uint_eq(x.d.n, 0);
    drop(&x);
}
END_TEST

START_TEST(ram_and_rom_are_served_and_rom_is_kept)
{
    struct fixture x;
    make(&x, 0, 0);
    uint64_t v = 0;
    ck_assert_int_eq(wr(&x, RAM + 1, 8, 0x0102030405060708), BUS_OK);
    ck_assert_int_eq(rd(&x, RAM + 2, 2, &v), BUS_OK);
    ck_assert_uint_eq(v, 0x0607);
    ck_assert_int_eq(wr(&x, ROM, 4, 1), BUS_DENIED);
    ck_assert_int_eq(rd(&x, ROM, 4, &v), BUS_OK);
    ck_assert_uint_eq(v, 0);
    drop(&x);
}
END_TEST

START_TEST(device_without_functions_reads_zero)
{
    struct fixture x;
    make(&x, 0, 0);
    x.ops.read = NULL;
    x.ops.write = NULL;
    uint64_t v = 1;
    ck_assert_int_eq(rd(&x, IO, 8, &v), BUS_OK);
    ck_assert_uint_eq(v, 0);
    ck_assert_int_eq(wr(&x, IO, 8, 1), BUS_OK);
    drop(&x);
}
END_TEST

START_TEST(ports_reach_devices_and_absent_ones_read_ones)
{
    struct fixture x;
    make(&x, 1, 4); /* its space serves as one of ports: RAM in it is none */
    x.d.bytes[3] = 0xa5;
    ck_assert_uint_eq(bus_port_read(x.s, IO + 3, 1), 0xa5);
    bus_port_write(x.s, IO + 4, 4, 0x12345678);
    ck_assert_uint_eq(bus_port_read(x.s, IO + 4, 4), 0x12345678);
    ck_assert_uint_eq(bus_port_read(x.s, IO + 4, 2), 0x5678);
    ck_assert_uint_eq(bus_port_read(x.s, 0x80, 1), 0xff);
    ck_assert_uint_eq(bus_port_read(x.s, 0x80, 2), 0xffff);
    ck_assert_uint_eq(bus_port_read(x.s, IO + 62, 4), UINT32_MAX); /* over its end */
    ck_assert_uint_eq(bus_port_read(x.s, RAM, 4), UINT32_MAX);
    bus_port_write(x.s, RAM, 4, 0x55);
    ck_assert_uint_eq(mem_ram_host(x.ram)[0], 0);
    bus_port_write(x.s, 0x80, 1, 1);
    drop(&x);
}
END_TEST

static Suite *suite_bus(void)
{
    Suite *s = suite_create("bus");
    TCase *c = tcase_create("bus");
    tcase_add_test(c, access_of_a_size_the_device_takes_is_passed_on);
    tcase_add_test(c, wide_access_is_split_low_address_first);
    tcase_add_test(c, narrow_access_is_widened);
    tcase_add_test(c, every_read_gives_the_same_bytes_however_it_is_cut);
    tcase_add_test(c, access_that_leaves_the_range_reaches_nothing);
    tcase_add_test(c, ram_and_rom_are_served_and_rom_is_kept);
    tcase_add_test(c, device_without_functions_reads_zero);
    tcase_add_test(c, ports_reach_devices_and_absent_ones_read_ones);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_bus, NULL);
}
