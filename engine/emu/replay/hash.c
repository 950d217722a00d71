/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest of a machine's whole state: architecture, devices, memory. Equal for equal machines, whatever engine ran them and
 * whatever of their memory the host has given out. Main thread, at the barrier.
 */
#include "engine/emu/replay/replay.h"

#include "engine/base/buf.h"
#include "engine/core/device.h"
#include "engine/core/mem.h"
#include "engine/core/state.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

struct sum {
    EVP_MD_CTX *x;
    bool ok;
};

static void add(struct sum *s, const void *p, size_t n)
{
    s->ok = s->ok && EVP_DigestUpdate(s->x, p, n) == 1;
}

static void add_number(struct sum *s, uint64_t v)
{
    uint8_t b[8];

    for (unsigned i = 0; i < 8; i++) {
        b[i] = (uint8_t)(v >> 8 * i);
    }
    add(s, b, sizeof(b));
}

static int begin(struct sum *s)
{
    EVP_MD *md;

    /* A confined process can read no configuration. */
    s->ok = OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1;
    md = EVP_MD_fetch(NULL, "SHA256", NULL);
    s->x = EVP_MD_CTX_new();
    s->ok = s->ok && md && s->x && EVP_DigestInit_ex(s->x, md, NULL) == 1;
    EVP_MD_free(md);
    return s->ok ? 0 : -ENOMEM;
}

static int finish(struct sum *s, uint8_t out[REPLAY_HASH_LEN])
{
    s->ok = s->ok && EVP_DigestFinal_ex(s->x, out, NULL) == 1;
    EVP_MD_CTX_free(s->x);
    return s->ok ? 0 : -ENOMEM;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Pages of zeroes do not count, whether somebody has touched them or not. */
static void add_region(void *arg, struct mem_region *r)
{
    struct sum *s = arg;
    uint64_t size = mem_region_size(r), at = 0, length = 0;
    const uint8_t *host = mem_ram_host(r);

    add(s, mem_region_name(r), strlen(mem_region_name(r)) + 1);
    add_number(s, size);
    while (at < size) {
        bool holds = mem_region_holds(r, at, &length);
        uint64_t end = length < size - at ? at + length : size;

        for (; holds && at < end; at = (at / MEM_PAGE_SIZE + 1) * MEM_PAGE_SIZE) {
            size_t n = size - at < MEM_PAGE_SIZE ? (size_t)(size - at) : MEM_PAGE_SIZE;

            if (!is_zero(host + at, n)) {
                add_number(s, at);
                add(s, host + at, n);
            }
        }
        at = at < end ? end : at;
    }
}

static int hash_cpus(struct vm *vm, uint8_t out[REPLAY_HASH_LEN])
{
    struct sum s;
    AUTO_BUF b = BUF_INIT;

    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        if (vm->engine->regs_get) {
            vm->engine->regs_get(vm->vcpus[i]);
        }
        st_save(vm->arch->state, vm->vcpus[i]->cpu, &b);
    }
    if (begin(&s) == 0) {
        add(&s, b.data, b.len);
    }
    return finish(&s, out);
}

static int hash_devices(struct vm *vm, uint8_t out[REPLAY_HASH_LEN])
{
    struct sum s;
    AUTO_BUF b = BUF_INIT;

    list_for_each (it, &vm->devices) {
        struct device *d = list_entry(it, struct device, node);

        if (d->cls->state) {
            bus_lock(&d->lock);
            buf_add(&b, d->id, strlen(d->id) + 1);
            st_save(d->cls->state, d, &b);
            bus_unlock(&d->lock);
        }
    }
    if (begin(&s) == 0) {
        add(&s, b.data, b.len);
    }
    return finish(&s, out);
}

static int hash_memory(struct vm *vm, uint8_t out[REPLAY_HASH_LEN])
{
    struct sum s;

    if (begin(&s) == 0) {
        mem_each_ram(vm->mem, add_region, &s);
    }
    return finish(&s, out);
}

int replay_hash(struct emu *m, struct replay_hashes *h, struct err *e)
{
    struct sum s;
    int rc = hash_cpus(m->vm, h->cpus);

    rc = rc == 0 ? hash_devices(m->vm, h->devices) : rc;
    rc = rc == 0 ? hash_memory(m->vm, h->memory) : rc;
    if (rc == 0 && begin(&s) == 0) {
        add(&s, h->cpus, REPLAY_HASH_LEN);
        add(&s, h->devices, REPLAY_HASH_LEN);
        add(&s, h->memory, REPLAY_HASH_LEN);
        rc = finish(&s, h->all);
    }
    return rc == 0 ? 0 : err_set(e, rc, "no memory for a digest of the machine");
}

void replay_hex(const uint8_t hash[REPLAY_HASH_LEN], char out[2 * REPLAY_HASH_LEN + 1])
{
    for (unsigned i = 0; i < REPLAY_HASH_LEN; i++) {
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
    }
}
