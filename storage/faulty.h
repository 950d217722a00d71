/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults on purpose: requests that reach a node are failed, delayed, torn or shortened by rules, for users who test
 * their guests and for our own tests. A node gets the driver "faulty" over its own with its first rule, for good;
 * one that never had a rule has nothing in the way of its requests.
 */
#ifndef VMD_STORAGE_FAULTY_H
#define VMD_STORAGE_FAULTY_H

#include "storage/block.h"

#include <stddef.h>

#define BLK_FAULTS_MAX 64                         /* rules of a node */
#define BLK_FAULT_DELAY_MAX UINT64_C(10000000000) /* ns */

enum blk_fault_action {
    BLK_FAULT_FAIL,  /* nothing is done, the request ends with `error` */
    BLK_FAULT_DELAY, /* it begins later; threads of the pool wait meanwhile */
    BLK_FAULT_TEAR,  /* the first bytes of a write reach the node, then it ends with `error` */
    BLK_FAULT_SHORTEN, /* the first bytes alone are moved, yet it ends well; a read finds zeroes behind */
};
struct blk_fault {
    unsigned id;  /* given by blk_fault_add() */
    unsigned ops; /* bits 1 << enum blk_op; 0: all */
    enum blk_fault_action action;
    int error;               /* negative errno, of FAIL and TEAR */
    uint64_t offset, length; /* requests that touch this range of the node; length 0: any */
    uint64_t skip;           /* so many that it fits go through first */
    uint64_t count;          /* then so many are hit; 0: all */
    uint64_t delay_ns;
    uint64_t bytes;      /* of TEAR and SHORTEN; 0: half of the request */
    uint64_t seen, hits; /* requests it fitted; of these, those it was applied to */
};

/* The first rule that applies to a request has it. Loop thread; -EOVERFLOW, -EINVAL name the disk. */
int blk_fault_add(struct blk_node *n, const struct blk_fault *f, unsigned *id, struct err *e);
/* id 0: all. -ENOENT. */
int blk_fault_remove(struct blk_node *n, unsigned id, struct err *e);
/* Up to `most` rules; how many there are. */
size_t blk_fault_list(const struct blk_node *n, struct blk_fault *out, size_t most);

#endif
