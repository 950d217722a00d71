/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of websockets, in and out. No state of its own; see websocket.h. */
#include "daemon/web/websocket.h"

#include "engine/base/mem.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

void ws_frame(struct buf *to, unsigned opcode, const void *data, size_t n)
{
    unsigned char head[10] = { (unsigned char)(0x80 | opcode) };
    size_t len = n < 126 ? 2 : n < 65536 ? 4 : 10;
    head[1] = n < 126 ? (unsigned char)n : n < 65536 ? 126 : 127;
    for (size_t i = 2; i < len; i++) {
        head[i] = (unsigned char)((uint64_t)n >> (8 * (len - 1 - i)));
    }
    buf_add(to, head, len);
    buf_add(to, n ? data : "", n);
}

void ws_farewell(struct buf *to, unsigned code)
{
    unsigned char two[2] = { (unsigned char)(code >> 8), (unsigned char)code };
    ws_frame(to, WS_CLOSE, two, sizeof(two));
}

static int end(struct ws_in *w, struct buf *reply, unsigned code)
{
    w->closed = true;
    ws_farewell(reply, code);
    return (int)code;
}

/* Bytes that the head has in all, as far as it tells by now. */
static unsigned head_size(const struct ws_in *w)
{
    unsigned len = w->n_head < 2 ? 0 : w->head[1] & 0x7f;
    return w->n_head < 2 ? 2 : 6 + (len == 126 ? 2 : len == 127 ? 8 : 0);
}

/* The first two bytes are there. 0, or the code to end with. */
static unsigned judge_kind(struct ws_in *w)
{
    bool fin = w->head[0] & 0x80;
    w->opcode = w->head[0] & 0x0f;
    w->left = w->head[1] & 0x7f;
    if ((w->head[0] & 0x70) || !(w->head[1] & 0x80)) {
        return WS_PROTOCOL_ERROR; /* extensions that were not agreed, or no mask */
    }
    if (w->opcode >= WS_CLOSE) {
        return w->opcode > WS_PONG || !fin || w->left > WS_CONTROL_MAX ? WS_PROTOCOL_ERROR : 0;
    }
    if (w->opcode > WS_BINARY || (w->opcode == WS_CONTINUATION) != w->in_message) {
        return WS_PROTOCOL_ERROR;
    }
    w->in_message = !fin;
    return 0;
}

/* The whole head is there. */
static unsigned judge_length(struct ws_in *w)
{
    unsigned extra = head_size(w) - 6;
    if (extra) {
        w->left = 0;
        for (unsigned i = 0; i < extra; i++) {
            w->left = w->left << 8 | w->head[2 + i];
        }
        if (w->left < (extra == 2 ? 126u : 65536u)) {
            return WS_PROTOCOL_ERROR; /* not the shortest way to say it */
        }
    }
    return w->left > WS_FRAME_MAX ? WS_TOO_BIG : 0;
}

static void take_payload(struct ws_in *w, const unsigned char *data, size_t n,
                         struct buf *payload)
{
    const unsigned char *mask = w->head + head_size(w) - 4;
    unsigned char plain[1024];
    for (size_t at = 0; at < n;) {
        size_t part = n - at < sizeof(plain) ? n - at : sizeof(plain);
        for (size_t i = 0; i < part; i++) {
            plain[i] = data[at + i] ^ mask[(w->mask_at + i) & 3];
        }
        w->mask_at = (unsigned)((w->mask_at + part) & 3);
        if (w->opcode < WS_CLOSE) {
            buf_add(payload, plain, part);
        } else {
            memcpy(w->control + w->n_control, plain, part); /* at most 125 in all */
            w->n_control += (unsigned)part;
        }
        at += part;
    }
    w->left -= n;
}

/* A frame is whole. */
static int frame_end(struct ws_in *w, struct buf *reply)
{
    w->n_head = 0;
    w->in_payload = false;
    if (w->opcode == WS_PING) {
        ws_frame(reply, WS_PONG, w->control, w->n_control);
    } else if (w->opcode == WS_CLOSE) {
        return end(w, reply, w->n_control == 1 ? WS_PROTOCOL_ERROR : WS_NORMAL);
    }
    return 0;
}

int ws_feed(struct ws_in *w, const unsigned char *data, size_t n, struct buf *payload,
            struct buf *reply)
{
    size_t at = 0;
    int rc = 0;
    while (at < n && !w->closed && rc == 0) {
        if (!w->in_payload) {
            w->head[w->n_head++] = data[at++];
            unsigned code = w->n_head == 2 ? judge_kind(w) : 0;
            if (code == 0 && w->n_head > 2 && w->n_head == head_size(w)) {
                code = judge_length(w);
                w->in_payload = code == 0;
                w->mask_at = w->n_control = 0;
            }
            if (code) {
                return end(w, reply, code);
            }
        } else {
            size_t part = n - at < w->left ? n - at : (size_t)w->left;
            take_payload(w, data + at, part, payload);
            at += part;
        }
        if (w->in_payload && w->left == 0) {
            rc = frame_end(w, reply);
        }
    }
    return rc;
}

void ws_accept(const char *key, char out[WS_ACCEPT_MAX])
{
    unsigned char digest[SHA_DIGEST_LENGTH];
    unsigned len = 0;
    AUTO_BUF text = BUF_INIT;
    buf_printf(&text, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    memset(digest, 0, sizeof(digest));
    EVP_Digest(text.data, text.len, digest, &len, EVP_sha1(), NULL);
    EVP_EncodeBlock((unsigned char *)out, digest, sizeof(digest));
}
