/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: arguments of libvirt's remote protocol. The first two bytes choose the procedure whose form the rest has, or has not. What
 * is read must come back the same from writing and reading once more, from all of what was written.
 */
#include "api-schema/json/json.h"
#include "daemon/libvirt/procedures.h"
#include "daemon/libvirt/xdr.h"
#include "engine/base/buf.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

#define FORMS(number, name, fn, args, ret) args, ret,
#define FORM(number, name, method, args) args,

static const char *const forms[] = { LV_PROCEDURES(FORMS, FORM) LV_QEMU_PROCEDURES(FORMS) };

const char fuzz_name[] = "fuzz_libvirt";
static uint64_t n_read, n_refused;

void fuzz_setup(void)
{
}

void fuzz_finish(void)
{
    printf("# %llu messages were read, %llu refused\n", (unsigned long long)n_read,
           (unsigned long long)n_refused);
}

static void put_bytes(struct fuzz_in *in, struct buf *out, size_t n, bool text)
{
    for (size_t i = 0; i < n; i++) {
        buf_add_char(out, text ? (char)(' ' + fuzz_below(in, 95)) : (char)fuzz_8(in));
    }
}

static void put_word(struct buf *out, unsigned small)
{
    buf_add(out, (char[]){ 0, 0, 0, (char)small }, 4);
}

/* A string or bytes, with what fills the last word. */
static void put_string(struct fuzz_in *in, struct buf *out, bool text)
{
    unsigned n = fuzz_below(in, 12);

    put_word(out, n);
    put_bytes(in, out, n, text);
    buf_add(out, "\0\0\0", (4 - n % 4) % 4);
}

static void compose_members(struct fuzz_in *in, const char *at, struct buf *out);

/* A value of the type, of the input's choice. */
static void compose(struct fuzz_in *in, const char *type, struct buf *out)
{
    static const char params[] = "iuhHdbs";
    unsigned n;

    switch (*type) {
    case 'S':
        n = fuzz_below(in, 2);
        put_word(out, n);
        if (n == 0) {
            return;
        }
        /* fall through */
    case 's':
    case 'o':
        put_string(in, out, *type != 'o');
        return;
    case 'T':
        n = fuzz_below(in, 7);
        put_string(in, out, true);
        put_word(out, n + 1);
        compose(in, &params[n], out);
        return;
    case '[':
        n = fuzz_below(in, 3);
        put_word(out, n);
        while (n-- > 0) {
            compose(in, type + 1, out);
        }
        return;
    case '{':
        compose_members(in, type + 1, out);
        return;
    case 'U':
    case 'M':
        put_bytes(in, out, *type == 'U' ? 16 : 128, false);
        return;
    default:
        if (lv_struct(*type)) {
            compose_members(in, lv_struct(*type) + 1, out);
        } else if (*type == 'd') {
            put_word(out, fuzz_below(in, 0x40)); /* no number that is none */
            put_word(out, 0);
        } else {
            put_bytes(in, out, strchr("hH", *type) ? 8 : 4, false);
        }
    }
}

static void compose_members(struct fuzz_in *in, const char *at, struct buf *out)
{
    while (*at && *at != '}') {
        const char *type = strchr(at, ':') + 1;
        compose(in, type, out);
        at = lv_behind(type);
        at += *at == ' ';
    }
}

static void try_message(const char *form, const void *data, size_t n)
{
    struct err e = ERR_INIT;
    AUTO_JSON first = lv_decode(form, data, n, &e);
    AUTO_JSON second = NULL;
    AUTO_BUF out = BUF_INIT;

    if (!first) {
        n_refused++;
        if (!e.msg[0]) {
            FUZZ_FAIL("refused without a word: %s", form);
        }
        return;
    }
    n_read++;
    if (strchr(form, 'M')) {
        return; /* only written */
    }
    if (lv_encode(form, first, &out, &e) < 0) {
        FUZZ_FAIL("cannot be written: %s: %s", form, e.msg);
    }
    second = lv_decode(form, out.data ? out.data : "", out.len, &e);
    if (!second) {
        FUZZ_FAIL("is not read again: %s: %s", form, e.msg);
    }
    if (!json_object_equal(first, second)) {
        FUZZ_FAIL("another came back: %s\n%s\n%s", form, api_json_text(first),
                  api_json_text(second));
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    const size_t n_forms = sizeof(forms) / sizeof(forms[0]);
    AUTO_BUF made = BUF_INIT;
    struct fuzz_in in;
    const char *form;

    if (size < 2) {
        return;
    }
    form = forms[((unsigned)data[0] | (unsigned)data[1] << 8) % n_forms];
    try_message(form, data + 2, size - 2);
    fuzz_in_init(&in, data + 2, size - 2);
    form = forms[fuzz_below(&in, (unsigned)n_forms)];
    compose_members(&in, form, &made);
    if (fuzz_rarely(&in, 4) && made.len) { /* and one that is not quite of it */
        made.data[fuzz_below(&in, (unsigned)made.len)] ^= (char)fuzz_8(&in);
    }
    try_message(form, made.data ? made.data : "", made.len);
}
