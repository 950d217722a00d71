/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of err, mem, buf and list.
 */
#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/base/list.h"
#include "engine/base/mem.h"
#include "tests/unit/base_suites.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

START_TEST(err_set_returns_code_and_keeps_text)
{
    struct err e = ERR_INIT;
    ck_assert_int_eq(err_set(&e, -EINVAL, "disk '%s' is odd", "root"), -EINVAL);
    ck_assert_int_eq(e.code, -EINVAL);
    ck_assert_str_eq(e.msg, "disk 'root' is odd");
    err_clear(&e);
    ck_assert_int_eq(e.code, 0);
    ck_assert_str_eq(e.msg, "");
}
END_TEST

START_TEST(err_without_struct_still_returns_code)
{
    ck_assert_int_eq(err_set(NULL, -EIO, "x"), -EIO);
    ck_assert_int_eq(err_errno(NULL, ENOENT, "x"), -ENOENT);
    err_prefix(NULL, "x");
    err_clear(NULL);
}
END_TEST

START_TEST(err_errno_appends_the_reason)
{
    struct err e = ERR_INIT;
    ck_assert_int_eq(err_errno(&e, ENOENT, "cannot open %s", "/x"), -ENOENT);
    ck_assert_str_eq(e.msg, "cannot open /x: No such file or directory");
}
END_TEST

START_TEST(err_prefix_keeps_code_and_may_quote_itself)
{
    struct err e = ERR_INIT;
    err_set(&e, -EPERM, "no");
    err_prefix(&e, "VM '%s'", "db1");
    ck_assert_str_eq(e.msg, "VM 'db1': no");
    ck_assert_int_eq(e.code, -EPERM);
    err_set(&e, -EIO, "again: %s", e.msg);
    ck_assert_str_eq(e.msg, "again: VM 'db1': no");
}
END_TEST

START_TEST(err_long_text_is_cut_between_characters)
{
    struct err e = ERR_INIT;
    char text[sizeof(e.msg) + 8];
    for (size_t cut = 0; cut < 2; cut++) {
        memset(text, 'a', cut);
        for (size_t i = cut; i + 1 < sizeof(text); i += 2) {
            memcpy(text + i, "\xc3\xa9", 2); /* é */
        }
        text[sizeof(text) - 1] = '\0';
        err_set(&e, -1, "%s", text);
        size_t n = strlen(e.msg);
        ck_assert_uint_ge(n, sizeof(e.msg) - 2);
        ck_assert_uint_eq((n - cut) % 2, 0);
    }
}
END_TEST

START_TEST(mem_zero_sizes_give_pointers_and_zeroes)
{
    AUTO_FREE char *a = xalloc(0);
    AUTO_FREE char *b = xalloc_n(0, 8);
    AUTO_FREE unsigned char *c = xalloc_n(5, 3);
    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_nonnull(b);
    for (int i = 0; i < 15; i++) {
        ck_assert_uint_eq(c[i], 0);
    }
}
END_TEST

START_TEST(mem_try_alloc_refuses_what_cannot_be)
{
    /* volatile: the compiler would otherwise reject the impossible size itself */
    volatile size_t huge = SIZE_MAX / 2;
    AUTO_FREE void *none = try_alloc_n(huge, 3);
    ck_assert_ptr_null(none);
    AUTO_FREE void *some = try_alloc_n(3, 3);
    ck_assert_ptr_nonnull(some);
}
END_TEST

START_TEST(mem_overflowing_product_aborts)
{
    volatile size_t huge = SIZE_MAX / 2;
    free(xalloc_n(huge, 3));
}
END_TEST

START_TEST(mem_strings_are_copied)
{
    AUTO_FREE char *a = xstrdup("hello");
    AUTO_FREE char *b = xstrndup("hello", 2);
    AUTO_FREE char *c = xstrndup("hi", 9);
    AUTO_FREE char *d = xasprintf("%s-%d", "x", 7);
    ck_assert_str_eq(a, "hello");
    ck_assert_str_eq(b, "he");
    ck_assert_str_eq(c, "hi");
    ck_assert_str_eq(d, "x-7");
}
END_TEST

START_TEST(mem_take_ptr_leaves_null)
{
    AUTO_FREE char *a = xstrdup("x");
    char *b = take_ptr(a);
    ck_assert_ptr_null(a);
    ck_assert_str_eq(b, "x");
    free(b);
}
END_TEST

START_TEST(buf_grows_and_stays_terminated)
{
    AUTO_BUF b = BUF_INIT;
    AUTO_BUF expect = BUF_INIT;
    for (int i = 0; i < 1000; i++) {
        buf_printf(&b, "%d,", i);
        char one[16];
        snprintf(one, sizeof(one), "%d,", i);
        buf_add_str(&expect, one);
        ck_assert_uint_eq(b.data[b.len], 0);
    }
    ck_assert_uint_eq(b.len, expect.len);
    ck_assert_str_eq(b.data, expect.data);
}
END_TEST

START_TEST(buf_printf_longer_than_any_guess)
{
    AUTO_BUF b = BUF_INIT;
    buf_add_str(&b, "x");
    buf_printf(&b, "%05000d|%s", 7, "end");
    ck_assert_uint_eq(b.len, 1 + 5000 + 4);
    ck_assert_str_eq(b.data + b.len - 5, "7|end");
}
END_TEST

START_TEST(buf_consume_drops_the_front)
{
    AUTO_BUF b = BUF_INIT;
    buf_consume(&b, 0);
    buf_add(&b, "ab\0cd", 5);
    buf_consume(&b, 3);
    ck_assert_str_eq(b.data, "cd");
    buf_consume(&b, 2);
    ck_assert_uint_eq(b.len, 0);
    ck_assert_str_eq(b.data, "");
}
END_TEST

START_TEST(buf_take_of_empty_is_an_empty_string)
{
    struct buf b = BUF_INIT;
    AUTO_FREE char *s = buf_take(&b);
    ck_assert_str_eq(s, "");
    ck_assert_ptr_null(b.data);
}
END_TEST

START_TEST(buf_impossible_reserve_aborts)
{
    AUTO_BUF b = BUF_INIT;
    buf_add_str(&b, "x");
    buf_reserve(&b, SIZE_MAX - 1);
}
END_TEST

struct item {
    int n;
    struct list link;
};

START_TEST(list_keeps_order_and_survives_removal)
{
    struct list head;
    struct item items[5];
    list_init(&head);
    ck_assert(list_empty(&head));
    for (int i = 0; i < 5; i++) {
        items[i].n = i;
        list_append(&head, &items[i].link);
    }
    list_for_each_safe (it, &head) {
        if (list_entry(it, struct item, link)->n % 2) {
            list_remove(it);
            list_remove(it); /* twice is harmless */
        }
    }
    int expect = 0;
    list_for_each (it, &head) {
        ck_assert_int_eq(list_entry(it, struct item, link)->n, expect);
        expect += 2;
    }
    ck_assert_int_eq(expect, 6);
    list_insert(&head, &items[1].link);
    ck_assert_int_eq(list_entry(head.next, struct item, link)->n, 1);
}
END_TEST

Suite *suite_values(void)
{
    Suite *s = suite_create("values");
    TCase *err = tcase_create("err");
    tcase_add_test(err, err_set_returns_code_and_keeps_text);
    tcase_add_test(err, err_without_struct_still_returns_code);
    tcase_add_test(err, err_errno_appends_the_reason);
    tcase_add_test(err, err_prefix_keeps_code_and_may_quote_itself);
    tcase_add_test(err, err_long_text_is_cut_between_characters);
    suite_add_tcase(s, err);
    TCase *mem = tcase_create("mem");
    tcase_add_test(mem, mem_zero_sizes_give_pointers_and_zeroes);
    tcase_add_test(mem, mem_strings_are_copied);
    tcase_add_test(mem, mem_take_ptr_leaves_null);
    tcase_add_test(mem, mem_try_alloc_refuses_what_cannot_be);
    tcase_add_test_raise_signal(mem, mem_overflowing_product_aborts, SIGABRT);
    suite_add_tcase(s, mem);
    TCase *buf = tcase_create("buf");
    tcase_add_test(buf, buf_grows_and_stays_terminated);
    tcase_add_test(buf, buf_printf_longer_than_any_guess);
    tcase_add_test(buf, buf_consume_drops_the_front);
    tcase_add_test(buf, buf_take_of_empty_is_an_empty_string);
    tcase_add_test_raise_signal(buf, buf_impossible_reserve_aborts, SIGABRT);
    suite_add_tcase(s, buf);
    TCase *list = tcase_create("list");
    tcase_add_test(list, list_keeps_order_and_survives_removal);
    suite_add_tcase(s, list);
    return s;
}
