/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads of HTTP/1.1 requests (RFC 9112), as far as the web console needs them: GET, and POST without a body. Strict: what a
 * browser does not send is refused, so that nothing is read in two ways. Pure functions, any thread.
 */
#ifndef VMD_DAEMON_WEB_HTTP_H
#define VMD_DAEMON_WEB_HTTP_H

#include "engine/base/buf.h"

#include <stdbool.h>
#include <stddef.h>

#define HTTP_HEAD_MAX 8192
#define HTTP_FIELDS_MAX 64
#define HTTP_COOKIE "__Host-vmd" /* the browser itself ties it to this host and to TLS */

struct http_request {
    bool post;
    char path[256], query[256]; /* the target; letters, digits and -._~/=& alone */
    char host[264], origin[280];
    char session[33]; /* of the cookie; "": none */
    char bearer[128]; /* Authorization: Bearer */
    char key[25];     /* Sec-WebSocket-Key */
    bool websocket;   /* asks for a websocket of version 13, with a key */
    bool close;       /* Connection: close */
};

/* Reads a head from the front of `text`. Bytes of the head; 0 while its end is not there; else the status to refuse it with,
 * negative (-400 for a head that is none), and the connection is of no use any more. */
int http_parse(const char *text, size_t n, struct http_request *r);
/* "Not Found" of 404. */
const char *http_status_text(int status);
/* Adds a whole answer. `fields`: further header lines, each with its end of line; NULL: none. */
void http_answer(struct buf *to, int status, const char *type, const char *fields,
                 const void *body, size_t n, bool close);

#endif
