/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images to and from the daemon, in pieces. Several pieces are under way at once, so that a long way
 * costs no time. One thread.
 */
#include "cli/cli.h"

#include "api-schema/json/json.h"
#include "api-schema/rpc/client.h"
#include "api-schema/tls/tls.h"
#include "engine/base/fd.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 393216, UNDER_WAY = 8 };

struct transfer {
    struct cli *c;
    const char *what;
    int64_t at, total;
    unsigned open;      /* calls without an answer */
    struct api_error x; /* of the first that failed */
    bool failed;
    int64_t shown_ms;
};

static void progress(struct transfer *t, bool last)
{
    int percent = t->total ? (int)(100 * t->at / t->total) : 100;

    if (!isatty(2) || t->c->quiet || t->c->json) {
        return;
    }
    fprintf(stderr, "\r%s %3d%%%s", t->what, percent, last ? "\n" : "");
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static struct json_object *about(const char *name, const char *project)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "name", name);
    api_json_set_str(o, "project", project ? project : "default");
    return o;
}

static int digest_file(int fd, char hex[65], struct err *e)
{
    AUTO_FREE unsigned char *piece = xalloc(PIECE);
    unsigned char digest[32];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    off_t at = 0;
    ssize_t n;

    EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    while ((n = pread(fd, piece, PIECE, at)) > 0) {
        EVP_DigestUpdate(ctx, piece, (size_t)n);
        at += n;
    }
    EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    tls_hex(digest, sizeof(digest), hex);
    return n < 0 ? err_errno(e, errno, "cannot read the file") : 0;
}

/* --- push --------------------------------------------------------------------------------- */

static void on_written(void *arg, struct json_object *result, const struct api_error *x)
{
    struct transfer *t = arg;

    (void)result;
    t->open--;
    if (x && !t->failed) {
        t->failed = true;
        t->x = *x;
    }
}

static void send_piece(struct transfer *t, int64_t upload, const unsigned char *p, size_t n)
{
    struct json_object *params = json_object_new_object();
    AUTO_FREE char *text = xalloc(n / 3 * 4 + 8);

    EVP_EncodeBlock((unsigned char *)text, p, (int)n);
    api_json_set_int(params, "upload", upload);
    api_json_set_int(params, "offset", t->at);
    api_json_set_str(params, "data", text);
    t->open++;
    t->at += (int64_t)n;
    rpc_client_call(rpc_dial_client(t->c->dial), "image.write", params, 0, on_written, t);
}

/* Until at most `most` are without an answer. */
static void await(struct transfer *t, unsigned most)
{
    while (t->open > most) {
        (void)loop_run_once(rpc_dial_loop(t->c->dial), -1, NULL);
    }
}

static int send_all(struct transfer *t, int fd, int64_t upload, struct err *e)
{
    AUTO_FREE unsigned char *piece = xalloc(PIECE);
    int rc = 0;

    while (t->at < t->total && !t->failed && rc == 0) {
        int64_t left = t->total - t->at;
        size_t want = left < PIECE ? (size_t)left : PIECE;
        ssize_t n = pread(fd, piece, want, t->at);
        if (n != (ssize_t)want) {
            rc = err_set(e, -EIO, "the file changed while it was sent");
            break;
        }
        send_piece(t, upload, piece, want);
        await(t, UNDER_WAY - 1);
        progress(t, false);
    }
    await(t, 0);
    progress(t, true);
    return rc;
}

static int push(struct cli *c, struct cli_input *in, int fd, const char *name,
                const struct stat *st, struct json_object **image)
{
    struct json_object *params = about(name, cli_own(in, "project"));
    AUTO_JSON begun = NULL;
    struct transfer t = { .c = c, .what = name, .total = st->st_size };
    struct err e = ERR_INIT;
    char hex[65];
    int rc;

    api_json_set_int(params, "size", st->st_size);
    api_json_set_bool(params, "restart", cli_own(in, "restart") != NULL);
    rc = cli_call(c, "image.begin", params, &begun);
    if (rc != CLI_OK) {
        return rc;
    }
    t.at = api_json_get_int(begun, "offset", 0);
    if (send_all(&t, fd, api_json_get_int(begun, "upload", 0), &e) < 0 ||
        digest_file(fd, hex, &e) < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "%s: %s", name, e.msg);
    }
    if (t.failed) {
        return cli_error(c, &t.x);
    }
    params = json_object_new_object();
    api_json_set(params, "upload", json_object_get(api_json_get(begun, "upload")));
    api_json_set_str(params, "sha256", hex);
    api_json_set_bool(params, "replace", cli_own(in, "replace") != NULL);
    return cli_call(c, "image.finish", params, image);
}

int cli_verb_image_push(struct cli *c, struct cli_input *in)
{
    const char *path = cli_own(in, "FILE"), *name = cli_own(in, "NAME");
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    AUTO_JSON image = NULL;
    struct stat st;
    int rc = cli_connect(c);

    if (rc != CLI_OK) {
        return rc;
    }
    name = name ? name : base_name(path);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return cli_fail(c, CLI_FAILED, NULL, "'%s': %s", path,
                        fd < 0 ? strerror(errno) : "not a regular file");
    }
    rc = push(c, in, fd, name, &st, &image);
    if (rc == CLI_OK && c->json) {
        cli_print_json(image);
    } else if (rc == CLI_OK) {
        printf("%s\n", api_json_get_str(image, "path") ?: "");
    }
    return rc;
}

/* --- pull --------------------------------------------------------------------------------- */

static int take_piece(struct transfer *t, struct json_object *result, int fd, bool *end,
                      struct err *e)
{
    const char *text = api_json_get_str(result, "data");
    size_t n = text ? strlen(text) : 0;
    AUTO_FREE unsigned char *data = xalloc(n / 4 * 3 + 4);
    int len = n % 4 == 0
                  ? EVP_DecodeBlock(data, (const unsigned char *)(text ? text : ""), (int)n)
                  : -1;

    if (len < 0) {
        return err_set(e, -EPROTO, "the daemon sent what is no base64");
    }
    len -= n > 0 && text[n - 1] == '=';
    len -= n > 1 && text[n - 2] == '=';
    *end = len == 0;
    if (len > 0 && pwrite(fd, data, (size_t)len, t->at) != len) {
        return err_errno(e, errno, "cannot write");
    }
    t->at += len;
    t->total = api_json_get_int(result, "size", t->total);
    return 0;
}

static int pull(struct cli *c, struct cli_input *in, int fd, const char *name)
{
    struct transfer t = { .c = c, .what = name };
    struct stat st;
    struct err e = ERR_INIT;
    bool end = false;

    if (fstat(fd, &st) == 0) {
        t.at = st.st_size;
    }
    while (!end) {
        struct json_object *params = about(name, cli_own(in, "project"));
        AUTO_JSON result = NULL;
        int rc;

        api_json_set_int(params, "offset", t.at);
        rc = cli_call(c, "image.read", params, &result);
        if (rc != CLI_OK) {
            return rc;
        }
        if (take_piece(&t, result, fd, &end, &e) < 0) {
            return cli_fail(c, CLI_FAILED, NULL, "%s: %s", name, e.msg);
        }
        end |= t.at >= t.total;
        progress(&t, end);
    }
    if (t.at != t.total) {
        return cli_fail(c, CLI_FAILED, "pull it anew with --restart",
                        "%s: what an earlier pull left is longer than the image", name);
    }
    return CLI_OK;
}

int cli_verb_image_pull(struct cli *c, struct cli_input *in)
{
    const char *name = cli_own(in, "NAME"), *path = cli_own(in, "FILE");
    AUTO_FREE char *to = xstrdup(path ? path : name);
    AUTO_FREE char *part = xasprintf("%s.part", to);
    AUTO_FD fd = -1;
    int rc = cli_connect(c);

    if (rc != CLI_OK) {
        return rc;
    }
    if (!str_is_name(name)) {
        return cli_fail(c, CLI_USAGE, NULL, "'%s' is no name of an image", name);
    }
    fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC | (cli_own(in, "restart") ? O_TRUNC : 0),
              0666);
    if (fd < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "'%s': %s", part, strerror(errno));
    }
    rc = pull(c, in, fd, name);
    if (rc != CLI_OK) {
        return rc;
    }
    if (fsync(fd) < 0 || rename(part, to) < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "'%s': %s", to, strerror(errno));
    }
    if (!c->quiet && !c->json) {
        printf("%s\n", to);
    }
    return CLI_OK;
}
