/* SPDX-License-Identifier: Apache-2.0 */
/* What export and import have in common. One thread beside those of img_copy(). */
#ifndef VMD_CLI_IMAGE_EXPORT_H
#define VMD_CLI_IMAGE_EXPORT_H

#include "cli/image.h"
#include "cli/image_tar.h"

#include <json-c/json.h>

/* Member of vm.json that says which version of the archive it is. */
#define EXPORT_VERSION "vmd-export"
/* Files of the definition stand in vm.json under this folder, which is nowhere. */
#define EXPORT_FOLDER "/vmd-export/"
#define EXPORT_MANIFEST "vm.json"
#define EXPORT_SUMS "SHA256SUMS"

enum { EXPORT_FILES = 64 };

/* A file that a definition names. */
struct part {
    struct json_object *owner; /* in the definition; borrowed */
    const char *key;           /* "file", "kernel", ... */
    const char
        *format; /* "raw", "qcow2" of a disk; NULL: bytes as they are. Borrowed from owner */
    char *path, *member;
    struct blk_node *node; /* of a disk, while it is held against others */
    int fd;                /* of another file */
};

/* Every file that the definition names, from its disks to its firmware. How many, at most EXPORT_FILES. */
size_t export_parts(struct json_object *config, struct part *part);
void export_parts_done(struct part *part, size_t n);
/* The daemon must see the files that we see. CLI_OK, or prints. */
int export_local(struct cli *c);
/* The folder of a file that was renamed reaches the disk. */
void export_sync_folder(const char *path);

#endif
