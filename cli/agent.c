/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verbs of the guest agent that are more than one call, or whose result is not for people to read as it comes: programs run in a
 * guest, files copied out of it and into it. One thread.
 */
#include "cli/cli.h"

#include "api-schema/json/json.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIECE 196608 /* a multiple of three: pieces of base64 stand for themselves */
#define INPUT_MAX 393216

static struct json_object *base64_text(const void *p, size_t n)
{
    AUTO_BUF text = BUF_INIT;

    base64_add(&text, p, n);
    return json_object_new_string_len(text.data ? text.data : "", (int)text.len);
}

/* "-": the standard input. */
static int open_input(const char *path, int *fd, struct err *e)
{
    *fd = strcmp(path, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                                 : open(path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? err_errno(e, errno, "cannot open '%s'", path) : 0;
}

/* --- programs --- */

static bool print_data(struct json_object *result, const char *member, FILE *to)
{
    const char *text = api_json_get_str(result, member);
    AUTO_BUF bytes = BUF_INIT;

    return !text || (base64_take(&bytes, text) &&
                     fwrite(bytes.data ? bytes.data : "", 1, bytes.len, to) == bytes.len);
}

static int read_input(struct cli *c, struct cli_input *in)
{
    const char *path = cli_own(in, "input");
    AUTO_BUF bytes = BUF_INIT;
    struct err e = ERR_INIT;
    AUTO_FD fd = -1;

    if (!path) {
        return CLI_OK;
    }
    if (open_input(path, &fd, &e) < 0 || fd_slurp(fd, &bytes, INPUT_MAX, path, &e) < 0) {
        return cli_fail(c, CLI_FAILED, "write it to the guest first: 'vmctl agent write'", "%s",
                        e.msg);
    }
    api_json_set(in->params, "input", base64_text(bytes.data, bytes.len));
    return CLI_OK;
}

int cli_verb_agent_exec(struct cli *c, struct cli_input *in)
{
    struct json_object *args = json_object_new_array();
    AUTO_JSON result = NULL;
    int rc;

    api_json_set_str(in->params, "path", in->targets[0]);
    for (size_t i = 1; i < in->n_targets; i++) {
        json_object_array_add(args, json_object_new_string(in->targets[i]));
    }
    api_json_set(in->params, "args", args);
    rc = read_input(c, in);
    rc = rc == CLI_OK ? cli_call(c, "agent.exec", json_object_get(in->params), &result) : rc;
    if (rc != CLI_OK) {
        return rc;
    }
    if (c->json) {
        cli_print_json(result);
        return CLI_OK;
    }
    if (!api_json_get_bool(result, "exited", false)) {
        return cli_fail(c, 7, "'vmctl api agent.exec_status' tells when it has ended",
                        "%s runs on as process %lld of the guest", in->targets[0],
                        (long long)api_json_get_int(result, "pid", 0));
    }
    if (!print_data(result, "output", stdout) || !print_data(result, "errors", stderr)) {
        return cli_fail(c, CLI_FAILED, NULL, "its output came garbled, or cannot be written");
    }
    if (api_json_get_bool(result, "truncated", false)) {
        fprintf(stderr, "vmctl: there was more output than the agent keeps\n");
    }
    return api_json_get(result, "signal")
               ? 128 + (int)(api_json_get_int(result, "signal", 0) & 127)
               : (int)(api_json_get_int(result, "status", 0) & 255);
}

int cli_verb_agent_command(struct cli *c, struct cli_input *in)
{
    const char *text = cli_own(in, "JSON");
    struct json_object *arguments = NULL;
    AUTO_JSON result = NULL;
    struct err e = ERR_INIT;
    int rc;

    api_json_set_str(in->params, "execute", cli_own(in, "COMMAND"));
    if (text && api_json_parse(text, strlen(text), &arguments, &e) < 0) {
        return cli_fail(c, CLI_USAGE, NULL, "arguments: %s", e.msg);
    }
    if (arguments) {
        api_json_set(in->params, "arguments", arguments);
    }
    rc = cli_call(c, "agent.command", json_object_get(in->params), &result);
    if (rc == CLI_OK) {
        cli_print_json(c->json ? result : api_json_get(result, "result"));
    }
    return rc;
}

/* --- files --- */

int cli_verb_agent_read(struct cli *c, struct cli_input *in)
{
    const char *path = cli_own(in, "FILE");
    AUTO_FD fd = path && strcmp(path, "-") != 0
                     ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)
                     : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    struct err e = ERR_INIT;

    if (fd < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "cannot open '%s': %s", path ? path : "stdout",
                        strerror(errno));
    }
    for (int64_t at = 0;;) {
        struct json_object *params = json_object_new_object();
        AUTO_JSON result = NULL;
        AUTO_BUF bytes = BUF_INIT;

        cli_overlay(params, in->params);
        api_json_set_str(params, "path", cli_own(in, "PATH"));
        api_json_set_int(params, "offset", at);
        int rc = cli_call(c, "agent.file_read", params, &result);
        if (rc != CLI_OK) {
            return rc;
        }
        const char *data = api_json_get_str(result, "data");
        if (!data || !base64_take(&bytes, data)) {
            return cli_fail(c, CLI_FAILED, NULL, "the file came garbled");
        }
        if (bytes.len > 0 &&
            fd_write_all(fd, bytes.data, bytes.len, path ? path : "stdout", &e) < 0) {
            return cli_fail(c, CLI_FAILED, NULL, "%s", e.msg);
        }
        at += (int64_t)bytes.len;
        if (bytes.len == 0 || api_json_get_bool(result, "eof", false)) {
            return CLI_OK;
        }
    }
}

/* As much as a piece has room for, unless the file ends. */
static ssize_t fill(int fd, char *piece)
{
    size_t have = 0;

    while (have < PIECE) {
        ssize_t n = read(fd, piece + have, PIECE - have);

        if (n < 0 && errno != EINTR) {
            return -1;
        }
        if (n == 0) {
            break;
        }
        have += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)have;
}

int cli_verb_agent_write(struct cli *c, struct cli_input *in)
{
    AUTO_FREE char *piece = xalloc(PIECE);
    struct err e = ERR_INIT;
    AUTO_FD fd = -1;
    ssize_t n;

    if (open_input(cli_own(in, "FILE"), &fd, &e) < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "%s", e.msg);
    }
    for (bool first = true; (n = fill(fd, piece)) > 0 || (first && n == 0); first = false) {
        struct json_object *params = json_object_new_object();

        cli_overlay(params, in->params);
        api_json_set_str(params, "path", cli_own(in, "PATH"));
        api_json_set_str(params, "mode", first ? "create" : "append");
        api_json_set(params, "data", base64_text(piece, (size_t)n));
        int rc = cli_call(c, "agent.file_write", params, NULL);
        if (rc != CLI_OK) {
            return rc;
        }
        if (n < PIECE) {
            break;
        }
    }
    return n < 0 ? cli_fail(c, CLI_FAILED, NULL, "cannot read '%s': %s", cli_own(in, "FILE"),
                            strerror(errno))
                 : CLI_OK;
}
