/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Example plugin: a model of data caches. Each vCPU has an L1, all share an L2; both are set-associative with least-recently-used
 * replacement and allocate on writes. Addresses are virtual, as a virtually indexed cache sees them.
 *
 *     vmd-emu --plugin cache.so,l1=32768:8:64,l2=1048576:16:64 ...        bytes:ways:line
 */
#include <vmd/plugin.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cache {
    unsigned ways, line_bits;
    uint64_t sets;
    uint64_t *tag;  /* [set][way], most recently used first; line number + 1, 0: empty */
    uint64_t accesses, misses;
};

struct shape {
    uint64_t bytes;
    unsigned ways, line;
};

static struct model {
    const struct vmd_plugin_api *api;
    struct vmd_plugin *self;
    struct shape l1, l2;
    struct cache *first; /* by vCPU */
    struct cache second;
    pthread_mutex_t lock; /* of `second` */
} model = { .l1 = { 32768, 8, 64 }, .l2 = { 1048576, 16, 64 }, .lock = PTHREAD_MUTEX_INITIALIZER };

static int cache_init(struct cache *c, const struct shape *s)
{
    uint64_t lines = s->line ? s->bytes / s->line : 0;
    c->ways = s->ways;
    c->sets = s->ways ? lines / s->ways : 0;
    while (1u << c->line_bits < s->line) {
        c->line_bits++;
    }
    if (1u << c->line_bits != s->line || c->sets == 0 || s->bytes > 1u << 30 ||
        c->sets * s->ways * s->line != s->bytes) {
        return -1;
    }
    c->tag = calloc(c->sets * c->ways, sizeof(uint64_t));
    return c->tag ? 0 : -1;
}

/* True when the line was there; it is the most recent one afterwards. */
static bool touch(struct cache *c, uint64_t line)
{
    uint64_t *set = &c->tag[line % c->sets * c->ways], want = line + 1;
    unsigned i = 0;
    while (i < c->ways - 1 && set[i] != want) {
        i++;
    }
    bool hit = set[i] == want;
    memmove(set + 1, set, i * sizeof(*set));
    set[0] = want;
    c->accesses++;
    c->misses += !hit;
    return hit;
}

static void on_access(void *user, unsigned vcpu, const struct vmd_access *a)
{
    struct cache *l1 = &model.first[vcpu];
    uint64_t last = (a->address + a->size - 1) >> l1->line_bits;
    (void)user;
    for (uint64_t line = a->address >> l1->line_bits; line <= last; line++) {
        if (!touch(l1, line)) {
            pthread_mutex_lock(&model.lock);
            touch(&model.second, line << l1->line_bits >> model.second.line_bits);
            pthread_mutex_unlock(&model.lock);
        }
    }
}

static void on_block(void *user, struct vmd_block *b)
{
    (void)user;
    for (size_t i = 0; i < model.api->insns(b); i++) {
        model.api->call_access(b, i, on_access, NULL);
    }
}

static void say(const char *name, const struct cache *c)
{
    char line[160];
    snprintf(line, sizeof(line), "%-8s %14" PRIu64 " accesses %12" PRIu64 " misses, hit rate %6.2f%%", name,
             c->accesses, c->misses,
             c->accesses ? 100.0 * (double)(c->accesses - c->misses) / (double)c->accesses : 0.0);
    model.api->print(model.self, line);
}

static void on_exit_(void *user)
{
    (void)user;
    for (unsigned i = 0; i < model.api->vcpus; i++) {
        char name[16];
        snprintf(name, sizeof(name), "cpu%u L1", i);
        say(name, &model.first[i]);
        free(model.first[i].tag);
    }
    say("L2", &model.second);
    free(model.second.tag);
    free(model.first);
}

__attribute__((visibility("default"))) int vmd_plugin_init(const struct vmd_plugin_api *api,
                                                           struct vmd_plugin *self, int n_args, char **args)
{
    int rc = 0;
    model.api = api;
    model.self = self;
    for (int i = 0; i < n_args; i++) {
        struct shape *s = strncmp(args[i], "l2=", 3) == 0 ? &model.l2 : &model.l1;
        if ((strncmp(args[i], "l1=", 3) != 0 && s == &model.l1) ||
            sscanf(args[i] + 3, "%" SCNu64 ":%u:%u", &s->bytes, &s->ways, &s->line) != 3) {
            api->print(self, "arguments: l1=BYTES:WAYS:LINE, l2=BYTES:WAYS:LINE");
            return 1;
        }
    }
    model.first = calloc(api->vcpus, sizeof(struct cache));
    for (unsigned i = 0; model.first && i < api->vcpus; i++) {
        rc |= cache_init(&model.first[i], &model.l1);
    }
    if (!model.first || rc || cache_init(&model.second, &model.l2)) {
        api->print(self, "a cache's bytes are sets * ways * line, and a line is a power of two");
        return 1;
    }
    api->on_block(self, on_block, NULL);
    api->on_exit(self, on_exit_, NULL);
    return 0;
}
