/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table with open addressing and string keys: insertions, look-ups that hit and miss, and
 * deletions. Arguments: keys, rounds.
 */
#include "tests/bench/guest/bench.h"

struct slot {
    const char *key;
    uint32_t hash;
    uint32_t value;
};

static struct slot *table;
static size_t mask;

static uint32_t hash_text(const char *text)
{
    uint32_t hash = 5381;

    while (*text) {
        hash = hash * 33 + (uint8_t)*text++;
    }
    return hash ^ hash >> 15;
}

static struct slot *find(const char *key, uint32_t hash)
{
    size_t at = hash & mask;

    while (table[at].key) {
        if (table[at].hash == hash && strcmp(table[at].key, key) == 0) {
            break;
        }
        at = (at + 1) & mask;
    }
    return &table[at];
}

/* Backward shift, so that no tombstones stay. */
static void erase(struct slot *slot)
{
    size_t hole = (size_t)(slot - table);

    for (size_t at = (hole + 1) & mask; table[at].key; at = (at + 1) & mask) {
        if (((at - (table[at].hash & mask)) & mask) >= ((at - hole) & mask)) {
            table[hole] = table[at];
            hole = at;
        }
    }
    table[hole].key = NULL;
}

int main(int argc, char **argv)
{
    size_t count = (size_t)bench_argument(argc, argv, 1, 1000);
    long rounds = bench_argument(argc, argv, 2, 1);
    char(*keys)[16] = bench_alloc(count * 16);
    uint64_t sum = 0;

    for (mask = 1; mask < count * 2; mask *= 2) {
    }
    table = bench_alloc(mask * sizeof *table);
    mask--;
    for (size_t i = 0; i < count; i++) {
        snprintf(keys[i], 16, "k%zu", i * 2654435761u % 1000000007u);
    }
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < count; i++) {
            uint32_t hash = hash_text(keys[i]);
            struct slot *slot = find(keys[i], hash);

            *slot = (struct slot){ keys[i], hash, (uint32_t)i };
        }
        for (size_t i = 0; i < count; i++) {
            char other[16];

            sum += find(keys[(i * 7919) % count], hash_text(keys[(i * 7919) % count]))->value;
            memcpy(other, keys[i], 16);
            other[0] = 'x';
            sum += find(other, hash_text(other))->key == NULL;
        }
        for (size_t i = (size_t)round & 1; i < count; i += 2) {
            erase(find(keys[i], hash_text(keys[i])));
        }
    }
    for (size_t i = 0; i <= mask; i++) {
        sum += table[i].key ? table[i].value : 0;
    }
    bench_end(sum);
    return 0;
}
