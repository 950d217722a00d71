/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The regions of the code buffer: how large they are under the user's limit, how blocks are laid into them, and how one is
 * emptied for new code. tcg_vm.lock is held everywhere; eviction besides needs that no vCPU is in translated code.
 *
 * A region grows from both ends: code from the bottom up, what describes it from the top down, so that neither can run out
 * alone, all of it lies in huge pages, and emptying it frees nothing one by one.
 */
#include "engine/tcg/instrument.h"
#include "engine/tcg/tier2.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MASK 0xfffull
#define MIN_GROUPS 64u

static size_t at_least(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- layout ---- */

void cache_share(struct tcg_vm *t)
{
    size_t vcpus = t->n_vcpus ? t->n_vcpus : 1, spaces = t->config.cache_size / 8 / vcpus / sizeof(struct tcg_space);
    t->max_spaces = (unsigned)at_least(2, at_most(TCG_SPACES, spaces));
    size_t sets = at_least(1, at_most(JUMP2_SETS, t->config.cache_size / 32 / vcpus / sizeof(struct jump2_set)));
    t->jump2_sets = 1u << (31 - __builtin_clz((unsigned)sets));
}

/* The limit, less what is not in the code buffer; spaces and page records get their share first. */
static size_t for_regions(struct tcg_vm *t)
{
    size_t limit = t->config.cache_size, vcpus = t->n_vcpus ? t->n_vcpus : 1;
    cache_share(t);
    t->pages.max_groups = at_least(MIN_GROUPS + vcpus, limit / 32 / (TCG_PAGE_GROUP * sizeof(struct tcg_page)));
    size_t others = vcpus * (t->max_spaces * sizeof(struct tcg_space) + TLB2_SETS * sizeof(struct tlb2_set) + TCG_WARM * sizeof(uint16_t) +
                             t->jump2_sets * sizeof(struct jump2_set)) +
                    t->pages.max_groups * TCG_PAGE_GROUP * sizeof(struct tcg_page) +
                    t->pages.n * sizeof(t->pages.writers[0]) +
                    t->pages.n / TCG_PAGE_GROUP * sizeof(t->pages.group[0]) +
                    (sizeof(t->hash[0]) << t->hash_bits) + t->buf.size / TCG_BY_HOST * sizeof(t->by_host[0]);
    return limit > others ? limit - others : 0;
}

void cache_layout(struct tcg_vm *t)
{
    if (t->n_regions) {
        return;
    }
    size_t huge = 2u << 20, room = for_regions(t);
    size_t size = room >= 8 * huge ? at_least(huge, room / TCG_MAX_REGIONS / huge * huge)
                                   : at_least(TCG_MIN_REGION, room / 16 & ~(size_t)4095);
    unsigned n = (unsigned)at_most(TCG_MAX_REGIONS, room / size);
    if (n < 3) {
        n = 3; /* the buffer has room for them: the least limit is 1 MiB */
        log_info("tcg", "a cache_size of %zu KiB is too small for %u vCPUs: it takes %zu KiB more",
                 t->config.cache_size >> 10, t->n_vcpus, (n * size - room) >> 10);
    }
    t->region_size = (uint32_t)size;
    for (unsigned i = 0; i < n; i++) {
        uint32_t lo = (uint32_t)(i * size);
        t->regions[i] = (struct tcg_region){ .lo = lo, .hi = (uint32_t)(lo + size),
                                             .used = i ? lo : t->reserved, .top = (uint32_t)(lo + size) };
    }
    t->region = 0;
    t->n_regions = n;
}

int cache_init(struct tcg_vm *t, struct err *e)
{
    int rc = codebuf_init(&t->buf, t->config.cache_size, t->config.perf_map, e);
    if (rc < 0) {
        return rc;
    }
    pthread_mutex_init(&t->lock, NULL);
    atomic_store(&t->warm_from, (uint16_t)t->config.warm);
    if (t->config.backend == TCG_JIT) {
        t->reserved = (uint32_t)(tcg_host()->init(t, e) + 63) & ~63u;
    } else {
        t->reserved = 64; /* offset 0 means none */
    }
    while (t->hash_bits < 20 && (size_t)256 << t->hash_bits < t->config.cache_size) {
        t->hash_bits++;
    }
    t->hash = mem_map_huge(sizeof(t->hash[0]) << t->hash_bits);
    t->by_host = xnew_n(uint32_t, t->buf.size / TCG_BY_HOST + 1);
    if (!t->hash) {
        rc = err_errno(e, errno, "cannot map the table of blocks");
        cache_done(t);
    }
    return rc;
}

static void free_extra(struct tcg_vm *t, struct tcg_block *b)
{
    struct tcg_extra *x = cache_extra(t, b);
    if (x) {
        free(x->entries);
        free(x->counts);
        instrument_free(x->note);
    }
}

void cache_done(struct tcg_vm *t)
{
    for (unsigned r = 0; r < t->n_regions; r++) {
        for (struct tcg_block *b = cache_at(t, t->regions[r].newest); b; b = cache_older(b)) {
            free_extra(t, b);
        }
    }
    cache_pages_done(t);
    free(t->by_host);
    if (t->hash) {
        mem_unmap_huge((void *)t->hash, sizeof(t->hash[0]) << t->hash_bits);
    }
    free(t->host_data);
    codebuf_done(&t->buf);
    pthread_mutex_destroy(&t->lock);
}

void cache_memory(const struct tcg_vm *t, struct tcg_memory *m)
{
    *m = (struct tcg_memory){ .index = t->buf.size / TCG_BY_HOST * sizeof(t->by_host[0]),
                              .hash = (sizeof(t->hash[0]) << t->hash_bits) + t->n_vcpus * TCG_WARM * sizeof(uint16_t) };
    for (unsigned r = 0; r < t->n_regions && t->regions[r].touched; r++) {
        m->regions += t->region_size;
    }
    m->pages = t->pages.n * sizeof(t->pages.writers[0]) +
               t->pages.n / TCG_PAGE_GROUP * sizeof(t->pages.group[0]) +
               t->pages.n_groups * TCG_PAGE_GROUP * sizeof(struct tcg_page);
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        m->spaces += TLB2_SETS * sizeof(struct tlb2_set);
        m->spaces += (t->vcpus[i]->jump2 ? t->vcpus[i]->jump2_mask + 1 : 0) * sizeof(struct jump2_set);
        for (unsigned k = 0; k < TCG_SPACES; k++) {
            m->spaces += t->vcpus[i]->spaces[k] ? sizeof(struct tcg_space) : 0;
        }
        m->scratch += sizeof(struct ir) + IR_MAX_TEMPS * sizeof(uint64_t);
        m->scratch += t->vcpus[i]->host_scratch ? tcg_host()->scratch() : 0;
    }
}

/* ---- filling ---- */

uint32_t cache_fill_point(const struct tcg_vm *t)
{
    return t->regions[t->region].used;
}

static size_t exact_size(unsigned n_exits, bool extra)
{
    size_t size = offsetof(struct tcg_block, exits) + n_exits * sizeof(struct tcg_exit);
    return extra ? ((size + 7) & ~(size_t)7) + sizeof(struct tcg_extra) : size;
}

size_t cache_table_size(unsigned n_exits, bool extra)
{
    return exact_size(n_exits, extra) + 32; /* what alignment of code and tables takes */
}

size_t cache_largest(struct tcg_vm *t)
{
    cache_layout(t);
    return t->region_size - t->reserved;
}

struct tcg_block *cache_begin(struct tcg_vm *t, unsigned n_exits, bool extra)
{
    size_t size = exact_size(n_exits, extra);
    uint32_t align = extra ? 8 : TCG_TABLE_UNIT;
    struct tcg_block *b = cache_at(t, (uint32_t)(t->regions[t->region].top - size) & ~(align - 1));
    memset(b, 0, size);
    b->n_exits = (uint16_t)n_exits;
    for (unsigned i = 0; i < n_exits; i++) {
        atomic_init(&b->exits[i].which, (uint16_t)(i << 1));
    }
    b->extra = extra;
    if (extra) {
        cache_extra(t, b)->gpa_page2 = UINT64_MAX;
    }
    return b;
}

/* Seven bits a byte, the highest bit where more follow. Returns where the next goes, NULL beyond the end. */
static uint8_t *pack(uint8_t *at, const uint8_t *end, uint32_t value)
{
    for (; value >= 0x80 && at && at < end; value >>= 7) {
        *at++ = (uint8_t)(value | 0x80);
    }
    if (!at || at >= end) {
        return NULL;
    }
    *at++ = (uint8_t)value;
    return at;
}

static const uint8_t *unpack(const uint8_t *at, uint32_t *value)
{
    *value = 0;
    for (unsigned shift = 0;; shift += 7) {
        *value |= (uint32_t)(*at & 0x7f) << shift;
        if (!(*at++ & 0x80)) {
            return at;
        }
    }
}

bool cache_sites(struct tcg_vm *t, struct tcg_block *b, const struct tcg_site *sites, unsigned n)
{
    uint8_t packed[256], *at = packed;
    struct tcg_site last = { b->code, (int32_t)(b->gpa & PAGE_MASK) };
    uint8_t *big = n * 10ul > sizeof(packed) ? xalloc(n * 10ul) : NULL;
    uint8_t *from = big ? big : packed;
    const uint8_t *end = big ? big + n * 10ul : packed + sizeof(packed);
    at = from;
    for (unsigned i = 0; i < n; i++) {
        uint32_t d = (uint32_t)sites[i].insn - (uint32_t)last.insn;
        at = pack(at, end, sites[i].host - last.host);
        at = pack(at, end, d << 1 ^ (uint32_t)-(int32_t)(d >> 31)); /* small whatever its sign */
        last = sites[i];
    }
    size_t size = (size_t)(at - from);
    uint32_t ref = cache_ref(t, b);
    bool fits = size <= UINT16_MAX && b->code + block_size(b) + size <= ref;
    if (fits) {
        memcpy((uint8_t *)b - size, from, size);
        b->site_bytes = (uint16_t)size;
    }
    free(big);
    return fits;
}

bool cache_site(struct tcg_vm *t, uint64_t host, int32_t *insn)
{
    bool found = false;
    pthread_mutex_lock(&t->lock);
    const struct tcg_block *b = cache_by_host(t, host);
    uint64_t off = host - (uint64_t)(uintptr_t)t->buf.rx;
    const uint8_t *end = (const uint8_t *)b, *at = b ? end - b->site_bytes : end;
    uint32_t here = b ? b->code : 0, step;
    int32_t which = b ? (int32_t)(b->gpa & PAGE_MASK) : 0;
    while (at < end && !found) {
        at = unpack(at, &step);
        here += step;
        at = unpack(at, &step);
        which += (int32_t)(step >> 1 ^ -(step & 1));
        found = here == off;
    }
    *insn = found ? which : *insn;
    pthread_mutex_unlock(&t->lock);
    return found;
}

static void count_tables(struct tcg_vm *t, const struct tcg_block *b, bool more)
{
    uint64_t exits = b->n_exits * sizeof(b->exits[0]), extra = b->extra ? sizeof(struct tcg_extra) : 0;
    uint64_t part[] = { exact_size(0, false), exits, b->site_bytes, extra };
    uint64_t *sum[] = { &t->stats.header_bytes, &t->stats.exit_bytes, &t->stats.site_bytes, &t->stats.extra_bytes };
    for (unsigned i = 0; i < ARRAY_LEN(part); i++) {
        *sum[i] += more ? part[i] : 0 - part[i];
        t->stats.table_bytes += more ? part[i] : 0 - part[i];
    }
    t->stats.blocks += more ? 1 : UINT64_MAX;
    t->stats.code_bytes += more ? block_size(b) : 0 - (uint64_t)block_size(b);
}

void cache_place(struct tcg_vm *t, struct tcg_block *b)
{
    struct tcg_region *r = &t->regions[t->region];
    uint32_t ref = cache_ref(t, b);
    b->older = r->newest ? (uint16_t)((r->newest - ref) / TCG_TABLE_UNIT) : 0;
    r->newest = ref;
    r->used = b->code + block_size(b);
    r->top = (r->newest - b->site_bytes) & ~(TCG_TABLE_UNIT - 1);
    t->by_host[b->code / TCG_BY_HOST] = r->newest;
    count_tables(t, b, true);
}

struct tcg_block *cache_by_host(const struct tcg_vm *t, uint64_t host)
{
    uint64_t off = host - (uint64_t)(uintptr_t)t->buf.rx;
    if (off >= (uint64_t)t->n_regions * t->region_size) {
        return NULL;
    }
    uint32_t lo = t->regions[off / t->region_size].lo;
    for (uint64_t i = off / TCG_BY_HOST;; i--) {
        for (struct tcg_block *b = cache_at(t, t->by_host[i]); b; b = cache_older(b)) {
            if (b->code <= off) {
                return b;
            }
        }
        if (i * TCG_BY_HOST <= lo) {
            return NULL;
        }
    }
}

struct tcg_block *cache_linked(const struct tcg_vm *t, const struct tcg_exit *x)
{
    return exit_linked(x) ? cache_by_host(t, (uint64_t)(uintptr_t)t->buf.rx + tcg_host()->leads_to(t, x)) : NULL;
}

/* ---- emptying ---- */

struct sweep {
    struct tcg_vm *t;
    uint32_t lo, hi;
};

static bool within(const struct sweep *w, uint32_t ref)
{
    return ref && ref >= w->lo && ref < w->hi;
}

static void unlink_exits(const struct sweep *w, struct tcg_block *b)
{
    for (unsigned x = 0; x < b->n_exits; x++) {
        struct tcg_exit *ex = &b->exits[x];
        if (exit_linked(ex) && within(w, tcg_host()->leads_to(w->t, ex))) {
            tcg_host()->patch(w->t, ex, exit_stub(ex));
            atomic_fetch_and_explicit(&ex->which, (uint16_t)~EXIT_LINKED, memory_order_relaxed);
        }
    }
}

/* The page without the blocks of the region, and without jumps to them: links do not leave a page. */
static void sweep_page(const struct sweep *w, uint64_t gpa_page)
{
    struct tcg_page *p = cache_page_of(w->t, gpa_page);
    uint32_t now = (uint32_t)w->t->stats.evictions;
    if (!p || p->swept == now) {
        return;
    }
    p->swept = now;
    p->made = 0;
    uint32_t *at = &p->blocks;
    for (struct tcg_block *b; (b = cache_at(w->t, *at));) {
        uint32_t *next = page_link(w->t, b, p == &w->t->pages.rom ? b->gpa & ~PAGE_MASK : gpa_page);
        if (within(w, *at)) {
            *at = *next;
            continue;
        }
        unlink_exits(w, b);
        p->made |= next == &b->page_next ? cache_granules(w->t, b) : cache_extra(w->t, b)->granules2;
        at = next;
    }
    __atomic_store_n(&p->granules, p->claims ? UINT64_MAX : p->made, __ATOMIC_SEQ_CST);
}

/* Invalid blocks whose entry leads into the region leave to the dispatcher again; those in the region are forgotten. */
static void sweep_forwarders(const struct sweep *w)
{
    struct tcg_vm *t = w->t;
    for (unsigned i = 0; i < t->n_regions; i++) {
        struct tcg_region *r = &t->regions[i];
        bool whole = r->lo == w->lo;
        uint32_t *at = &r->forwarders;
        for (struct tcg_block *b; (b = cache_at(t, *at));) {
            if (!whole && !within(w, *at)) {
                at = &b->page_next;
                continue;
            }
            if (whole && !within(w, *at)) {
                tcg_host()->kill(t, b, NULL);
                b->forward = 0;
            }
            *at = b->page_next;
        }
    }
}

/* No jump cache may lead there. Nobody is in guest code, so the spaces stand still. */
static void forget_jumps(const struct sweep *w)
{
    const struct tcg_vm *t = w->t;
    const uint8_t *base = t->config.backend == TCG_JIT ? t->buf.rx : t->buf.rw;
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        jump2_forget(t->vcpus[i], w->lo, w->hi);
        for (unsigned k = 0; k < TCG_SPACES; k++) {
            struct tcg_space *s = t->vcpus[i]->spaces[k];
            for (unsigned j = 0; s && !s->clean && j < JC_SIZE; j++) {
                if ((uintptr_t)s->jc[j].code - (uintptr_t)base - w->lo < w->hi - w->lo) {
                    s->jc[j].pc = 1;
                }
            }
        }
    }
}

/* Frees everything in a region; nobody is inside translated code. */
static void evict(struct tcg_vm *t, unsigned r, bool all)
{
    struct tcg_region *g = &t->regions[r];
    struct sweep w = { t, g->lo, g->hi };
    if (g->newest == 0) {
        return;
    }
    t->stats.evictions++;
    for (struct tcg_block *b = cache_at(t, g->newest); b; b = cache_older(b)) {
        cache_retire(t, b, false);
    }
    for (struct tcg_block *b = cache_at(t, g->newest); b && !all; b = cache_older(b)) {
        sweep_page(&w, b->gpa & ~PAGE_MASK);
        if (b->straddles) {
            sweep_page(&w, cache_extra(t, b)->gpa_page2);
        }
    }
    if (!all) {
        sweep_forwarders(&w);
    }
    for (struct tcg_block *b = cache_at(t, g->newest); b; b = cache_older(b)) {
        count_tables(t, b, false);
        free_extra(t, b);
    }
    forget_jumps(&w);
    memset(&t->by_host[g->lo / TCG_BY_HOST], 0, t->region_size / TCG_BY_HOST * sizeof(t->by_host[0]));
    g->used = r ? g->lo : t->reserved;
    g->top = g->hi;
    g->newest = g->forwarders = 0;
}

/* vCPUs share the counters: whoever would write one at each dispatch would keep the others waiting for it. */
#define USES_COUNTED 16u

void cache_used(struct tcg_vcpu *v, const struct tcg_block *b)
{
    if (v->n_lookup % USES_COUNTED == 0) {
        _Atomic uint64_t *uses = &v->tcg->regions[b->code / v->tcg->region_size].uses;
        atomic_fetch_add_explicit(uses, USES_COUNTED, memory_order_relaxed);
    }
}

/* What lies in the jump caches counts as wanted: what runs all the time is looked up seldom. */
static void count_jumps(struct tcg_vm *t)
{
    const uint8_t *base = t->config.backend == TCG_JIT ? t->buf.rx : t->buf.rw;
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        for (unsigned k = 0; k < TCG_SPACES; k++) {
            const struct tcg_space *s = t->vcpus[i]->spaces[k];
            for (unsigned j = 0; s && !s->clean && j < JC_SIZE; j++) {
                if (s->jc[j].pc != 1) {
                    uint64_t off = (uint64_t)((const uint8_t *)s->jc[j].code - base);
                    atomic_fetch_add(&t->regions[off / t->region_size].uses, 1);
                }
            }
        }
    }
}

/* Regions filled last are left alone until they had time to show what they are worth; of the others the one that was wanted least
 * goes (ADR 0014). */
static unsigned victim(struct tcg_vm *t)
{
    uint64_t young = t->n_regions / 3;
    unsigned best = (t->region + 1) % t->n_regions;
    bool found = false;
    for (unsigned i = 0; i < t->n_regions; i++) {
        struct tcg_region *r = &t->regions[i];
        if (i == t->region || t->fills - r->filled <= young) {
            continue;
        }
        if (!found || atomic_load(&r->uses) < atomic_load(&t->regions[best].uses)) {
            best = i;
            found = true;
        }
    }
    return best;
}

#define WARM_STEP (16u << 20)
#define WARM_STEPS 3u

/* How often compact code runs before it is compiled for speed, which takes four times as much room: config.warm times while the first 16 MiB are
 * filled, four times as often in the next, and so on; once anything had to go, as often as ever, since all that runs does not fit. The counters
 * of what has begun go up by as much. */
static void warm_up(struct tcg_vm *t)
{
    unsigned used = 0, was = atomic_load(&t->warm_from);
    for (unsigned i = 0; i < t->n_regions; i++) {
        used += t->regions[i].newest != 0 && i != t->region;
    }
    size_t steps = t->stats.evictions ? WARM_STEPS : at_most(WARM_STEPS, (size_t)used * t->region_size / WARM_STEP);
    uint64_t level = (uint64_t)t->config.warm << 2 * steps;
    unsigned from = level < UINT16_MAX ? (unsigned)level : UINT16_MAX;
    atomic_store(&t->warm_from, (uint16_t)from);
    for (unsigned n = 0; from > was && n < t->n_vcpus; n++) {
        for (uint16_t *at = t->vcpus[n]->warm, *end = at + TCG_WARM; at < end; at++) {
            unsigned left = __atomic_load_n(at, __ATOMIC_RELAXED) + (from - was);
            __atomic_store_n(at, (uint16_t)(left < UINT16_MAX ? left : UINT16_MAX), __ATOMIC_RELAXED);
        }
    }
}

void cache_warm_make(struct tcg_vcpu *v)
{
    v->warm = xnew_n(uint16_t, TCG_WARM);
    for (unsigned i = 0; i < TCG_WARM; i++) {
        v->warm[i] = atomic_load(&v->tcg->warm_from);
    }
}

static void fill_next(struct tcg_vm *t, unsigned r)
{
    t->region = r;
    warm_up(t);
    t->regions[r].filled = ++t->fills;
    atomic_store(&t->regions[r].uses, 0);
}

void cache_evict_one(struct tcg_vm *t, unsigned region)
{
    evict(t, region, false);
}

void cache_evict_next(struct tcg_vm *t)
{
    count_jumps(t);
    unsigned r = victim(t);
    evict(t, r, false);
    fill_next(t, r);
    for (unsigned i = 0; i < t->n_regions && t->fills % t->n_regions == 0; i++) {
        atomic_store(&t->regions[i].uses, atomic_load(&t->regions[i].uses) / 2);
    }
}

bool cache_reserve(struct tcg_vm *t, size_t max, bool may_evict)
{
    cache_layout(t);
    struct tcg_region *r = &t->regions[t->region];
    if (r->used + max > r->top) {
        unsigned next = (t->region + 1) % t->n_regions;
        if (!t->regions[next].newest) {
            fill_next(t, next);
        } else if (may_evict) {
            cache_evict_next(t);
        } else {
            return false;
        }
        r = &t->regions[t->region];
    }
    if (!r->touched) {
        r->touched = true;
        codebuf_grow(&t->buf, r->hi);
    }
    return true;
}

void cache_flush_all(struct tcg_vm *t)
{
    pthread_mutex_lock(&t->lock);
    t->stats.flushes++;
    for (unsigned r = 0; r < t->n_regions; r++) {
        evict(t, r, true);
    }
    for (uint64_t i = 0; i < t->pages.n; i++) {
        struct tcg_page *g = atomic_load(&t->pages.group[i / TCG_PAGE_GROUP]);
        if (!g) {
            i |= TCG_PAGE_GROUP - 1;
            continue;
        }
        g[i % TCG_PAGE_GROUP].blocks = 0;
        g[i % TCG_PAGE_GROUP].made = 0;
        __atomic_store_n(&g[i % TCG_PAGE_GROUP].granules, g[i % TCG_PAGE_GROUP].claims ? UINT64_MAX : 0, __ATOMIC_SEQ_CST);
    }
    t->pages.rom.blocks = 0;
    t->pages.rom.made = t->pages.rom.granules = 0;
    t->region = 0;
    pthread_mutex_unlock(&t->lock);
}
