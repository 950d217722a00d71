/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs: a folder of the host (virtio 1.2 §5.11). What is asked are messages of FUSE, which a vhost-user back end (virtiofsd)
 * answers; here they only pass. When it is gone each request is answered with ENOTCONN, so that no program of the guest
 * hangs. Main loop, transport's lock.
 */
#include "devices/fs/share.h"
#include "devices/registry.h"
#include "devices/virtio/vhost_user.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/* The longest request of Linux is as many pages as the ring has entries, less four. */
#define QUEUE_SIZE 256
#define TAG_BYTES 36

struct vfs {
    struct virtio v;
    char *tag;
    struct vhost_user *back;
};

/* --- what a guest is told without a back end --- */

struct fuse_in {
    uint32_t len, opcode;
    uint64_t unique;
} __attribute__((packed));

struct fuse_out {
    uint32_t len;
    int32_t error;
    uint64_t unique;
} __attribute__((packed));

enum { FUSE_FORGET = 2, FUSE_BATCH_FORGET = 42 };

static uint64_t vfs_fail(struct virtio *v, struct virtio_elem *el)
{
    struct fuse_in in;
    struct fuse_out out = { .len = htole32(sizeof(out)) };

    (void)v;
    if (virtio_get(el, 0, &in, sizeof(in)) != sizeof(in) || el->in_len < sizeof(out) ||
        le32toh(in.opcode) == FUSE_FORGET || le32toh(in.opcode) == FUSE_BATCH_FORGET) {
        return 0; /* nobody waits for an answer */
    }
    out.error = (int32_t)htole32((uint32_t)-ENOTCONN);
    out.unique = in.unique;
    return virtio_put(el, 0, &out, sizeof(out));
}

static const struct vhost_user_ops vfs_back = { .fail = vfs_fail };

/* --- the device --- */

static void vfs_serve(struct virtio *v, unsigned q)
{
    vhost_user_serve(((struct vfs *)v)->back, q);
}

static void vfs_config(struct virtio *v, uint8_t *out)
{
    const struct vfs *f = (struct vfs *)v;

    memcpy(out, f->tag, strnlen(f->tag, TAG_BYTES));
    out[TAG_BYTES] = 1; /* one queue for requests, beside the one for what is urgent */
}

static const struct virtio_ops vfs_ops = {
    .id = 26,
    .outside = true,
    .n_queues = 2,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE },
    .config_size = TAG_BYTES + 4,
    .serve = vfs_serve,
    .config = vfs_config,
};

static int vfs_realize(struct device *d, struct err *e)
{
    struct vfs *f = (struct vfs *)d;

    if (!f->tag[0] || strlen(f->tag) > TAG_BYTES) {
        return err_set(e, -EINVAL, "%s: the tag '%s' has not 1 to %d bytes", d->id, f->tag,
                       TAG_BYTES);
    }
    virtio_setup(&f->v, &vfs_ops, 0, 0);
    vhost_user_bind(f->back, &f->v, &vfs_back);
    return 0;
}

static void vfs_destroy(struct device *d)
{
    struct vfs *f = (struct vfs *)d;

    vhost_user_free(f->back);
    virtio_done(&f->v);
}

bool virtio_fs_mounted(const struct device *d)
{
    return virtio_working((const struct virtio *)d);
}

static const struct st_field vfs_fields[] = {
    VIRTIO_ST_FIELD,
    ST_END,
};
static const struct st_table vfs_state = {
    .name = "virtio-fs",
    .version = 1,
    .fields = vfs_fields,
};
static const struct dev_prop vfs_props[] = {
    { .name = "tag",
      .kind = PROP_STR,
      .offset = offsetof(struct vfs, tag),
      .required = true,
      .doc = "name that the guest mounts it by" },
    { .name = "back",
      .kind = PROP_PTR,
      .offset = offsetof(struct vfs, back),
      .required = true,
      .doc = "connected vhost-user back end, taken" },
    { .name = NULL },
};

const struct device_class virtio_fs_class = {
    .name = "virtio-fs",
    .doc = "virtio file system: a folder of the host, by a vhost-user back end",
    .size = sizeof(struct vfs),
    .props = vfs_props,
    .state = &vfs_state,
    .realize = vfs_realize,
    .resumed = virtio_resumed,
    .destroy = vfs_destroy,
};
