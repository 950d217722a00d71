/* SPDX-License-Identifier: Apache-2.0 */
/* See rfb.h. Owns nothing. */
#include "daemon/screen/rfb.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

enum { TYPE_NONE = 1, TYPE_PASSWORD = 2, TYPE_VENCRYPT = 19 };
enum { X509_NONE = 260, X509_VNC = 261, X509_PLAIN = 262 };
enum { S_VERSION, S_TYPE, S_VENCRYPT, S_SUBTYPE, S_TLS, S_ANSWER, S_PLAIN, S_JUDGED, S_OVER };

static const struct {
    uint8_t type;
    uint16_t sub;
} kinds[] = {
    [RFB_NONE] = { TYPE_NONE, 0 },
    [RFB_PASSWORD] = { TYPE_PASSWORD, 0 },
    [RFB_TLS] = { TYPE_VENCRYPT, X509_NONE },
    [RFB_TLS_PASSWORD] = { TYPE_VENCRYPT, X509_VNC },
    [RFB_TLS_USER] = { TYPE_VENCRYPT, X509_PLAIN },
};

static void put32(struct buf *out, uint32_t v)
{
    const uint8_t bytes[] = { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8),
                              (uint8_t)v };

    buf_add(out, bytes, sizeof(bytes));
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static enum rfb_next out_with(struct rfb *r, const char *why)
{
    r->state = S_OVER;
    r->why = why;
    return RFB_OUT;
}

static void say_reason(struct buf *out, const char *text)
{
    put32(out, (uint32_t)strlen(text));
    buf_add_str(out, text);
}

void rfb_begin(struct rfb *r, enum rfb_security security, const char *refuse,
               const uint8_t challenge[RFB_CHALLENGE], struct buf *out)
{
    memset(r, 0, sizeof(*r));
    r->security = security;
    r->refuse = refuse;
    r->state = S_VERSION;
    memcpy(r->challenge, challenge, RFB_CHALLENGE);
    buf_add_str(out, "RFB 003.008\n");
}

static enum rfb_next let_in(struct rfb *r)
{
    r->state = S_OVER;
    return RFB_IN;
}

static enum rfb_next ask_answer(struct rfb *r, struct buf *out)
{
    buf_add(out, r->challenge, RFB_CHALLENGE);
    r->state = S_ANSWER;
    return RFB_MORE;
}

/* A type is agreed that asks for nothing. Versions before 3.8 say nothing about it. */
static enum rfb_next ask_nothing(struct rfb *r, struct buf *out)
{
    if (r->minor >= 8) {
        put32(out, 0);
    }
    return let_in(r);
}

/* --- states: each is called with at least as many bytes as its row says ----------------------- */

static bool is_version(const uint8_t *p)
{
    for (unsigned i = 0; i < 12; i++) {
        bool digit = (i >= 4 && i < 7) || (i >= 8 && i < 11);

        if (digit ? p[i] < '0' || p[i] > '9' : p[i] != "RFB 003.008\n"[i]) {
            return false;
        }
    }
    return true;
}

static enum rfb_next on_version(struct rfb *r, const uint8_t *p, struct buf *out)
{
    unsigned major, minor;

    if (!is_version(p)) {
        return out_with(r, "it does not speak RFB");
    }
    major = (unsigned)((p[4] - '0') * 100 + (p[5] - '0') * 10 + p[6] - '0');
    minor = (unsigned)((p[8] - '0') * 100 + (p[9] - '0') * 10 + p[10] - '0');
    if (major < 3) {
        return out_with(r, "it speaks a version of RFB before 3.3");
    }
    r->minor = major > 3 || minor >= 8 ? 8 : minor == 7 ? 7 : 3;
    if (r->refuse || (r->minor == 3 && kinds[r->security].type == TYPE_VENCRYPT)) {
        const char *why = r->refuse ? r->refuse : "TLS needs RFB 3.7";

        if (r->minor == 3) {
            put32(out, 0);
        } else {
            buf_add_char(out, 0);
        }
        say_reason(out, why);
        return out_with(r, why);
    }
    if (r->minor == 3) { /* the server decides */
        put32(out, kinds[r->security].type);
        return r->security == RFB_NONE ? let_in(r) : ask_answer(r, out);
    }
    buf_add_char(out, 1);
    buf_add_char(out, (char)kinds[r->security].type);
    r->state = S_TYPE;
    return RFB_MORE;
}

static enum rfb_next on_type(struct rfb *r, const uint8_t *p, struct buf *out)
{
    if (p[0] != kinds[r->security].type) {
        return out_with(r, "it asks for a kind of security that was not offered");
    }
    if (p[0] == TYPE_NONE) {
        return ask_nothing(r, out);
    }
    if (p[0] == TYPE_PASSWORD) {
        return ask_answer(r, out);
    }
    buf_add(out, "\0\2", 2);
    r->state = S_VENCRYPT;
    return RFB_MORE;
}

static enum rfb_next on_vencrypt(struct rfb *r, const uint8_t *p, struct buf *out)
{
    if (p[0] != 0 || p[1] != 2) {
        buf_add_char(out, 1);
        return out_with(r, "it speaks another version of VeNCrypt than 0.2");
    }
    buf_add(out, "\0\1", 2); /* good, and one type follows */
    put32(out, kinds[r->security].sub);
    r->state = S_SUBTYPE;
    return RFB_MORE;
}

static enum rfb_next on_subtype(struct rfb *r, const uint8_t *p, struct buf *out)
{
    if (get32(p) != kinds[r->security].sub) {
        buf_add_char(out, 0);
        return out_with(r, "it asks for a type of VeNCrypt that was not offered");
    }
    buf_add_char(out, 1);
    r->state = S_TLS;
    return RFB_SECURE;
}

static enum rfb_next on_answer(struct rfb *r, const uint8_t *p, struct buf *out)
{
    (void)out;
    memcpy(r->answer, p, RFB_CHALLENGE);
    r->state = S_JUDGED;
    return RFB_JUDGE;
}

enum rfb_next rfb_secured(struct rfb *r, struct buf *out)
{
    switch (r->security) {
    case RFB_TLS:
        return ask_nothing(r, out);
    case RFB_TLS_PASSWORD:
        return ask_answer(r, out);
    default:
        r->state = S_PLAIN;
        return RFB_MORE;
    }
}

/* Two lengths, then two texts of so many bytes. */
static enum rfb_next on_plain(struct rfb *r, const uint8_t *p, size_t n, size_t *used)
{
    uint32_t n_user, n_password;

    *used = 0;
    if (n < 8) {
        return RFB_MORE;
    }
    n_user = get32(p);
    n_password = get32(p + 4);
    if (n_user > RFB_USER_MAX || n_password > RFB_PASSWORD_MAX) {
        return out_with(r, "its user name or password is too long");
    }
    if (n < 8 + n_user + n_password) {
        return RFB_MORE;
    }
    memcpy(r->user, p + 8, n_user);
    memcpy(r->password, p + 8 + n_user, n_password);
    if (strlen(r->user) != n_user || strlen(r->password) != n_password) {
        return out_with(r, "there is a zero in its user name or password");
    }
    *used = 8 + n_user + n_password;
    r->state = S_JUDGED;
    return RFB_JUDGE;
}

enum rfb_next rfb_feed(struct rfb *r, const uint8_t *p, size_t n, size_t *used, struct buf *out)
{
    static const struct {
        size_t need;
        enum rfb_next (*fn)(struct rfb *r, const uint8_t *p, struct buf *out);
    } states[] = {
        [S_VERSION] = { 12, on_version },          [S_TYPE] = { 1, on_type },
        [S_VENCRYPT] = { 2, on_vencrypt },         [S_SUBTYPE] = { 4, on_subtype },
        [S_ANSWER] = { RFB_CHALLENGE, on_answer },
    };

    *used = 0;
    if (r->state == S_PLAIN) {
        return on_plain(r, p, n, used);
    }
    if ((size_t)r->state >= ARRAY_LEN(states) || !states[r->state].fn) {
        return out_with(r, "it speaks before it is asked");
    }
    if (n < states[r->state].need) {
        return RFB_MORE;
    }
    *used = states[r->state].need;
    return states[r->state].fn(r, p, out);
}

enum rfb_next rfb_verdict(struct rfb *r, const char *why, struct buf *out)
{
    put32(out, why ? 1 : 0);
    if (!why) {
        return let_in(r);
    }
    if (r->minor >= 8) {
        say_reason(out, why);
    }
    return out_with(r, why);
}

void rfb_forget(struct rfb *r)
{
    OPENSSL_cleanse(r->answer, sizeof(r->answer));
    OPENSSL_cleanse(r->password, sizeof(r->password));
}

/* --- DES -------------------------------------------------------------------------------------------- */

static uint8_t mirrored(uint8_t v)
{
    uint8_t out = 0;

    for (int i = 0; i < 8; i++) {
        out = (uint8_t)(out | (v >> i & 1) << (7 - i));
    }
    return out;
}

/* DES alone is in openssl's legacy provider, which is not always there. Triple DES with one key three times is the same function. */
bool rfb_answer(const char *password, const uint8_t challenge[RFB_CHALLENGE],
                uint8_t out[RFB_CHALLENGE])
{
    uint8_t key[24] = { 0 };
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0;
    bool ok;

    for (unsigned i = 0; i < 8 && password[i]; i++) {
        key[i] = key[8 + i] = key[16 + i] = mirrored((uint8_t)password[i]);
    }
    ok = ctx && EVP_EncryptInit_ex(ctx, EVP_des_ede3_ecb(), NULL, key, NULL) == 1 &&
         EVP_CIPHER_CTX_set_padding(ctx, 0) == 1 &&
         EVP_EncryptUpdate(ctx, out, &n, challenge, RFB_CHALLENGE) == 1 && n == RFB_CHALLENGE;
    EVP_CIPHER_CTX_free(ctx);
    ERR_clear_error();
    OPENSSL_cleanse(key, sizeof(key));
    return ok;
}
