/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which other files an image names: the front of a qcow2 image (QEMU, docs/interop/qcow2.txt, "Header", "Header
 * extensions"). Images are not trusted, so vmd-spawn, which may have rights, does not look at their bytes itself: a
 * child of it does, that can do nothing but read from one pipe and write to another (seccomp, strict mode).
 */
#ifndef VMD_DAEMON_SPAWN_HEADER_H
#define VMD_DAEMON_SPAWN_HEADER_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HEADER_NAME_MAX 1023 /* bytes of a name, by the format */
#define HEADER_MOST                                                                            \
    (2u << 20) /* bytes of an image that can matter: its largest first cluster */

/* "" where there is none. */
struct image_names {
    char backing[HEADER_NAME_MAX + 1], data[HEADER_NAME_MAX + 1];
    char format[16]; /* of the backing file */
    bool has_data;   /* it needs a data file, whether or not it names one */
};

/* Pure. 0: *out is filled; -EMSGSIZE: it takes more of the image to tell (up to HEADER_MOST); -EINVAL: this is no
 * sound header, and whoever opens the image will say why. */
int header_parse(const uint8_t *bytes, size_t n, struct image_names *out);

/* The child; made when first needed. */
struct header_reader {
    pid_t pid; /* 0: none */
    int to, from;
    uint8_t *room; /* HEADER_MOST bytes */
    struct header_answer *answer;
};
/* What the image behind fd names; none when it is no sound image. `what` names it in errors. */
int header_read(struct header_reader *r, int fd, const char *what, struct image_names *out,
                struct err *e);
void header_reader_done(struct header_reader *r);

#endif
