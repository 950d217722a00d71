/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the random tests of qcow2 share: images of random options, opening them, checking them, and the random
 * numbers of a round, which depend on the seed and the number of the round alone. One thread.
 */
#ifndef VMD_TESTS_BLOCK_QCOW2_RIG_H
#define VMD_TESTS_BLOCK_QCOW2_RIG_H

#include "storage/block.h"
#include "storage/image.h"
#include "tests/lib/testing.h"

enum { SECTOR = 512, MAX_DISK = 1 << 20 };

extern uint64_t seed; /* of the round */
void round_seed(uint64_t base, uint64_t round);
unsigned below(unsigned n); /* 0 to n - 1 */
uint64_t env_number(const char *name, uint64_t otherwise);

struct config {
    const char *cluster, *bits, *lazy, *compat, *ext, *zip;
    const char *data; /* an external data file; NULL: none */
    uint64_t size;
    bool compress, luks, data_raw;
};
struct config random_config(void);
void make(const char *path, const struct config *c, const char *backing);

extern const struct blk_secret secret;
struct blk_node *open_image(const char *path, bool readonly, const struct blk_tap *tap,
                            bool check);
void check_sound(struct blk_node *n, bool leaks_too);
bool have_qemu(void);

#endif
