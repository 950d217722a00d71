/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The namespaces of an NVMe controller, as a board gives them to its property "namespaces".
 */
#ifndef VMD_DEVICES_BLOCK_NVME_NAMESPACES_H
#define VMD_DEVICES_BLOCK_NVME_NAMESPACES_H

#define NVME_NAMESPACES 8

struct blk_node;

/* Allocated by the caller; the device closes the nodes and frees it. */
struct nvme_namespaces {
    unsigned n;
    struct blk_node *node[NVME_NAMESPACES]; /* node i is namespace i + 1 */
};

#endif
