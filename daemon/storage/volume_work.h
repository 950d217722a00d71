/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One piece of work on a volume, as a call asks for it and the kind of its pool does it (files.h).
 */
#ifndef VMD_DAEMON_STORAGE_VOLUME_WORK_H
#define VMD_DAEMON_STORAGE_VOLUME_WORK_H

#include "daemon/storage/files.h"
#include "daemon/storage/work.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api_call;
struct pool;
struct volume;

enum { VOP_ARGS = 56 };

struct vop {
    struct work w;
    struct api_call *call; /* loop */
    struct pool *p;        /* loop */
    struct volume *v;      /* loop; NULL: none is changed */
    struct folder f;       /* all below: the thread's while it runs */
    char name[64];
    char *temp;         /* name of an unfinished file */
    const char *format; /* static */
    char *args[VOP_ARGS];
    unsigned n_args;
    char size[24];                       /* "": none */
    char from[64];                       /* run_copy: the volume that is copied */
    int64_t capacity;                    /* run_make, run_copy, run_resize: as asked */
    int64_t mode, owner, group, reserve; /* -1: not said */
    struct measure m;
    bool placed, random, last;
    int64_t at, total;
    unsigned char *data;
    size_t len;
};

#endif
