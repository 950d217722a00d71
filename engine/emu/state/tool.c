/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-state: looks into a state file (view.h) on behalf of the daemon, which parses none. `vmd-state PID`: a request of JSON on
 * standard input, the files on the descriptors from 3 on, the answer on standard output; a line on standard error and
 * the status 1 when there is none. Ends with the process PID that started it. One thread, which opens nothing and makes nothing: 15 system
 * calls are left to it before the first byte of a file is read. `vmd-state PID --write` has two more: it writes a state anew into its
 * second file, sealed with another key.
 */
#include "engine/emu/state/view.h"

#include "api-schema/json/json.h"
#include "engine/base/base64.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { REQUEST_MAX = 65536, FIRST_FILE = 3, LIMIT_MAX = 4096 };

#ifdef VMD_SANITIZERS
static int confine(bool writes, struct err *e)
{
    (void)writes;
    (void)e;
    return 0; /* they need more system calls */
}
#else
static int confine(bool writes, struct err *e)
{
    static const int calls[] = {
        SCMP_SYS(read),       SCMP_SYS(write),  SCMP_SYS(preadv),    SCMP_SYS(newfstatat),
        SCMP_SYS(fstat),      SCMP_SYS(lseek),  SCMP_SYS(munmap),    SCMP_SYS(madvise),
        SCMP_SYS(brk),        SCMP_SYS(futex),  SCMP_SYS(getrandom), SCMP_SYS(close),
        SCMP_SYS(exit_group), SCMP_SYS(mremap),
    };
    const struct scmp_arg_cmp data = {
        .arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC, .datum_b = 0
    };
    const struct rlimit none = { 0, 0 }, memory = { UINT64_C(4) << 30, UINT64_C(4) << 30 };
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int rc = ctx ? 0 : -ENOMEM;

    mallopt(M_ARENA_MAX, 1);
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_AS, &memory);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (rc == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        rc = -errno;
    }
    for (size_t i = 0; i < ARRAY_LEN(calls) && rc == 0; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    }
    rc = rc == 0 ? seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, &data) : rc;
    if (rc == 0 && writes) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(pwritev), 0);
        rc = rc == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ftruncate), 0) : rc;
    }
    /* openssl, to notice a fork: there is none */
    rc = rc == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(getpid), 0) : rc;
    rc = rc == 0 ? seccomp_load(ctx) : rc;
    seccomp_release(ctx);
    return rc == 0 ? 0 : err_errno(e, -rc, "cannot confine the work on states");
}
#endif

static int read_request(struct json_object **out, struct err *e)
{
    AUTO_BUF text = BUF_INIT;
    char piece[4096];
    ssize_t n;

    while ((n = read(STDIN_FILENO, piece, sizeof(piece))) > 0 && text.len < REQUEST_MAX) {
        buf_add(&text, piece, (size_t)n);
    }
    return api_json_parse(text.data ? text.data : "", text.len, out, e);
}

static int get_address(const struct json_object *o, uint64_t *out, struct err *e)
{
    const char *text = api_json_get_str(o, "address");

    *out = 0;
    return text ? str_to_u64(text, 0, UINT64_MAX, "address", out, e) : 0;
}

static int read_memory(struct view *v, const struct json_object *o, struct json_object *out,
                       struct err *e)
{
    int64_t n = api_json_get_int(o, "size", 0);
    uint64_t address;
    AUTO_BUF text = BUF_INIT;
    int rc = get_address(o, &address, e);

    if (rc == 0 && (n < 1 || n > VIEW_READ_MAX)) {
        rc = err_set(e, -EINVAL, "as many bytes cannot be read at once");
    }
    if (rc != 0) {
        return rc;
    }
    AUTO_FREE uint8_t *bytes = xalloc((size_t)n);

    rc = view_memory(v, address, bytes, (size_t)n, e);
    if (rc == 0) {
        base64_add(&text, bytes, (size_t)n);
        api_json_set_str(out, "data", text.data);
    }
    return rc;
}

static int64_t limit_of(const struct json_object *o)
{
    int64_t limit = api_json_get_int(o, "limit", 256);

    return limit < 1 ? 1 : limit > LIMIT_MAX ? LIMIT_MAX : limit;
}

static int search(struct view *v, const struct json_object *o, struct json_object *out,
                  struct err *e)
{
    const char *text = api_json_get_str(o, "bytes");
    AUTO_BUF bytes = BUF_INIT;
    uint64_t from;
    int rc = get_address(o, &from, e);

    if (rc == 0 && (!text || !base64_take(&bytes, text) || bytes.len < 1 ||
                    bytes.len > VIEW_PATTERN_MAX)) {
        rc = err_set(e, -EINVAL, "there is nothing to look for");
    }
    return rc == 0 ? view_search(v, from, (const uint8_t *)bytes.data, bytes.len,
                                 (size_t)limit_of(o), out, e)
                   : rc;
}

static int reseal(struct view *v, const struct json_object *o, struct json_object *out,
                  struct err *e)
{
    const char *text = api_json_get_str(o, "to_key"), *uuid = api_json_get_str(o, "uuid");
    AUTO_BUF key = BUF_INIT;
    int rc;

    if (!text || !uuid || !base64_take(&key, text) || key.len != STATE_KEY_LEN) {
        return err_set(e, -EINVAL, "the request is none");
    }
    rc = view_check(v, out, e);
    return rc == 0 ? state_reseal(&v->in, FIRST_FILE + 1, uuid, (const uint8_t *)key.data, e)
                   : rc;
}

static int answer(const struct json_object *o, struct json_object *out, struct err *e)
{
    AUTO_FREE struct view *v = xnew_n(struct view, 2); /* with what they hold till the end */
    const char *what = api_json_get_str(o, "do"), *text = api_json_get_str(o, "key");
    bool two = what && strcmp(what, "diff") == 0;
    AUTO_BUF key = BUF_INIT;
    int rc;

    if (!what || !text || !base64_take(&key, text) || key.len != STATE_KEY_LEN) {
        return err_set(e, -EINVAL, "the request is none");
    }
    for (int i = 0; i <= two; i++) {
        rc = view_open(&v[i], FIRST_FILE + i, (const uint8_t *)key.data, e);
        if (rc != 0) {
            return rc;
        }
    }
    if (two) {
        return view_diff(&v[0], &v[1], (size_t)limit_of(o), out, e);
    }
    if (strcmp(what, "fields") == 0) {
        return view_file_fields(&v[0], api_json_get_str(o, "part"),
                                (uint64_t)api_json_get_int(o, "after", 0), out, e);
    }
    return strcmp(what, "check") == 0    ? view_check(&v[0], out, e)
           : strcmp(what, "reseal") == 0 ? reseal(&v[0], o, out, e)
           : strcmp(what, "memory") == 0 ? read_memory(&v[0], o, out, e)
           : strcmp(what, "search") == 0 ? search(&v[0], o, out, e)
                                         : err_set(e, -EINVAL, "the request is none");
}

static int serve(bool writes, struct err *e)
{
    struct json_object *o = NULL, *out = json_object_new_object();
    /* What reads configuration or entropy does so now. */
    bool ok = OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1;
    EVP_MD *sha256 = ok ? EVP_MD_fetch(NULL, "SHA256", NULL) : NULL;
    int rc = sha256 ? confine(writes, e) : err_set(e, -ENOMEM, "there is no SHA-256");

    rc = rc == 0 ? read_request(&o, e) : rc;
    rc = rc == 0 ? answer(o, out, e) : rc;
    if (rc == 0) {
        const char *text = api_json_text(out);

        for (size_t done = 0, n = strlen(text); done < n;) {
            ssize_t some = write(STDOUT_FILENO, text + done, n - done);

            if (some <= 0) {
                return err_errno(e, errno, "cannot answer");
            }
            done += (size_t)some;
        }
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;

    bool writes = argc == 3 && strcmp(argv[2], "--write") == 0;

    if (argc != 2 && !writes) {
        fprintf(stderr, "usage: vmd-state PID [--write]\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != atoi(argv[1])) {
        return 1; /* it had ended before */
    }
    if (serve(writes, &e) != 0) {
        size_t n = strlen(e.msg);
        ssize_t rc = write(STDERR_FILENO, e.msg, n);

        _exit(rc >= 0 && e.code == -EBADMSG ? 3 : 1);
    }
    _exit(0);
}
