/* SPDX-License-Identifier: Apache-2.0 */
/* An open-addressing table with deletion and a chained one beside it: they must agree. */
#include "project.h"

#define SLOTS 4096u

struct slot {
    char key[16];
    unsigned value;
    enum { FREE, USED, DEAD } state;
};

struct link {
    struct link *next;
    unsigned value;
    char key[16];
};

static struct slot slots[SLOTS];
static struct link *buckets[256];

static uint32_t hash(const char *s)
{
    uint32_t h = 2166136261u;
    while (*s) {
        h = (h ^ (uint8_t)*s++) * 16777619u;
    }
    return h;
}

static struct slot *find(const char *key, bool make)
{
    struct slot *dead = NULL;
    for (uint32_t i = hash(key), n = 0; n < SLOTS; i++, n++) {
        struct slot *s = &slots[i % SLOTS];
        if (s->state == USED && strcmp(s->key, key) == 0) {
            return s;
        }
        if (s->state == DEAD && !dead) {
            dead = s;
        }
        if (s->state == FREE) {
            return make ? dead ? dead : s : NULL;
        }
    }
    return make ? dead : NULL;
}

static void put(const char *key, unsigned value)
{
    struct slot *s = find(key, true);
    strcpy(s->key, key);
    s->value = value;
    s->state = USED;
    struct link **at = &buckets[hash(key) % 256];
    while (*at && strcmp((*at)->key, key) != 0) {
        at = &(*at)->next;
    }
    if (!*at) {
        *at = calloc(1, sizeof(**at));
        if (!*at) {
            abort();
        }
        strcpy((*at)->key, key);
    }
    (*at)->value = value;
}

static void drop(const char *key)
{
    struct slot *s = find(key, false);
    if (s) {
        s->state = DEAD;
    }
    for (struct link **at = &buckets[hash(key) % 256]; *at; at = &(*at)->next) {
        if (strcmp((*at)->key, key) == 0) {
            struct link *gone = *at;
            *at = gone->next;
            free(gone);
            return;
        }
    }
}

void report_hash(void)
{
    uint64_t seed = 7;
    char key[16];
    for (unsigned i = 0; i < 30000; i++) {
        uint64_t r = next_random(&seed);
        snprintf(key, sizeof(key), "k%u", (unsigned)(r % 2500));
        if (r >> 32 & 3) {
            put(key, i);
        } else {
            drop(key);
        }
    }
    unsigned n = 0, wrong = 0;
    uint64_t sum = 0;
    for (unsigned b = 0; b < 256; b++) {
        for (struct link *l = buckets[b]; l; l = l->next) {
            struct slot *s = find(l->key, false);
            wrong += !s || s->value != l->value;
            sum += (uint64_t)l->value * hash(l->key);
            n++;
        }
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        n -= slots[i].state == USED;
    }
    printf("difference %u wrong %u sum %016" PRIx64 "\n", n, wrong, sum);
}
