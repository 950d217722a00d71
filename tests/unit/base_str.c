/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of str: numbers, sizes, names, UUIDs.
 */
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "tests/unit/base_suites.h"

#include <errno.h>
#include <string.h>

START_TEST(str_copy_cuts_and_says_so)
{
    char small[4];
    ck_assert(str_copy(small, sizeof(small), "abc"));
    ck_assert_str_eq(small, "abc");
    ck_assert(!str_copy(small, sizeof(small), "abcd"));
    ck_assert_str_eq(small, "abc");
    ck_assert(str_starts("abc", "ab"));
    ck_assert(str_starts("abc", ""));
    ck_assert(!str_starts("a", "ab"));
}
END_TEST

static const struct {
    const char *text;
    uint64_t min, max;
    int rc;
    uint64_t value;
} numbers[] = {
    { "0", 0, 10, 0, 0 },
    { "10", 0, 10, 0, 10 },
    { "0x1F", 0, 100, 0, 31 },
    { "18446744073709551615", 0, UINT64_MAX, 0, UINT64_MAX },
    { "0xffffffffffffffff", 0, UINT64_MAX, 0, UINT64_MAX },
    { "18446744073709551616", 0, UINT64_MAX, -ERANGE, 0 },
    { "99999999999999999999999999", 0, UINT64_MAX, -ERANGE, 0 },
    { "11", 0, 10, -ERANGE, 0 },
    { "1", 2, 10, -ERANGE, 0 },
    { "", 0, 10, -EINVAL, 0 },
    { "0x", 0, 10, -EINVAL, 0 },
    { " 1", 0, 10, -EINVAL, 0 },
    { "1 ", 0, 10, -EINVAL, 0 },
    { "-1", 0, 10, -EINVAL, 0 },
    { "+1", 0, 10, -EINVAL, 0 },
    { "1a", 0, 10, -EINVAL, 0 },
};

START_TEST(str_to_u64_takes_whole_numbers_in_range_only)
{
    uint64_t out = 77;
    struct err e = ERR_INIT;
    int rc = str_to_u64(numbers[_i].text, numbers[_i].min, numbers[_i].max, "cpus", &out, &e);
    ck_assert_int_eq(rc, numbers[_i].rc);
    ck_assert_int_eq(e.code, rc);
    ck_assert_uint_eq(out, rc ? 77 : numbers[_i].value);
    if (rc) {
        ck_assert_ptr_eq(strstr(e.msg, "cpus"), e.msg);
    }
}
END_TEST

static const struct {
    const char *text;
    int rc;
    uint64_t value;
} sizes[] = {
    { "0", 0, 0 },
    { "4096", 0, 4096 },
    { "512B", 0, 512 },
    { "1k", 0, 1024 },
    { "512M", 0, UINT64_C(512) << 20 },
    { "512MiB", 0, UINT64_C(512) << 20 },
    { "512mb", 0, UINT64_C(512) << 20 },
    { "1.5G", 0, UINT64_C(3) << 29 },
    { "0.001K", 0, 1 },
    { "2T", 0, UINT64_C(2) << 40 },
    { "16777215T", 0, UINT64_C(16777215) << 40 },
    { "16777216T", -ERANGE, 0 },
    { "99999999999999999999", -ERANGE, 0 },
    { "1.5", -EINVAL, 0 },
    { "1.G", -EINVAL, 0 },
    { ".5G", -EINVAL, 0 },
    { "1.0000000000000000000G", -EINVAL, 0 },
    { "", -EINVAL, 0 },
    { "G", -EINVAL, 0 },
    { "1Gi", -EINVAL, 0 },
    { "1GG", -EINVAL, 0 },
    { "1X", -EINVAL, 0 },
    { "-1M", -EINVAL, 0 },
    { "1 M", -EINVAL, 0 },
};

START_TEST(str_to_size_knows_units)
{
    uint64_t out = 77;
    struct err e = ERR_INIT;
    ck_assert_int_eq(str_to_size(sizes[_i].text, "memory", &out, &e), sizes[_i].rc);
    ck_assert_uint_eq(out, sizes[_i].rc ? 77 : sizes[_i].value);
}
END_TEST

static const struct {
    uint64_t bytes;
    const char *text;
} printed[] = {
    { 0, "0 B" },
    { 1023, "1023 B" },
    { 1024, "1 KiB" },
    { 1536, "1.5 KiB" },
    { 1792, "1.75 KiB" },
    { UINT64_C(512) << 20, "512 MiB" },
    { UINT64_C(1025) << 20, "1025 MiB" },
    { (UINT64_C(1) << 30) + 1, "1.0 GiB" },
    { UINT64_C(1) << 40, "1 TiB" },
    { UINT64_MAX, "15.9 EiB" },
};

START_TEST(str_size_is_exact_where_it_can_be)
{
    char out[32];
    str_size(printed[_i].bytes, out, sizeof(out));
    ck_assert_str_eq(out, printed[_i].text);
}
END_TEST

START_TEST(str_is_name_bounds_names)
{
    char longest[65];
    memset(longest, 'a', 64);
    longest[64] = '\0';
    ck_assert(!str_is_name(longest));
    longest[63] = '\0';
    ck_assert(str_is_name(longest));
    static const char *const good[] = { "a", "db1", "A.b_c+d-e", "0" };
    static const char *const bad[] = { "", "-a", ".a", "a/b", "a b", "a\n", "\xc3\xa9", "a'" };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        ck_assert_msg(str_is_name(good[i]), "%s", good[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_msg(!str_is_name(bad[i]), "%s", bad[i]);
    }
}
END_TEST

START_TEST(uuid_make_is_version_4_and_never_the_same)
{
    char a[37], b[37];
    for (int i = 0; i < 100; i++) {
        uuid_make(a);
        uuid_make(b);
        ck_assert(uuid_ok(a));
        ck_assert_int_eq(a[14], '4');
        ck_assert_ptr_nonnull(strchr("89ab", a[19]));
        ck_assert_str_ne(a, b);
    }
    ck_assert(!uuid_ok(""));
    ck_assert(!uuid_ok("123e4567-e89b-12d3-a456-42661417400"));
    ck_assert(!uuid_ok("123e4567-e89b-12d3-a456-4266141740000"));
    ck_assert(!uuid_ok("123E4567-e89b-12d3-a456-426614174000"));
    ck_assert(!uuid_ok("123e4567ee89b-12d3-a456-426614174000"));
    ck_assert(uuid_ok("123e4567-e89b-12d3-a456-426614174000"));
}
END_TEST

Suite *suite_str(void)
{
    Suite *s = suite_create("str");
    TCase *tc = tcase_create("str");
    tcase_add_test(tc, str_copy_cuts_and_says_so);
    tcase_add_loop_test(tc, str_to_u64_takes_whole_numbers_in_range_only, 0,
                        ARRAY_LEN(numbers));
    tcase_add_loop_test(tc, str_to_size_knows_units, 0, ARRAY_LEN(sizes));
    tcase_add_loop_test(tc, str_size_is_exact_where_it_can_be, 0, ARRAY_LEN(printed));
    tcase_add_test(tc, str_is_name_bounds_names);
    tcase_add_test(tc, uuid_make_is_version_4_and_never_the_same);
    suite_add_tcase(s, tc);
    return s;
}
