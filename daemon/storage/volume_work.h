/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One piece of work on the file of a volume, as a call asks for it, and what a thread does for each kind.
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
    int64_t mode, owner, group, reserve; /* -1: not said */
    struct measure m;
    bool placed, random, last;
    int64_t at, total;
    unsigned char *data;
    size_t len;
};

void vop_run_make(struct work *w);    /* the image under its unfinished name, measured */
void vop_run_place(struct work *w);   /* its real name */
void vop_run_discard(struct work *w); /* neither */
void vop_run_resize(struct work *w);
void vop_run_wipe(struct work *w);
void vop_run_hide(struct work *w); /* out of the way, to be deleted */
void vop_run_unhide(struct work *w);
void vop_run_forget(struct work *w);
void vop_run_read(struct work *w);
void vop_run_write(struct work *w);

#endif
