/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `vmctl image member`: the files of a snapshot's archive (tar): disks go in as compressed qcow2 images of what a snapshot holds, and
 * come back as a snapshot of another image. vmd runs it in the process that it gives images to. One thread beside those of img_copy().
 */
#include "cli/image.h"
#include "cli/image_tar.h"

#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "storage/window.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct member {
    struct cli *c;
    struct cli_input *in;
    const char *archive, *image, *snapshot;
    bool fds;
    struct tar tar;
};

static int number(struct member *m, const char *text, int *fd)
{
    uint64_t n;
    struct err e = ERR_INIT;

    if (str_to_u64(text, 0, INT_MAX, "descriptor", &n, &e) != 0) {
        return cli_fail(m->c, CLI_USAGE, NULL, "%s", e.msg);
    }
    *fd = (int)n;
    return CLI_OK;
}

static int open_archive(struct member *m, bool write)
{
    struct err e = ERR_INIT;
    int fd = -1, status = m->fds ? number(m, m->archive, &fd) : CLI_OK;

    if (status != CLI_OK) {
        return status;
    }
    return (m->fds ? tar_open_fd(&m->tar, fd, "the archive", write, &e)
                   : tar_open(&m->tar, m->archive, write, write, &e)) == 0
               ? CLI_OK
               : img_error(m->c, &e);
}

/* --- looking --- */

static struct json_object *about(const struct tar_member *t, const char *hex)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "name", t->name);
    api_json_set_int(o, "at", (int64_t)t->at);
    api_json_set_int(o, "bytes", (int64_t)t->size);
    api_json_set_str(o, "sha256", hex);
    return o;
}

static int list(struct member *m)
{
    AUTO_JSON all = json_object_new_array();
    struct err e = ERR_INIT;
    char hex[TAR_HEX];

    for (size_t i = 0; i < m->tar.n; i++) {
        const struct tar_member *t = &m->tar.member[i];

        if (tar_digest(&m->tar, t, "SHA256", hex, &e) != 0) {
            return img_error(m->c, &e);
        }
        json_object_array_add(all, about(t, hex));
        if (!m->c->json) {
            printf("%s  %s\n", hex, t->name);
        }
    }
    if (m->c->json) {
        cli_print_json(all);
    }
    return CLI_OK;
}

/* --- adding --- */

/* A file that has no name any more, beside the image; whoever dies leaves nothing. */
static int scratch(struct member *m, int *fd)
{
    AUTO_FREE char *path = xasprintf("%s.%s.part", m->image, m->snapshot);

    *fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd < 0) {
        return cli_fail(m->c, CLI_FAILED, NULL, "cannot make %s: %s", path, strerror(errno));
    }
    (void)unlink(path);
    return CLI_OK;
}

static int pack(struct member *m, struct blk_node *from, int fd)
{
    struct blk_option zstd = { .key = "compression_type", .value = "zstd" };
    struct blk_create create = { .path = m->image,
                                 .driver = "qcow2",
                                 .size = blk_size(from),
                                 .option = &zstd,
                                 .n_options = 1,
                                 .given = true,
                                 .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3) };
    struct blk_options o = {
        .name = m->image, .path = m->image, .driver = "qcow2", .unsafe = true
    };
    struct img_copy k = { .from = from, .compress = true, .to_is_zero = true, .sparse = 4096 };
    struct err e = ERR_INIT;

    if (blk_create(&create, &e) != 0) {
        return img_error(m->c, &e);
    }
    o.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (blk_open(NULL, &o, &k.to, &e) != 0) {
        fd_autoclose(&o.fd);
        return img_error(m->c, &e);
    }
    return img_close(m->c, k.to, img_copy(&k, &e) != 0 ? img_error(m->c, &e) : CLI_OK);
}

static int pack_disk(struct member *m, int *fd, uint64_t *size)
{
    struct img_source s = { .path = m->image, .format = "qcow2", .shared = true };
    struct blk_node *from;
    struct err e = ERR_INIT;
    int status = img_open(m->c, &s, &from);

    if (status != CLI_OK) {
        return status;
    }
    if (blk_snapshot_load(from, m->snapshot, &e) != 0) {
        status = img_error(m->c, &e);
    }
    *size = blk_size(from);
    status = status ? status : scratch(m, fd);
    status = status ? status : pack(m, from, *fd);
    blk_close(from);
    return status;
}

static int open_from(struct member *m, const char *path, int *fd)
{
    int given, status = m->fds ? number(m, path, &given) : CLI_OK;

    if (status == CLI_OK) {
        *fd = m->fds ? fcntl(given, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
        if (*fd < 0) {
            status = cli_fail(m->c, CLI_FAILED, NULL, "cannot open %s: %s", path,
                              strerror(errno));
        }
    }
    return status;
}

static int add(struct member *m, const char *name)
{
    const char *from = cli_own(m->in, "from");
    AUTO_FD fd = -1;
    uint64_t size = 0;
    char hex[TAR_HEX];
    struct err e = ERR_INIT;
    int status;

    if (!from && (!m->image || !m->snapshot)) {
        return cli_fail(m->c, CLI_USAGE, "IMAGE and --snapshot, or --from", "add what?");
    }
    status = from ? open_from(m, from, &fd) : pack_disk(m, &fd, &size);
    if (status != CLI_OK) {
        return status;
    }
    if (tar_find(&m->tar, name)) {
        return cli_fail(m->c, CLI_FAILED, NULL, "%s holds %s already", m->tar.path, name);
    }
    if (tar_add_file(&m->tar, name, fd, from ? from : m->image, hex, &e) != 0) {
        return img_error(m->c, &e);
    }
    if (m->c->json) {
        AUTO_JSON o = about(&m->tar.member[m->tar.n - 1], hex);

        api_json_set_int(o, "size", (int64_t)size);
        cli_print_json(o);
    }
    return CLI_OK;
}

/* --- putting --- */

static int open_member(struct member *m, const struct tar_member *t, struct blk_node **out)
{
    struct blk_options o = { .name = t->name,
                             .path = m->tar.path,
                             .driver = "qcow2",
                             .protocol = &blk_window_driver,
                             .start = t->at,
                             .length = t->size,
                             .fd = m->tar.fd,
                             .readonly = true };
    struct err e = ERR_INIT;

    return blk_open(NULL, &o, out, &e) == 0 ? CLI_OK : img_error(m->c, &e);
}

static int act(struct member *m, struct blk_node *to, enum blk_snapshot_verb verb,
               const char *name)
{
    struct err e = ERR_INIT;

    return blk_snapshot(to, verb, name, &e) == 0 ? CLI_OK : img_error(m->c, &e);
}

/*
 * The image's own contents wait in a snapshot called `back` meanwhile. Who finds that one after a crash goes back to it and deletes
 * it, and the other (daemon/vm/snapshot_work.c).
 */
static int put_into(struct member *m, struct blk_node *from, struct blk_node *to)
{
    AUTO_FREE char *back = xasprintf("%s.back", m->snapshot);
    struct img_copy k = { .from = from, .to = to, .sparse = 4096 };
    struct err e = ERR_INIT;
    bool made = false;
    int status, undone;

    if (blk_size(from) != blk_size(to)) {
        return cli_fail(m->c, CLI_FAILED, "put it into one of the same size",
                        "%s is a disk of %llu bytes, %s one of %llu", blk_name(from),
                        (unsigned long long)blk_size(from), m->image,
                        (unsigned long long)blk_size(to));
    }
    status = act(m, to, BLK_SNAP_CREATE, back);
    if (status != CLI_OK) {
        return status;
    }
    if (img_copy(&k, &e) != 0) {
        status = img_error(m->c, &e);
    }
    if (status == CLI_OK) {
        status = act(m, to, BLK_SNAP_CREATE, m->snapshot);
        made = status == CLI_OK;
    }
    undone = act(m, to, BLK_SNAP_APPLY, back);
    undone = undone ? undone : act(m, to, BLK_SNAP_DELETE, back);
    if (made && undone != CLI_OK) {
        (void)act(m, to, BLK_SNAP_DELETE, m->snapshot);
    }
    return status ? status : undone;
}

static int put(struct member *m, const char *name)
{
    const struct tar_member *t = tar_find(&m->tar, name);
    const char *want = cli_own(m->in, "sha256");
    struct img_source s = { .path = m->image, .format = "qcow2", .write = true };
    struct blk_node *from, *to;
    char hex[TAR_HEX];
    struct err e = ERR_INIT;
    int status;

    if (!m->image || !m->snapshot) {
        return cli_fail(m->c, CLI_USAGE, "IMAGE and --snapshot", "put it where?");
    }
    if (!t) {
        return cli_fail(m->c, CLI_FAILED, NULL, "%s: %s is missing, or twice in it",
                        m->tar.path, name);
    }
    if (want && tar_digest(&m->tar, t, "SHA256", hex, &e) != 0) {
        return img_error(m->c, &e);
    }
    if (want && strcasecmp(hex, want) != 0) {
        return cli_fail(m->c, CLI_FAILED, "fetch the file again",
                        "%s: %s is damaged: its SHA-256 is %s, not %s", m->tar.path, name, hex,
                        want);
    }
    status = open_member(m, t, &from);
    if (status != CLI_OK) {
        return status;
    }
    status = img_open(m->c, &s, &to);
    if (status == CLI_OK) {
        status = img_close(m->c, to, put_into(m, from, to));
    }
    blk_close(from);
    return status;
}

int cli_verb_image_member(struct cli *c, struct cli_input *in)
{
    struct member m = { .c = c,
                        .in = in,
                        .archive = img_arg(in, "ARCHIVE"),
                        .image = img_arg(in, "IMAGE"),
                        .snapshot = cli_own(in, "snapshot"),
                        .fds = img_flag(in, "fds"),
                        .tar = { .fd = -1 } };
    const char *to_add = cli_own(in, "add"), *to_put = cli_own(in, "put");
    bool end = img_flag(in, "end");
    struct err e = ERR_INIT;
    int status;

    if ((to_add != NULL) + (to_put != NULL) + end > 1) {
        return cli_fail(c, CLI_USAGE, NULL, "--add, --put and --end do not go together");
    }
    status = open_archive(&m, to_add || end);
    if (status == CLI_OK) {
        status = to_add                     ? add(&m, to_add)
                 : to_put                   ? put(&m, to_put)
                 : !end                     ? list(&m)
                 : tar_end(&m.tar, &e) == 0 ? CLI_OK
                                            : img_error(c, &e);
    }
    tar_done(&m.tar);
    return status;
}
