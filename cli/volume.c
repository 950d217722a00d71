/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes to and from storage pools, in pieces. One thread.
 */
#include "cli/cli.h"

#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 393216 };

static struct json_object *about(struct cli_input *in, int64_t offset)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "pool", cli_own(in, "POOL"));
    api_json_set_str(o, "volume", cli_own(in, "VOLUME"));
    if (offset >= 0) {
        api_json_set_int(o, "offset", offset);
    }
    return o;
}

static void progress(struct cli *c, const char *what, int64_t at, int64_t total, bool last)
{
    if (isatty(2) && !c->quiet && !c->json) {
        fprintf(stderr, "\r%s %3d%%%s", what, total ? (int)(100 * at / total) : 100,
                last ? "\n" : "");
    }
}

static int send_file(struct cli *c, struct cli_input *in, int fd, int64_t total)
{
    AUTO_FREE unsigned char *piece = xalloc(PIECE);
    AUTO_FREE char *text = xalloc(PIECE / 3 * 4 + 8);
    const char *name = cli_own(in, "VOLUME");
    int rc = CLI_OK;

    for (int64_t at = 0; rc == CLI_OK;) {
        struct json_object *params = about(in, at);
        size_t want = total - at < PIECE ? (size_t)(total - at) : PIECE;
        ssize_t n = pread(fd, piece, want, at);
        bool last = at + n == total;

        if (n != (ssize_t)want) {
            json_object_put(params);
            return cli_fail(c, CLI_FAILED, NULL, "%s: the file changed while it was sent",
                            name);
        }
        EVP_EncodeBlock((unsigned char *)text, piece, (int)n);
        api_json_set_str(params, "data", n ? text : "");
        api_json_set_bool(params, "last", last);
        rc = cli_call(c, "volume.write", params, NULL);
        at += n;
        progress(c, name, at, total, last);
        if (last) {
            break;
        }
    }
    return rc;
}

int cli_verb_volume_upload(struct cli *c, struct cli_input *in)
{
    const char *path = cli_own(in, "FILE");
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    AUTO_JSON volume = NULL;
    struct stat st;
    int rc = cli_connect(c);

    if (rc != CLI_OK) {
        return rc;
    }
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return cli_fail(c, CLI_FAILED, NULL, "'%s': %s", path,
                        fd < 0 ? strerror(errno) : "not a regular file");
    }
    rc = send_file(c, in, fd, st.st_size);
    rc = rc == CLI_OK ? cli_call(c, "volume.get", about(in, -1), &volume) : rc;
    if (rc == CLI_OK && c->json) {
        cli_print_json(volume);
    } else if (rc == CLI_OK && !c->quiet) {
        printf("%s: uploaded\n", cli_own(in, "VOLUME"));
    }
    return rc;
}

/* Base64 of a reply into the file; bytes, or -1 after a message. */
static int take_piece(struct cli *c, struct json_object *result, int fd, int64_t at)
{
    const char *text = api_json_get_str(result, "data");
    size_t n = text ? strlen(text) : 0;
    AUTO_FREE unsigned char *data = xalloc(n / 4 * 3 + 4);
    int len = n % 4 == 0
                  ? EVP_DecodeBlock(data, (const unsigned char *)(text ? text : ""), (int)n)
                  : -1;

    len -= len > 0 && n > 0 && text[n - 1] == '=';
    len -= len > 0 && n > 1 && text[n - 2] == '=';
    if (len < 0) {
        cli_fail(c, CLI_FAILED, NULL, "the daemon sent what is no base64");
    } else if (len > 0 && pwrite(fd, data, (size_t)len, at) != len) {
        cli_fail(c, CLI_FAILED, NULL, "cannot write: %s", strerror(errno));
        return -1;
    }
    return len;
}

int cli_verb_volume_download(struct cli *c, struct cli_input *in)
{
    const char *to = cli_own(in, "FILE");
    AUTO_FREE char *part = xasprintf("%s.part", to);
    int rc = cli_connect(c);

    if (rc != CLI_OK) {
        return rc;
    }
    AUTO_FD fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "'%s': %s", part, strerror(errno));
    }
    for (int64_t at = 0, total = 1; at < total;) {
        AUTO_JSON result = NULL;
        rc = cli_call(c, "volume.read", about(in, at), &result);
        int n = rc == CLI_OK ? take_piece(c, result, fd, at) : 0;
        if (rc != CLI_OK || n < 0) {
            return rc != CLI_OK ? rc : CLI_FAILED;
        }
        at += n;
        total = n ? api_json_get_int(result, "size", 0) : at;
        progress(c, cli_own(in, "VOLUME"), at, total, at >= total);
    }
    if (fsync(fd) < 0 || rename(part, to) < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "'%s': %s", to, strerror(errno));
    }
    if (!c->quiet && !c->json) {
        printf("%s\n", to);
    }
    return CLI_OK;
}
