/* SPDX-License-Identifier: Apache-2.0 */
/* Reads and writes tar files. Owns the table of members. One thread. */
#include "cli/image_tar.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 512, PIECE = 1 << 20, MAX_NAME = 4096, MAX_PAX = 64 << 10, OCTAL_DIGITS = 11 };
/* Where the fields of a header lie. */
enum {
    H_NAME = 0,
    H_MODE = 100,
    H_UID = 108,
    H_GID = 116,
    H_SIZE = 124,
    H_MTIME = 136,
    H_SUM = 148,
    H_TYPE = 156,
    H_MAGIC = 257,
    H_PREFIX = 345,
    N_NAME = 100,
    N_SIZE = 12,
    N_PREFIX = 155,
};
#define OCTAL_MAX ((UINT64_C(1) << (3 * OCTAL_DIGITS)) - 1)

static uint64_t padded(uint64_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

/* --- reading --- */

struct scan {
    struct tar *t;
    uint64_t length; /* of the file */
    char *name;      /* for the next member; NULL: its header says */
    uint64_t size;   /* the same, when has_size */
    bool has_size;
};

static int octal(const uint8_t *p, size_t n, uint64_t *out)
{
    size_t i = 0;

    if (p[0] & 0x80) { /* big endian, in base 256 */
        *out = p[0] & 0x7f;
        for (i = 1; i < n; i++) {
            if (*out >> 55) {
                return -EINVAL;
            }
            *out = *out << 8 | p[i];
        }
        return 0;
    }
    *out = 0;
    while (i < n && p[i] == ' ') {
        i++;
    }
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
        *out = *out << 3 | (uint64_t)(p[i] - '0');
    }
    return i < n && p[i] != 0 && p[i] != ' ' ? -EINVAL : 0;
}

static unsigned header_sum(const uint8_t *h)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < BLOCK; i++) {
        sum += i >= H_SUM && i < H_SUM + 8 ? ' ' : h[i];
    }
    return sum;
}

static bool is_header(const uint8_t *h)
{
    uint64_t sum;

    return octal(h + H_SUM, 8, &sum) == 0 && sum == header_sum(h);
}

static int bad(const struct tar *t, uint64_t at, const char *what, struct err *e)
{
    return err_set(e, -EINVAL, "%s: %s at offset %llu", t->path, what, (unsigned long long)at);
}

static int read_at(const struct tar *t, uint64_t at, void *out, size_t n, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = fd_pread(t->fd, (char *)out + done, n - done, at + done);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? err_errno(e, errno, "cannot read %s", t->path)
                           : bad(t, at, "it ends too early,", e);
        }
        done += (size_t)got;
    }
    return 0;
}

/* "LENGTH KEY=VALUE\n" again and again (pax, "Extended Header"). */
static int read_pax(struct scan *s, uint64_t at, uint64_t size, struct err *e)
{
    AUTO_FREE char *text = NULL;
    int rc;

    if (size > MAX_PAX) {
        return bad(s->t, at, "an extended header of more than 64 KiB", e);
    }
    text = xalloc(size + 1);
    rc = read_at(s->t, at, text, size, e);
    for (char *p = text; rc == 0 && p < text + size;) {
        char *key;
        unsigned long n = strtoul(p, &key, 10);

        if (*key != ' ' || n < 5 || n > (size_t)(text + size - p) || p[n - 1] != '\n' ||
            key >= p + n) {
            return bad(s->t, at, "an extended header that is none", e);
        }
        p[n - 1] = 0;
        key++;
        if (strncmp(key, "path=", 5) == 0) {
            free(s->name);
            s->name = xstrdup(key + 5);
        } else if (strncmp(key, "size=", 5) == 0) {
            errno = 0;
            s->size = strtoull(key + 5, NULL, 10);
            s->has_size = true;
            if (errno) {
                return bad(s->t, at, "a size without bounds", e);
            }
        }
        p += n;
    }
    return rc;
}

static int read_long_name(struct scan *s, uint64_t at, uint64_t size, struct err *e)
{
    if (size > MAX_NAME) {
        return bad(s->t, at, "a name of more than 4096 bytes", e);
    }
    free(s->name);
    s->name = xalloc(size + 1);
    return read_at(s->t, at, s->name, size, e);
}

static char *header_name(const uint8_t *h)
{
    const char *prefix = (const char *)h + H_PREFIX, *name = (const char *)h + H_NAME;

    return memcmp(h + H_MAGIC, "ustar\0", 6) == 0 && *prefix
               ? xasprintf("%.*s/%.*s", N_PREFIX, prefix, N_NAME, name)
               : xasprintf("%.*s", N_NAME, name);
}

static int add_member(struct scan *s, const uint8_t *h, uint64_t at, uint64_t size,
                      struct err *e)
{
    struct tar *t = s->t;
    char *name;

    if (t->n == TAR_MEMBERS) {
        return bad(t, at, "more than 1024 files", e);
    }
    name = s->name ? take_ptr(s->name) : header_name(h);
    t->member = xrealloc_n(t->member, t->n + 1, sizeof(*t->member));
    t->member[t->n++] = (struct tar_member){ .name = name, .at = at, .size = size };
    return 0;
}

/* What one header says; *next is the place of the following one. */
static int read_member(struct scan *s, const uint8_t *h, uint64_t at, uint64_t *next,
                       struct err *e)
{
    uint64_t size;
    char type = (char)h[H_TYPE];
    int rc = 0;

    if (octal(h + H_SIZE, N_SIZE, &size) != 0) {
        return bad(s->t, at, "a header without a size", e);
    }
    if (s->has_size && type != 'x' && type != 'g' && type != 'L') {
        size = s->size;
    }
    at += BLOCK;
    if (size > s->length - at) {
        return bad(s->t, at, "a file that goes beyond the archive's end", e);
    }
    *next = at + padded(size);
    switch (type) {
    case 'x':
        return read_pax(s, at, size, e);
    case 'L':
        return read_long_name(s, at, size, e);
    case 'g':
        return 0;
    case '0':
    case '7':
    case 0:
        rc = add_member(s, h, at, size, e);
        break;
    default: /* folders, links: nothing that we look for */
        break;
    }
    free(s->name);
    s->name = NULL;
    s->has_size = false;
    return rc;
}

static int scan(struct scan *s, bool partial, struct err *e)
{
    uint8_t h[BLOCK];
    uint64_t at = 0, next = 0;
    unsigned headers = 0;
    size_t n = 0;

    while (at < s->length && s->length - at >= BLOCK) {
        int rc = read_at(s->t, at, h, BLOCK, e);

        if (rc == 0 && h[0] == 0 && header_sum(h) == 8 * ' ') {
            break; /* the end */
        }
        if (rc == 0 && (!is_header(h) || ++headers > 4 * TAR_MEMBERS)) {
            rc = bad(s->t, at, at ? "no header of a tar file" : "no tar file: no header", e);
        }
        rc = rc ? rc : read_member(s, h, at, &next, e);
        if (rc != 0) {
            return partial ? 0 : rc;
        }
        if (partial && next > s->length) { /* its last block was cut */
            while (s->t->n > n) {
                free(s->t->member[--s->t->n].name);
            }
            break;
        }
        n = s->t->n;
        at = next;
        if (!s->name && !s->has_size) { /* an extended header belongs to the file behind it */
            s->t->end = at;
        }
    }
    return 0;
}

/* t->fd is open, or -1 with errno. */
static int begin(struct tar *t, bool partial, bool write, struct err *e)
{
    struct scan s = { .t = t };
    struct stat st;
    int rc;

    if (t->fd < 0 || fstat(t->fd, &st) != 0) {
        rc = err_errno(e, errno, "cannot open %s", t->path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = err_set(e, -EINVAL, "%s is no regular file", t->path);
    } else {
        s.length = (uint64_t)st.st_size;
        rc = scan(&s, partial, e);
    }
    free(s.name);
    if (rc == 0 && t->n == 0 && !write) {
        rc = err_set(e, -EINVAL, "%s is no tar file, or an empty one", t->path);
    }
    if (rc != 0) {
        tar_done(t);
    }
    return rc;
}

int tar_open(struct tar *t, const char *path, bool partial, bool write, struct err *e)
{
    *t = (struct tar){ .path = xstrdup(path) };
    t->fd = open(path, (write ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NONBLOCK, 0600);
    return begin(t, partial, write, e);
}

int tar_open_fd(struct tar *t, int fd, const char *path, bool write, struct err *e)
{
    *t = (struct tar){ .path = xstrdup(path) };
    t->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return begin(t, write, write, e);
}

void tar_done(struct tar *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->member[i].name);
    }
    free(t->member);
    free(t->path);
    fd_autoclose(&t->fd);
    *t = (struct tar){ .fd = -1 };
}

/* "./x" is "x". */
static const char *plain(const char *name)
{
    return strncmp(name, "./", 2) == 0 ? name + 2 : name;
}

const struct tar_member *tar_find(const struct tar *t, const char *name)
{
    const struct tar_member *found = NULL;

    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(plain(t->member[i].name), plain(name)) == 0) {
            if (found) {
                return NULL;
            }
            found = &t->member[i];
        }
    }
    return found;
}

const struct tar_member *tar_find_end(const struct tar *t, const char *end)
{
    for (size_t i = 0; i < t->n; i++) {
        size_t n = strlen(t->member[i].name), m = strlen(end);

        if (n > m && strcasecmp(t->member[i].name + n - m, end) == 0) {
            return &t->member[i];
        }
    }
    return NULL;
}

int tar_slurp(const struct tar *t, const struct tar_member *m, size_t max, struct buf *b,
              struct err *e)
{
    AUTO_FREE char *mem = NULL;
    int rc;

    if (m->size > max) {
        return err_set(e, -EMSGSIZE, "%s: %s has more than %zu bytes", t->path, m->name, max);
    }
    mem = xalloc(m->size + 1);
    rc = read_at(t, m->at, mem, m->size, e);
    if (rc == 0) {
        buf_add(b, mem, m->size);
    }
    return rc;
}

/* --- digests --- */

static void to_hex(const uint8_t *p, unsigned n, char *out)
{
    for (unsigned i = 0; i < n; i++) {
        snprintf(out + 2 * i, 3, "%02x", p[i]);
    }
}

static EVP_MD_CTX *digest_new(const char *kind)
{
    const EVP_MD *md = EVP_get_digestbyname(kind);
    EVP_MD_CTX *x = md ? EVP_MD_CTX_new() : NULL;

    if (x && EVP_DigestInit_ex(x, md, NULL) != 1) {
        EVP_MD_CTX_free(x);
        x = NULL;
    }
    return x;
}

static void digest_end(EVP_MD_CTX *x, char hex[TAR_HEX])
{
    uint8_t out[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    EVP_DigestFinal_ex(x, out, &n);
    EVP_MD_CTX_free(x);
    to_hex(out, n, hex);
}

/* `to` -1: only read. */
static int pass(const struct tar *t, const struct tar_member *m, const char *kind, int to,
                const char *path, char hex[TAR_HEX], struct err *e)
{
    AUTO_FREE char *mem = xalloc(PIECE);
    EVP_MD_CTX *x = digest_new(kind);
    int rc = x ? 0 : err_set(e, -ENOTSUP, "%s: unknown digest %s", t->path, kind);

    for (uint64_t done = 0; done < m->size && rc == 0;) {
        size_t n = m->size - done < PIECE ? (size_t)(m->size - done) : PIECE;

        rc = read_at(t, m->at + done, mem, n, e);
        if (rc == 0) {
            EVP_DigestUpdate(x, mem, n);
            rc = to < 0 ? 0 : fd_write_all(to, mem, n, path, e);
        }
        done += n;
    }
    if (x) {
        digest_end(x, hex);
    }
    return rc;
}

int tar_digest(const struct tar *t, const struct tar_member *m, const char *kind,
               char hex[TAR_HEX], struct err *e)
{
    return pass(t, m, kind, -1, NULL, hex, e);
}

int tar_extract(const struct tar *t, const struct tar_member *m, int to, const char *path,
                char hex[TAR_HEX], struct err *e)
{
    return pass(t, m, "SHA256", to, path, hex, e);
}

/* --- writing --- */

static int write_at(const struct tar *t, uint64_t at, const void *p, size_t n, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = fd_pwrite(t->fd, (const char *)p + done, n - done, at + done);

        if (put < 0 && errno != EINTR) {
            return err_errno(e, errno, "cannot write %s", t->path);
        }
        done += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

static void header_make(uint8_t *h, const char *name, uint64_t size)
{
    memset(h, 0, BLOCK);
    snprintf((char *)h + H_NAME, N_NAME, "%s", name);
    memcpy(h + H_MODE, "0000600", 8);
    memcpy(h + H_UID, "0000000", 8);
    memcpy(h + H_GID, "0000000", 8);
    memcpy(h + H_MTIME, "00000000000", 12);
    h[H_TYPE] = '0';
    memcpy(h + H_MAGIC, "ustar\00000", 8);
    if (size <= OCTAL_MAX) {
        snprintf((char *)h + H_SIZE, N_SIZE, "%011llo", (unsigned long long)size);
    } else {
        for (unsigned i = 0; i < 8; i++) {
            h[H_SIZE + N_SIZE - 1 - i] = (uint8_t)(size >> 8 * i);
        }
        h[H_SIZE] = 0x80;
    }
    snprintf((char *)h + H_SUM, 8, "%06o", header_sum(h));
    h[H_SUM + 7] = ' ';
}

/* The bytes lie there already. */
static int seal(struct tar *t, const char *name, uint64_t size, struct err *e)
{
    uint8_t h[BLOCK] = { 0 };
    uint64_t at = t->end + BLOCK;
    int rc = write_at(t, at + size, h, (size_t)(padded(size) - size), e);

    header_make(h, name, size);
    rc = rc ? rc : write_at(t, t->end, h, BLOCK, e);
    if (rc == 0) {
        t->member = xrealloc_n(t->member, t->n + 1, sizeof(*t->member));
        t->member[t->n++] = (struct tar_member){ .name = xstrdup(name),
                                                 .at = at,
                                                 .size = size };
        t->end = at + padded(size);
    }
    return rc;
}

int tar_add(struct tar *t, const char *name, const void *p, size_t size, struct err *e)
{
    int rc = write_at(t, t->end + BLOCK, p, size, e);

    return rc ? rc : seal(t, name, size, e);
}

int tar_add_file(struct tar *t, const char *name, int from, const char *path, char hex[TAR_HEX],
                 struct err *e)
{
    AUTO_FREE char *mem = xalloc(PIECE);
    EVP_MD_CTX *x = digest_new("SHA256");
    uint64_t done = 0;
    int rc = 0;

    while (rc == 0) {
        ssize_t n = fd_pread(from, mem, PIECE, done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            rc = n < 0 ? err_errno(e, errno, "cannot read %s", path) : 0;
            break;
        }
        EVP_DigestUpdate(x, mem, (size_t)n);
        rc = write_at(t, t->end + BLOCK + done, mem, (size_t)n, e);
        done += (uint64_t)n;
    }
    digest_end(x, hex);
    return rc ? rc : seal(t, name, done, e);
}

int tar_end(struct tar *t, struct err *e)
{
    static const uint8_t zero[2 * BLOCK];
    int rc = write_at(t, t->end, zero, sizeof(zero), e);

    if (rc == 0 &&
        (ftruncate(t->fd, (off_t)(t->end + sizeof(zero))) != 0 || fsync(t->fd) != 0)) {
        rc = err_errno(e, errno, "cannot write %s", t->path);
    }
    return rc;
}
