/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a small file system for reading: ISO 9660 level 2 (ECMA-119) with Rock Ridge (RRIP 1.09) and Joliet names, so that every
 * guest finds the same names. The same files give the same bytes, whenever and wherever. Pure.
 */
#ifndef VMD_DAEMON_ISO9660_H
#define VMD_DAEMON_ISO9660_H

#include <stddef.h>

struct buf;

#define ISO_FILES_MAX 16
#define ISO_NAME_MAX 27   /* of a file or folder: letters, digits and . _ - */
#define ISO_FOLDERS_MAX 8 /* in all */
#define ISO_LABEL_MAX 16

struct iso_file {
    const char *path; /* "openstack/latest/user_data"; folders are made */
    const void *data;
    size_t len;
};

/* Appends the image, a whole number of sectors of 2048 bytes, to *out. */
void iso_write(const char *label, const struct iso_file *files, size_t n, struct buf *out);

#endif
