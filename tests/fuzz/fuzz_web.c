/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a browser sends to the web console. The first byte: odd, a request; even, frames of a websocket, which must say
 * the same in one piece as byte by byte, with no more than came in.
 */
#include "daemon/web/http.h"
#include "daemon/web/websocket.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

const char fuzz_name[] = "fuzz_web";
static uint64_t n_requests, n_refused, n_payload, n_ended;

void fuzz_setup(void)
{
}

void fuzz_finish(void)
{
    printf("# %llu requests were read, %llu refused; %llu bytes of payload, %llu websockets "
           "ended\n",
           (unsigned long long)n_requests, (unsigned long long)n_refused,
           (unsigned long long)n_payload, (unsigned long long)n_ended);
}

static void try_request(const char *text, size_t size)
{
    struct http_request r;
    AUTO_BUF out = BUF_INIT;
    int n = http_parse(text, size, &r);

    if (n > (int)size || (n > 0 && memcmp(text + n - 4, "\r\n\r\n", 4) != 0)) {
        FUZZ_FAIL("a head of %d bytes in %zu", n, size);
    }
    if (n > 0) {
        n_requests++;
        if (r.path[0] != '/' || !r.host[0] || (r.websocket && strlen(r.key) != 24) ||
            (r.websocket && r.post)) {
            FUZZ_FAIL("a request that is none was read: '%s'", r.path);
        }
    } else if (n < 0) {
        n_refused++;
        if (strcmp(http_status_text(-n), "Error") == 0) {
            FUZZ_FAIL("status %d has no text", -n);
        }
        http_answer(&out, -n, "text/plain", NULL, "", 0, true);
    }
}

static void try_frames(const uint8_t *data, size_t size)
{
    struct ws_in whole = { 0 }, parts = { 0 };
    AUTO_BUF payload = BUF_INIT;
    AUTO_BUF reply = BUF_INIT;
    AUTO_BUF payload2 = BUF_INIT;
    AUTO_BUF reply2 = BUF_INIT;
    int rc = ws_feed(&whole, data, size, &payload, &reply), rc2 = 0;

    for (size_t i = 0; i < size && rc2 == 0; i++) {
        rc2 = ws_feed(&parts, data + i, 1, &payload2, &reply2);
    }
    if (rc != rc2 || payload.len != payload2.len || reply.len != reply2.len ||
        (payload.len && memcmp(payload.data, payload2.data, payload.len) != 0) ||
        (reply.len && memcmp(reply.data, reply2.data, reply.len) != 0)) {
        FUZZ_FAIL("in one piece %d, %zu and %zu bytes, in parts %d, %zu and %zu", rc,
                  payload.len, reply.len, rc2, payload2.len, reply2.len);
    }
    if (payload.len > size || reply.len > size + 4 || (rc != 0) != whole.closed) {
        FUZZ_FAIL("%zu bytes and %zu of answers out of %zu", payload.len, reply.len, size);
    }
    n_payload += payload.len;
    n_ended += rc != 0;
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size && data[0] & 1) {
        try_request((const char *)data + 1, size - 1);
    } else if (size) {
        try_frames(data + 1, size - 1);
    }
}
