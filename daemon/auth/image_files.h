/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the workers of images.c do to files. Each call blocks as long as the disk does. No state of its
 * own; any thread, one at a time for one struct image_file.
 */
#ifndef VMD_DAEMON_AUTH_IMAGE_FILES_H
#define VMD_DAEMON_AUTH_IMAGE_FILES_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_CHUNK 524288
#define IMAGES_LISTED 20000

struct image_file {
    int fd; /* of the unfinished file; -1: none */
};
struct image_found {
    char name[64], project[64];
    int64_t size, total, changed_ms;
    bool partial;
};
/* What goes in and comes out. */
struct image_work {
    const char *dir; /* borrowed */
    char name[64], project[64], sha256[65];
    int64_t offset, total, quota;
    bool restart, replace;
    unsigned char *data;
    size_t len;
    struct image_found *found;
    size_t n_found;
};

void image_work_done(struct image_work *w);
/* Opens or makes the unfinished file; w->offset is what is there. */
int image_begin(struct image_file *f, struct image_work *w, struct err *e);
int image_write(struct image_file *f, struct image_work *w, struct err *e);
int image_finish(struct image_file *f, struct image_work *w, struct err *e);
void image_close(struct image_file *f);
/* w->len bytes at w->offset into w->data (w->len: how many there were), w->total: the size. */
int image_read(struct image_work *w, struct err *e);
int image_list(struct image_work *w, struct err *e);
int image_delete(struct image_work *w, struct err *e);
const char *image_remedy(int code);

#endif
