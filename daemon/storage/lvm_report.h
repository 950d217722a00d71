/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lvm's reports say (`lvs` and `vgs` with --reportformat json --units b --nosuffix), and what its complaints mean. Pure
 * functions; the text is judged as if a stranger had sent it, since names and tags in it are other people's.
 */
#ifndef VMD_DAEMON_STORAGE_LVM_REPORT_H
#define VMD_DAEMON_STORAGE_LVM_REPORT_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LVM_LV_FIELDS "lv_name,lv_uuid,lv_size,lv_attr,lv_tags,lv_device_open"
#define LVM_VG_FIELDS "vg_name,vg_size,vg_free,vg_extent_size"

struct lvm_lv {
    char name[128];
    int64_t size; /* bytes */
    int64_t id;   /* made of its UUID, never 0 */
    bool open;    /* something has its device open */
    bool plain;   /* it can be a disk: no pool, no part of another */
    char *made,
        *gone; /* what follows vmd-new. and vmd-gone. in its tags; NULL: no such tag; owned */
};
struct lvm_vg {
    int64_t size, free, extent;
};

/* At most `most` of them; the caller calls lvm_lvs_done(). -EPROTO: this is no such report. */
int lvm_read_lvs(const char *text, size_t n, size_t most, struct lvm_lv **out, size_t *n_out,
                 struct err *e);
void lvm_lvs_done(struct lvm_lv *list, size_t n);
int lvm_read_vg(const char *text, size_t n, struct lvm_vg *out, struct err *e);

/* The words of a command that failed, as an error: -ENOENT, -EEXIST, -EBUSY, -ENOSPC or -EIO with its first complaint. Writes into
 * `said`. */
int lvm_complaint(char *said, struct err *e);

#endif
