/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A restricted io_uring: reads and writes of registered files, nothing else, so that it opens no
 * way around the system call filter of the process. The caller serialises all calls.
 */
#ifndef VMD_STORAGE_URING_H
#define VMD_STORAGE_URING_H

#include "storage/block.h"

struct uring;

/* NULL where the kernel has none that can be restricted, or forbids it. */
struct uring *uring_new(void);
void uring_free(struct uring *u);
int uring_event(const struct uring *u);      /* readable when something completed */
void uring_clear(struct uring *u);           /* takes that notice away */
int uring_register(struct uring *u, int fd); /* a slot, or -1 */
void uring_unregister(struct uring *u, int slot);
/* 0, or negative: the ring is full or cannot take it. It begins with the next uring_submit(). */
int uring_queue(struct uring *u, struct blk_req *r, int slot);
#define URING_AGAIN_NS 1000000

/* Hands over what is queued, in one call. What is through when it returns gives no notice: reap afterwards. False: the kernel has not
 * taken all of it, for want of memory perhaps: call again after URING_AGAIN_NS. */
bool uring_submit(struct uring *u);
bool uring_reap(struct uring *u, struct blk_req **r, int *result);

#endif
