/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: encryption by LUKS. The volume's header lies in clusters of its own, named by a header extension; guest data is
 * encrypted by sectors, whose number is that of their place in the data file. Tables and compressed clusters are not
 * encrypted. Any thread.
 */
#include "storage/luks.h"
#include "storage/qcow2.h"

#include "engine/base/mem.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { METHOD_AES = 1, METHOD_LUKS = 2, EXT_BYTES = 16 };

int q2_crypt_open(struct qcow2 *q, const struct blk_options *o, struct err *e)
{
    AUTO_FREE char *who = xasprintf("disk '%s': %s", q->node.name, q->node.path);
    uint64_t place[2] = { 0, 0 };

    if (q->h.crypt == 0) {
        return 0;
    }
    if (q->h.crypt != METHOD_LUKS) {
        return err_set(e, -ENOTSUP,
                       "%s is encrypted by method %u; convert it with qemu-img to LUKS or none "
                       "first",
                       who, q->h.crypt);
    }
    for (size_t i = 0; i < q->n_ext; i++) {
        if (q->ext[i].type == Q2_X_CRYPTO && q->ext[i].length == EXT_BYTES) {
            memcpy(place, q->ext[i].data, EXT_BYTES);
        }
    }
    place[0] = be64toh(place[0]);
    place[1] = be64toh(place[1]);
    if (place[0] < q->cluster || place[0] & (q->cluster - 1) || place[0] > q->file->size ||
        place[1] > q->file->size - place[0]) {
        return err_set(e, -EINVAL, "%s: its LUKS header lies outside the file", who);
    }
    if (!o->secret) {
        q->locked = true;
        return o->for_check ? 0 : luks_refuse(who, e);
    }
    q->cipher = o->secret->by;
    return q->cipher->open(q->file, place[0], place[1], o->secret, who, &q->luks, e);
}

void q2_crypt_close(struct qcow2 *q)
{
    if (q->luks) {
        q->cipher->close(q->luks);
        q->luks = NULL;
    }
}

int q2_data_read(struct qcow2 *q, uint64_t at, uint64_t length, const struct iovec *iov,
                 unsigned n)
{
    if (!q->luks) {
        return q->locked ? -EACCES : blk_kid_run(q->data, BLK_READ, 0, at, length, iov, n);
    }
    return q->cipher->read(q->luks, q->data, at, at / BLK_SECTOR, length, iov, n);
}

int q2_data_write(struct qcow2 *q, uint64_t at, uint64_t length, const struct iovec *iov,
                  unsigned n)
{
    if (!q->luks) {
        return q->locked ? -EACCES : blk_kid_run(q->data, BLK_WRITE, 0, at, length, iov, n);
    }
    return q->cipher->write(q->luks, q->data, at, at / BLK_SECTOR, length, iov, n);
}
