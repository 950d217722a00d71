/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the beginning of RFB from a stranger, and how guesses are counted. The first byte chooses the kind of security,
 * whether nobody is let in at the moment, and how the bytes are cut; the rest is what the stranger sends. Nobody is let in whose
 * proof was not judged good, unless nothing has to be proved; nothing is judged before TLS where TLS was agreed; the bytes
 * say the same however they are cut.
 */
#include "daemon/screen/guard.h"
#include "daemon/screen/rfb.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

const char fuzz_name[] = "fuzz_rfb";
static uint64_t n_in, n_out, n_judged, n_secured;

void fuzz_setup(void)
{
}

void fuzz_finish(void)
{
    printf("# %llu let in, %llu refused, %llu judged, %llu by TLS\n", (unsigned long long)n_in,
           (unsigned long long)n_out, (unsigned long long)n_judged,
           (unsigned long long)n_secured);
}

/* What happened to one stranger. */
struct story {
    enum rfb_next end;
    bool secured, judged;
    size_t taken;
    struct buf said;
};

static void tell(struct story *s, uint8_t first, const uint8_t *p, size_t size, size_t piece)
{
    static const uint8_t challenge[RFB_CHALLENGE] = "0123456789abcde";
    struct rfb r;
    size_t have = 0, used;

    rfb_begin(&r, first % 5, first & 0x10 ? "not now" : NULL, challenge, &s->said);
    s->end = RFB_MORE;
    while (s->end == RFB_MORE || s->end == RFB_SECURE || s->end == RFB_JUDGE) {
        if (s->end == RFB_SECURE) {
            s->secured = true;
            s->end = rfb_secured(&r, &s->said);
            continue;
        }
        if (s->end == RFB_JUDGE) {
            if (s->judged || (r.security > RFB_PASSWORD && !s->secured)) {
                FUZZ_FAIL("judged twice, or before TLS");
            }
            s->judged = true;
            bool good = first & 0x20;
            s->end = rfb_verdict(&r, good ? NULL : "no", &s->said);
            if ((s->end == RFB_IN) != good) {
                FUZZ_FAIL("the verdict was not followed");
            }
            continue;
        }
        s->end = rfb_feed(&r, p + s->taken, have, &used, &s->said);
        if (used > have || (s->end == RFB_MORE && !used && have >= RFB_INPUT_MAX)) {
            FUZZ_FAIL("%zu bytes taken of %zu", used, have);
        }
        s->taken += used;
        have -= used;
        if (s->end == RFB_MORE && !used) {
            if (s->taken + have == size) {
                return; /* it waits */
            }
            size_t more = size - s->taken - have;
            have += more < piece ? more : piece;
        }
    }
}

static void check(uint8_t first, const struct story *s)
{
    if (s->end == RFB_IN && (first & 0x10 || (first % 5 != RFB_NONE && first % 5 != RFB_TLS &&
                                              !(s->judged && first & 0x20)))) {
        FUZZ_FAIL("let in by security %d", first % 5);
    }
    if (s->end == RFB_IN && first % 5 >= RFB_TLS && !s->secured) {
        FUZZ_FAIL("let in without TLS");
    }
    n_in += s->end == RFB_IN;
    n_out += s->end == RFB_OUT;
    n_judged += s->judged;
    n_secured += s->secured;
}

/* Whoever is wrong often waits; whoever was never wrong does not. */
static void guess(const uint8_t *p, size_t size)
{
    struct guard g = { 0 };
    char host[8];
    unsigned wrong = 0;
    int64_t now = 0;

    for (size_t i = 0; i < size; i++) {
        snprintf(host, sizeof(host), "h%u", p[i] % 8u);
        now += (int64_t)(p[i] >> 5) * 1000000000;
        if (p[i] & 8) {
            guard_right(&g, host);
            wrong = p[i] % 8u == 0 ? 0 : wrong;
        } else {
            guard_wrong(&g, host, now);
            wrong += p[i] % 8u == 0;
            if (p[i] % 8u == 0 && guard_open(&g, host, now) != (wrong < GUARD_FREE)) {
                FUZZ_FAIL("%u wrong guesses", wrong);
            }
        }
        if (!guard_open(&g, "never", now) ||
            !guard_open(&g, host, now + (GUARD_LONGEST_S + 1) * INT64_C(1000000000))) {
            FUZZ_FAIL("an address waits for ever");
        }
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return;
    }
    struct story whole = { .said = BUF_INIT }, cut = { .said = BUF_INIT };
    if (data[0] & 0x80) {
        guess(data + 1, size - 1);
        return;
    }
    tell(&whole, data[0], data + 1, size - 1, RFB_INPUT_MAX);
    tell(&cut, data[0], data + 1, size - 1, data[0] & 0x40 ? 1 : 7);
    check(data[0], &whole);
    if (whole.end != cut.end || whole.taken != cut.taken || whole.said.len != cut.said.len ||
        (whole.said.len && memcmp(whole.said.data, cut.said.data, cut.said.len) != 0)) {
        FUZZ_FAIL("it ends otherwise when it is cut");
    }
    buf_done(&whole.said);
    buf_done(&cut.said);
}
