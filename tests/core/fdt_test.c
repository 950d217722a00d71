/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of device-tree building: read back with libfdt's reader, and by dtc where it is
 * installed.
 */
#include "engine/core/fdt.h"
#include "engine/base/buf.h"
#include "tests/lib/testing.h"

#include <libfdt.h>
#include <unistd.h>

static void *build(size_t *size)
{
    struct fdt *f = fdt_new();
    struct err e = ERR_INIT;
    void *blob = NULL;
    fdt_node_begin(f, "%s", "");
    fdt_u32(f, "#address-cells", 2);
    fdt_u32(f, "#size-cells", 2);
    fdt_str(f, "compatible", "riscv-virtio");
    fdt_str(f, "model", "test");
    fdt_node_begin(f, "memory@%llx", 0x80000000ull);
    fdt_str(f, "device_type", "memory");
    fdt_reg64(f, 0x80000000, 0x123456789a);
    fdt_node_end(f);
    fdt_node_begin(f, "chosen");
    fdt_u64(f, "seed", 0x1122334455667788);
    fdt_empty(f, "flag");
    fdt_strs(f, "names", (const char *const[]){ "one", "two" }, 2);
    fdt_cells(f, "cells", (const uint32_t[]){ 1, 2, 3 }, 3);
    fdt_bytes(f, "bytes", "\x01\x02\x03", 3);
    fdt_u32(f, "phandle", fdt_phandle_new(f));
    fdt_node_end(f);
    fdt_node_end(f);
    int ret = fdt_take(f, &blob, size, &e);
    ck_assert_msg(ret == 0, "%s", e.msg);
    fdt_free(f);
    return blob;
}

START_TEST(tree_reads_back_as_written)
{
    size_t size = 0;
    int len = 0;
    void *blob = build(&size);
    ck_assert_int_eq(fdt_check_full(blob, size), 0);
    int memory = fdt_path_offset(blob, "/memory@80000000"),
        chosen = fdt_path_offset(blob, "/chosen");
    ck_assert_int_ge(memory, 0);
    const fdt64_t *reg = fdt_getprop(blob, memory, "reg", &len);
    ck_assert_int_eq(len, 16);
    ck_assert_uint_eq(fdt64_ld(reg), 0x80000000);
    ck_assert_uint_eq(fdt64_ld(reg + 1), 0x123456789a);
    ck_assert_uint_eq(fdt64_ld(fdt_getprop(blob, chosen, "seed", &len)), 0x1122334455667788);
    ck_assert_ptr_nonnull(fdt_getprop(blob, chosen, "flag", &len));
    ck_assert_int_eq(len, 0);
    ck_assert_str_eq(fdt_stringlist_get(blob, chosen, "names", 1, &len), "two");
    ck_assert_int_eq(fdt_stringlist_count(blob, chosen, "names"), 2);
    const fdt32_t *cells = fdt_getprop(blob, chosen, "cells", &len);
    ck_assert_int_eq(len, 12);
    ck_assert_uint_eq(fdt32_to_cpu(cells[2]), 3);
    ck_assert_mem_eq(fdt_getprop(blob, chosen, "bytes", &len), "\x01\x02\x03", 3);
    ck_assert_int_eq(fdt_node_offset_by_phandle(blob, 1), chosen);
    free(blob);
}
END_TEST

START_TEST(dtc_accepts_the_tree)
{
    size_t size = 0;
    void *blob = build(&size);
    if (system("dtc --version >/dev/null 2>&1") != 0) {
        printf("# skipped: dtc is not installed\n");
        free(blob);
        return;
    }
    char path[] = "/tmp/vmd-fdt-test-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_eq(write(fd, blob, size), (ssize_t)size);
    close(fd);
    AUTO_BUF cmd = BUF_INIT;
    buf_printf(&cmd, "dtc -q -I dtb -O dts %s", path);
    FILE *p = popen(cmd.data, "r");
    char text[4096];
    size_t n = fread(text, 1, sizeof(text) - 1, p);
    text[n] = '\0';
    ck_assert_int_eq(pclose(p), 0);
    unlink(path);
    ck_assert_ptr_nonnull(strstr(text, "memory@80000000 {"));
    ck_assert_ptr_nonnull(strstr(text, "names = \"one\\0two\";"));
    ck_assert_ptr_nonnull(strstr(text, "cells = <0x01 0x02 0x03>;"));
    free(blob);
}
END_TEST

START_TEST(large_trees_grow)
{
    struct fdt *f = fdt_new();
    fdt_node_begin(f, "%s", "");
    for (unsigned i = 0; i < 3000; i++) {
        char name[32];
        fdt_node_begin(f, "node@%x", i);
        snprintf(name, sizeof(name), "property-%u", i);
        fdt_u32(f, name, i);
        fdt_str(f, "text", "some text that takes room, some text that takes room");
        fdt_node_end(f);
    }
    fdt_node_end(f);
    void *blob = NULL;
    size_t size = 0;
    struct err e = ERR_INIT;
    ck_assert_msg(fdt_take(f, &blob, &size, &e) == 0, "%s", e.msg);
    ck_assert_uint_gt(size, 200000);
    ck_assert_int_eq(fdt_check_full(blob, size), 0);
    int len, at = fdt_path_offset(blob, "/node@bb7");
    ck_assert_uint_eq(fdt32_ld(fdt_getprop(blob, at, "property-2999", &len)), 2999);
    free(blob);
    fdt_free(f);
}
END_TEST

START_TEST(first_failure_is_told_at_the_end)
{
    struct err e = ERR_INIT;
    void *blob = &e;
    size_t size = 7;
    struct fdt *f = fdt_new();
    fdt_node_begin(f, "%s", "");
    fdt_node_begin(f, "left-open");
    ck_assert_int_eq(fdt_take(f, &blob, &size, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.msg, "left-open"));
    ck_assert_ptr_eq(blob, &e);
    ck_assert_uint_eq(size, 7);
    fdt_free(f);

    f = fdt_new();
    fdt_node_end(f);
    fdt_str(f, "orphan", "x");
    ck_assert_int_eq(fdt_take(f, &blob, &size, &e), -EINVAL);
    fdt_free(f);

    f = fdt_new();
    fdt_node_begin(f, "%s", "");
    static char huge[5 << 20];
    fdt_bytes(f, "huge", huge, sizeof(huge));
    fdt_node_end(f);
    ck_assert_int_eq(fdt_take(f, &blob, &size, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.msg, "'huge'"));
    fdt_free(f);
    fdt_free(NULL);
}
END_TEST

static Suite *suite_fdt(void)
{
    Suite *s = suite_create("fdt");
    TCase *c = tcase_create("fdt");
    tcase_add_test(c, tree_reads_back_as_written);
    tcase_add_test(c, dtc_accepts_the_tree);
    tcase_add_test(c, large_trees_grow);
    tcase_add_test(c, first_failure_is_told_at_the_end);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_fdt, NULL);
}
