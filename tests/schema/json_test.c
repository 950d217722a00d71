/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded parser: every bound, every refusal, and random texts. One thread. */
#include "api-schema/json/json.h"
#include "engine/base/buf.h"
#include "tests/lib/testing.h"

#include <unistd.h>

static struct err err_s;

static int parse(const char *text, size_t len)
{
    AUTO_JSON o = NULL;

    err_clear(&err_s);
    return api_json_parse(text, len, &o, &err_s);
}

static void accept(const char *text)
{
    ck_assert_msg(parse(text, strlen(text)) == 0, "'%.60s' was refused: %s", text, err_s.msg);
}

static void refuse(const char *text, const char *message_part)
{
    ck_assert_msg(parse(text, strlen(text)) < 0, "'%.60s' was accepted", text);
    ck_assert_msg(strstr(err_s.msg, message_part) != NULL, "'%.60s': '%s' does not say '%s'",
                  text, err_s.msg, message_part);
}

START_TEST(json_accepts_what_rfc8259_allows)
{
    static const char *const good[] = {
        "{}",
        "[]",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "17",
        "-1.5e+10",
        "1E2",
        "\"\"",
        " [ 1 , 2 ] \n",
        "{\"a\":{\"b\":[null,true,\"x\"]}}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\"",
        "\"\\ud83d\\ude00\"",
        "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "{\"a\":1,\"b\":{\"a\":1}}",
        "[{\"a\":1},{\"a\":2}]",
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        accept(good[i]);
    }
}
END_TEST

START_TEST(json_refuses_bad_grammar)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "[",
        "}",
        "{]",
        "[}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "[1 2]",
        "{1:2}",
        "tru",
        "TRUE",
        "nul",
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "0x10",
        "'a'",
        "{'a':1}",
        "\"abc",
        "\"a\\",
        "\"\\x41\"",
        "\"\\u12\"",
        "// c\n1",
        "/* c */ 1",
        "1 1",
        "{} {}",
        "[]x",
        "\"\\u00zz\"",
        "{\"a\":1 \"b\":2}",
        "\xef\xbb\xbf{}",
        "1;",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse(bad[i], "JSON");
    }
}
END_TEST

START_TEST(json_refuses_text_that_is_not_utf8)
{
    static const char *const bad[] = {
        "\"\xff\"",
        "\"\x80\"",
        "\"\xc3\"",
        "\"\xc0\xaf\"",
        "\"\xe0\x80\xaf\"",
        "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xf8\x88\x80\x80\x80\"",
        "\"\xe2\x82\"",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse(bad[i], "not UTF-8");
    }
    refuse("\"\\ud800\"", "surrogate");
    refuse("\"\\udc00\"", "surrogate");
    refuse("\"\\ud83d\\u0041\"", "surrogate");
    refuse("\"a\\u0000b\"", "\\u0000");
    refuse("\"a\nb\"", "control character");
    ck_assert_int_lt(parse("\"a\0b\"", 5), 0);
    ck_assert_int_lt(parse("[1]\0", 4), 0);
}
END_TEST

START_TEST(json_refuses_numbers_that_would_be_clamped)
{
    refuse("18446744073709551616", "beyond 64 bits");
    refuse("-9223372036854775809", "beyond 64 bits");
    refuse("123456789012345678901234567890", "beyond 64 bits");
    refuse("1e999", "too large");
    refuse("[-1e400]", "too large");
    refuse("1111111111111111111111111111111111111111111111111111111111111111111111",
           "64 characters");
}
END_TEST

START_TEST(json_refuses_a_member_that_stands_twice)
{
    refuse("{\"a\":1,\"a\":2}", "\"a\"");
    refuse("{\"x\":{\"a\":1,\"b\":2,\"a\":3}}", "\"a\"");
    refuse("[{\"a\":1},{\"a\":1,\"\\u0061\":2}]", "twice");
    refuse("{\"a\":[{\"k\":1,\"k\":1}]}", "\"k\"");
    refuse("{\"\":1,\"\":2}", "twice");
}
END_TEST

START_TEST(json_bounds_the_depth)
{
    AUTO_BUF b = BUF_INIT;

    for (int i = 0; i < API_JSON_MAX_DEPTH; i++) {
        buf_add_char(&b, '[');
    }
    for (int i = 0; i < API_JSON_MAX_DEPTH; i++) {
        buf_add_char(&b, ']');
    }
    accept(b.data);
    buf_done(&b);
    for (int i = 0; i <= API_JSON_MAX_DEPTH; i++) {
        buf_add_str(&b, "{\"a\":");
    }
    refuse(b.data, "deeper than 32");
    buf_done(&b);
    for (int i = 0; i < 500000; i++) {
        buf_add_char(&b, '[');
    }
    refuse(b.data, "deeper than 32");
}
END_TEST

START_TEST(json_bounds_the_number_of_values)
{
    AUTO_BUF b = BUF_INIT;

    buf_add_char(&b, '[');
    for (int i = 0; i < 65000; i++) {
        buf_add_str(&b, "{},");
    }
    buf_add_str(&b, "[]]");
    accept(b.data);
    b.data[--b.len] = 0;
    for (int i = 0; i < 1000; i++) {
        buf_add_str(&b, ",\"\"");
    }
    buf_add_char(&b, ']');
    refuse(b.data, "more than 65552 values");
}
END_TEST

START_TEST(json_bounds_the_size)
{
    AUTO_BUF b = BUF_INIT;

    buf_add_char(&b, '"');
    while (b.len < API_JSON_MAX_SIZE - 1) {
        buf_add_char(&b, 'x');
    }
    buf_add_char(&b, '"');
    ck_assert_int_eq(parse(b.data, b.len), 0);
    buf_add_char(&b, ' ');
    ck_assert_int_eq(parse(b.data, b.len), -EMSGSIZE);
}
END_TEST

START_TEST(json_every_truncation_is_refused)
{
    static const char text[] =
        "{\"jsonrpc\":\"2.0\",\"id\":12,\"method\":\"vm.set\",\"params\":{\"vm\":"
        "\"d\\u00e4\\ud83d\\ude00\",\"set\":{\"x\":[1,-2.5e3,true,null]}}}";

    accept(text);
    for (size_t n = 0; n + 1 < sizeof(text) - 1; n++) {
        ck_assert_msg(parse(text, n) < 0, "accepted %zu bytes", n);
    }
}
END_TEST

/* What is accepted must survive being written and read again; nothing may crash. */
START_TEST(json_random_texts_are_refused_or_round_trip)
{
    static const char *const pieces[] = {
        "{",  "}",        "[",    "]",    ":",       ",",   "\"a\"",       "\"b\"",
        "1",  "-2",       "3.5",  "true", "null",    " ",   "\"\\u0041\"", "\"",
        "\\", "\xc3\xa4", "\xff", "e",    "{\"k\":", "[1,", "\n",          "0",
    };
    uint64_t state = test_seed();

    for (int round = 0; round < 20000; round++) {
        AUTO_BUF b = BUF_INIT;
        AUTO_JSON o = NULL;
        AUTO_JSON again = NULL;
        struct err e = ERR_INIT;
        unsigned n = 1 + test_random(&state) % 12;

        for (unsigned i = 0; i < n; i++) {
            buf_add_str(&b, pieces[test_random(&state) % (sizeof(pieces) / sizeof(pieces[0]))]);
        }
        if (api_json_parse(b.data, b.len, &o, &e) < 0) {
            ck_assert_int_ne(e.msg[0], 0);
            continue;
        }
        const char *text = api_json_text(o);
        ck_assert_msg(api_json_parse(text, strlen(text), &again, &e) == 0, "%s: %s", text,
                      e.msg);
        ck_assert(json_object_equal(o, again));
    }
}
END_TEST

START_TEST(json_file_errors_name_the_file)
{
    char path[] = "/tmp/vmd-json-test-XXXXXX";
    int fd = mkstemp(path);
    AUTO_JSON o = NULL;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, "{\"a\":", 5), 5);
    close(fd);
    ck_assert_int_lt(api_json_file(path, &o, &err_s), 0);
    ck_assert_ptr_nonnull(strstr(err_s.msg, path));
    unlink(path);
    ck_assert_int_lt(api_json_file(path, &o, &err_s), 0);
    ck_assert_ptr_nonnull(strstr(err_s.msg, path));
}
END_TEST

static Suite *suite_json(void)
{
    Suite *s = suite_create("json");
    TCase *t = tcase_create("json");

    tcase_add_test(t, json_accepts_what_rfc8259_allows);
    tcase_add_test(t, json_refuses_bad_grammar);
    tcase_add_test(t, json_refuses_text_that_is_not_utf8);
    tcase_add_test(t, json_refuses_numbers_that_would_be_clamped);
    tcase_add_test(t, json_refuses_a_member_that_stands_twice);
    tcase_add_test(t, json_bounds_the_depth);
    tcase_add_test(t, json_bounds_the_number_of_values);
    tcase_add_test(t, json_bounds_the_size);
    tcase_add_test(t, json_every_truncation_is_refused);
    tcase_add_test(t, json_random_texts_are_refused_or_round_trip);
    tcase_add_test(t, json_file_errors_name_the_file);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_json, NULL);
}
