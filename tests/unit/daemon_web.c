/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The web console's requests and frames: what is read from good ones, however they are cut, and what bad ones end with.
 */
#include "daemon/web/files.h"
#include "daemon/web/http.h"
#include "daemon/web/websocket.h"
#include "tests/lib/testing.h"
#include "tests/unit/daemon_suites.h"

#include <errno.h>
#include <string.h>

#define END "\r\n\r\n"

START_TEST(request_with_all_its_fields_is_read)
{
    static const char text[] =
        "GET /stream?ticket=0a HTTP/1.1\r\nhost: vm.example:16516\r\nORIGIN: "
        "https://vm.example:16516\r\n"
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Cookie: a=b; __Host-vmd=0123456789abcdef0123456789abcdef; c\r\n"
        "Authorization: Bearer vmd1.x" END "rest";
    struct http_request r;
    ck_assert_int_eq(http_parse(text, sizeof(text) - 1, &r), (int)sizeof(text) - 1 - 4);
    ck_assert(!r.post && r.websocket && !r.close);
    ck_assert_str_eq(r.path, "/stream");
    ck_assert_str_eq(r.query, "ticket=0a");
    ck_assert_str_eq(r.host, "vm.example:16516");
    ck_assert_str_eq(r.origin, "https://vm.example:16516");
    ck_assert_str_eq(r.session, "0123456789abcdef0123456789abcdef");
    ck_assert_str_eq(r.bearer, "vmd1.x");
    for (size_t n = 0; n < sizeof(text) - 1 - 4; n++) {
        ck_assert_int_eq(http_parse(text, n, &r), 0);
    }
}
END_TEST

START_TEST(bad_request_gets_its_status)
{
    static const struct {
        const char *text;
        int status;
    } bad[] = {
        { "GET / HTTP/1.1" END, -400 },
        { END, -400 },
        { "GET / HTTP/1.1\r\nHost: x\r\nhost: x" END, -400 },
        { "GET / HTTP/1.1\r\nHost : x" END, -400 },
        { "GET / HTTP/1.1\r\n Host: x" END, -400 },
        { "GET x HTTP/1.1\r\nHost: x" END, -400 },
        { "GET /%00 HTTP/1.1\r\nHost: x" END, -400 },
        { "GET / HTTP/1.1\r\nHost: x\ny" END, -400 },
        { "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: short==" END, -400 },
        { "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 8" END, -426 },
        { "GET / HTTP/2.0\r\nHost: x" END, -505 },
        { "DELETE / HTTP/1.1\r\nHost: x" END, -405 },
        { "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 00" END, -413 },
        { "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" END, -413 },
    };
    struct http_request r;
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_msg(http_parse(bad[i].text, strlen(bad[i].text), &r) == bad[i].status,
                      "%s: %d", bad[i].text, http_parse(bad[i].text, strlen(bad[i].text), &r));
    }
    AUTO_BUF many = BUF_INIT;
    buf_add_str(&many, "GET / HTTP/1.1\r\nHost: x\r\n");
    while (many.len < HTTP_HEAD_MAX) {
        ck_assert_int_eq(http_parse(many.data, many.len, &r), 0);
        buf_add_str(&many, "a: b\r\n");
    }
    ck_assert_int_eq(http_parse(many.data, many.len, &r), -431);
}
END_TEST

START_TEST(websocket_answer_is_that_of_the_standard)
{
    char out[WS_ACCEPT_MAX];
    ws_accept("dGhlIHNhbXBsZSBub25jZQ==", out); /* RFC 6455 §1.3 */
    ck_assert_str_eq(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
END_TEST

/* A masked frame of up to 125 bytes. */
static void frame(struct buf *to, unsigned first, const char *text)
{
    static const unsigned char mask[4] = { 0x37, 0xfa, 0x21, 0x3d };
    buf_add_char(to, (char)first);
    buf_add_char(to, (char)(0x80 | strlen(text)));
    buf_add(to, mask, 4);
    for (size_t i = 0; text[i]; i++) {
        buf_add_char(to, (char)((unsigned char)text[i] ^ mask[i & 3]));
    }
}

START_TEST(frames_are_read_however_they_are_cut)
{
    AUTO_BUF in = BUF_INIT;
    frame(&in, WS_TEXT, "hel");
    frame(&in, 0x80 | WS_PING, "p");
    frame(&in, 0x80 | WS_CONTINUATION, "lo");
    frame(&in, 0x80 | WS_BINARY, "");
    frame(&in, 0x80 | WS_CLOSE, "\x03\xe8");
    for (size_t step = 1; step <= in.len; step++) {
        struct ws_in w = { 0 };
        AUTO_BUF payload = BUF_INIT;
        AUTO_BUF reply = BUF_INIT;
        int rc = 0;
        for (size_t at = 0; at < in.len; at += step) {
            ck_assert_int_eq(rc, 0);
            size_t n = in.len - at < step ? in.len - at : step;
            rc = ws_feed(&w, (unsigned char *)in.data + at, n, &payload, &reply);
        }
        ck_assert_int_eq(rc, WS_NORMAL);
        ck_assert(payload.len == 5 && memcmp(payload.data, "hello", 5) == 0);
        ck_assert(reply.len == 7 && memcmp(reply.data, "\x8a\x01p\x88\x02\x03\xe8", 7) == 0);
    }
}
END_TEST

START_TEST(hostile_frame_ends_with_its_code)
{
    static const struct {
        const char head[10];
        size_t n;
        int code;
    } bad[] = {
        { "\x82\x01", 6, 1002 },         /* no mask; it takes a whole head to see */
        { "\xc2\x80", 6, 1002 },         /* a reserved bit */
        { "\x83\x80", 6, 1002 },         /* an opcode of nothing */
        { "\x8b\x80", 6, 1002 },         /* a control frame of nothing */
        { "\x80\x80", 6, 1002 },         /* goes on with no message */
        { "\x09\x80", 6, 1002 },         /* a ping in parts */
        { "\x89\xfe\x00\x7e", 8, 1002 }, /* a long ping */
        { "\x82\xfe\x00\x05", 8, 1002 }, /* a length with zeros before it */
        { "\x82\xff\x00\x00\x00\x00\x00\x10\x00\x01", 14, 1009 }, /* a byte too many */
        { "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 14, 1009 },
    };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct ws_in w = { 0 };
        unsigned char data[14] = { 0 };
        AUTO_BUF payload = BUF_INIT;
        AUTO_BUF reply = BUF_INIT;
        memcpy(data, bad[i].head, sizeof(bad[i].head));
        ck_assert_msg(ws_feed(&w, data, bad[i].n, &payload, &reply) == bad[i].code, "frame %u",
                      i);
        ck_assert_uint_eq(payload.len, 0);
        ck_assert_int_eq(ws_feed(&w, data, bad[i].n, &payload, &reply),
                         0); /* nothing is read any more */
        ck_assert_uint_eq(reply.len, 4);
    }
}
END_TEST

START_TEST(files_stay_in_their_folders)
{
    static const char *const bad[] = { "/etc/passwd",      "/novnc/../../../etc/x.js",
                                       "/novnc//etc/x.js", "/novnc/.x.js",
                                       "/novnc/core/",     "/novnc/",
                                       "/novnc",           "/novnc/core/none.js" };
    const char *type = NULL;
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_BUF body = BUF_INIT;
        ck_assert_msg(web_file("/usr/share", bad[i], &body, &type) == -ENOENT, "%s", bad[i]);
    }
    ck_assert_ptr_null(web_page("/none", &type));
    ck_assert_ptr_nonnull(web_page("/", &type));
}
END_TEST

Suite *suite_web(void)
{
    Suite *s = suite_create("web");
    TCase *t = tcase_create("web");
    tcase_add_test(t, request_with_all_its_fields_is_read);
    tcase_add_test(t, bad_request_gets_its_status);
    tcase_add_test(t, websocket_answer_is_that_of_the_standard);
    tcase_add_test(t, frames_are_read_however_they_are_cut);
    tcase_add_test(t, hostile_frame_ends_with_its_code);
    tcase_add_test(t, files_stay_in_their_folders);
    suite_add_tcase(s, t);
    return s;
}
