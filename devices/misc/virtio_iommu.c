/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-iommu: translates the addresses of the PCI functions behind it (virtio 1.2 §5.13). Endpoints are functions, by their requester numbers. The driver attaches them to
 * domains and maps pages in those; what is not mapped is out of reach, and told to the driver on the event queue. Functions that
 * are attached to nothing reach memory straight as long as the member `bypass` of the configuration says so, as firmware expects.
 *
 * Requests are served on the main loop under the transport's lock. Translations come from any thread, under the lock of the device that
 * asks: the tables have a lock of their own, which is the innermost.
 */
#include "devices/misc/virtio_iommu.h"

#include "devices/bus/pci_host.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/buf.h"
#include "engine/base/log.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#define REQUESTS 0
#define EVENTS 1
#define QUEUE_SIZE 64
#define PAGE_MASK 0xfffull
#define PROBE_SIZE 512
#define MAX_ENDPOINTS 1024
#define MAX_MAPPINGS (256 * 1024) /* 8 MiB */
#define MAX_FAULTS 16             /* that wait for the driver's buffers */

enum {
    F_INPUT_RANGE = 1 << 0,
    F_DOMAIN_RANGE = 1 << 1,
    F_MAP_UNMAP = 1 << 2,
    F_PROBE = 1 << 4,
    F_BYPASS_CONFIG = 1 << 6
};
enum { T_ATTACH = 1, T_DETACH, T_MAP, T_UNMAP, T_PROBE };
enum { S_OK = 0, S_UNSUPP = 2, S_INVAL = 4, S_RANGE = 5, S_NOENT = 6, S_NOMEM = 8 };
enum { ATTACH_BYPASS = 1 };
enum { MAP_READ = 1, MAP_WRITE = 2 };
enum { RESERVED_MEMORY = 1, RESERVED_FOR_MESSAGES = 1 };
enum { FAULT_DOMAIN = 1, FAULT_MAPPING = 2 };
enum { FAULT_READ = 1, FAULT_WRITE = 2, FAULT_ADDRESS = 1 << 8 };
enum { CONFIG_BYPASS = 36, CONFIG_SIZE = 40 };

/* All numbers below are little-endian: requests as the driver sends them, tables as states hold them. */
struct request {
    uint8_t type, reserved[3];
    union {
        struct {
            uint32_t domain, endpoint, flags;
        } attach;
        struct {
            uint32_t domain;
            uint64_t first, last, to;
            uint32_t flags;
        } __attribute__((packed)) map;
        uint32_t endpoint;
        uint8_t bytes[68];
    };
} __attribute__((packed));

/* How long a request of each type is without what the device fills. */
static const uint8_t request_size[] = {
    [T_ATTACH] = 20, [T_DETACH] = 20, [T_MAP] = 36, [T_UNMAP] = 28, [T_PROBE] = 72
};

struct endpoint {
    uint32_t number, domain, flags; /* ATTACH_BYPASS: of its domain, the same in each of them */
};
struct mapping {
    uint32_t domain, flags;
    uint64_t first, last, to;
};
struct fault {
    uint8_t reason, reserved[3];
    uint32_t flags, endpoint, reserved2;
    uint64_t address;
};

struct viommu {
    struct virtio v;
    struct device *host;          /* property: of the functions */
    uint64_t msi_first, msi_last; /* properties: where messages are written, equal: nowhere */

    pthread_rwlock_t lock; /* what follows */
    uint8_t bypass;
    struct buf endpoints; /* struct endpoint; a domain is there while one of them is in it */
    struct buf mappings;  /* struct mapping, by domain and address, none over another */
    struct fault fault[MAX_FAULTS];
    unsigned n_faults;
    bool ready; /* the lock is */
};

static struct viommu *viommu_of(struct virtio *v)
{
    return (struct viommu *)v;
}

/* --- tables
 * ---------------------------------------------------------------------------------- */

static size_t n_endpoints(const struct viommu *m)
{
    return m->endpoints.len / sizeof(struct endpoint);
}

static struct endpoint *endpoint_at(const struct viommu *m, size_t i)
{
    return (struct endpoint *)(void *)m->endpoints.data + i;
}

static size_t n_mappings(const struct viommu *m)
{
    return m->mappings.len / sizeof(struct mapping);
}

static struct mapping *mapping_at(const struct viommu *m, size_t i)
{
    return (struct mapping *)(void *)m->mappings.data + i;
}

static struct endpoint *endpoint_find(const struct viommu *m, uint32_t number)
{
    for (size_t i = 0; i < n_endpoints(m); i++) {
        if (le32toh(endpoint_at(m, i)->number) == number) {
            return endpoint_at(m, i);
        }
    }
    return NULL;
}

/* One of the endpoints in the domain; NULL: there is no such domain. */
static struct endpoint *domain_find(const struct viommu *m, uint32_t domain)
{
    for (size_t i = 0; i < n_endpoints(m); i++) {
        if (le32toh(endpoint_at(m, i)->domain) == domain) {
            return endpoint_at(m, i);
        }
    }
    return NULL;
}

/* The first mapping that ends at `at` of the domain or later, or is of a later domain. */
static size_t lower_bound(const struct viommu *m, uint32_t domain, uint64_t at)
{
    size_t low = 0, high = n_mappings(m);

    while (low < high) {
        size_t mid = (low + high) / 2;
        const struct mapping *e = mapping_at(m, mid);
        uint32_t d = le32toh(e->domain);

        if (d < domain || (d == domain && le64toh(e->last) < at)) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* Is mapping i one of the domain that begins at `last` or before? */
static bool touches(const struct viommu *m, size_t i, uint32_t domain, uint64_t last)
{
    return i < n_mappings(m) && le32toh(mapping_at(m, i)->domain) == domain &&
           le64toh(mapping_at(m, i)->first) <= last;
}

static void drop_mappings(struct viommu *m, size_t from, size_t to)
{
    memmove(mapping_at(m, from), mapping_at(m, to),
            (n_mappings(m) - to) * sizeof(struct mapping));
    m->mappings.len -= (to - from) * sizeof(struct mapping);
    if (m->mappings.len == 0) {
        buf_done(&m->mappings);
    }
}

static void detach(struct viommu *m, struct endpoint *ep)
{
    uint32_t domain = le32toh(ep->domain);
    size_t from;

    *ep = *endpoint_at(m, n_endpoints(m) - 1);
    m->endpoints.len -= sizeof(*ep);
    if (!domain_find(m, domain)) { /* it ends with the last endpoint in it */
        from = lower_bound(m, domain, 0);
        size_t to = from;

        while (touches(m, to, domain, UINT64_MAX)) {
            to++;
        }
        if (to > from) {
            drop_mappings(m, from, to);
        }
    }
}

static void forget(struct viommu *m)
{
    pthread_rwlock_wrlock(&m->lock);
    buf_done(&m->endpoints);
    buf_done(&m->mappings);
    m->n_faults = 0;
    pthread_rwlock_unlock(&m->lock);
}

/* --- translation
 * ----------------------------------------------------------------------------- */

static void report(struct viommu *m, uint8_t reason, uint32_t endpoint, uint64_t at, bool write)
{
    pthread_rwlock_wrlock(&m->lock);
    if (m->n_faults < MAX_FAULTS) {
        m->fault[m->n_faults++] = (struct fault){
            .reason = reason,
            .flags = htole32((write ? FAULT_WRITE : FAULT_READ) | FAULT_ADDRESS),
            .endpoint = htole32(endpoint),
            .address = htole64(at),
        };
    }
    pthread_rwlock_unlock(&m->lock);
    log_trace('v', "%s: endpoint 0x%x may not %s 0x%llx", m->v.dev.id, endpoint,
              write ? "write" : "read", (unsigned long long)at);
    virtio_ring(&m->v, EVENTS);
}

/* 0, or the reason why not. The lock is held. */
static uint8_t look_up(const struct viommu *m, uint32_t number, uint64_t at, bool write,
                       uint64_t *gpa, uint64_t *n)
{
    const struct endpoint *ep = endpoint_find(m, number);
    bool chosen = m->v.features & F_BYPASS_CONFIG || !(m->v.status & VIRTIO_STATUS_FEATURES_OK);
    const struct mapping *e;
    size_t i;

    *gpa = at;
    if (m->msi_first < m->msi_last && at >= m->msi_first && at <= m->msi_last) {
        *n = *n - 1 > m->msi_last - at ? m->msi_last - at + 1 : *n;
        return 0;
    }
    if (!ep) { /* a driver that does not know the switch leaves nothing open */
        return chosen && m->bypass ? 0 : FAULT_DOMAIN;
    }
    if (le32toh(ep->flags) & ATTACH_BYPASS) {
        return 0;
    }
    i = lower_bound(m, le32toh(ep->domain), at);
    if (!touches(m, i, le32toh(ep->domain), at)) {
        return FAULT_MAPPING;
    }
    e = mapping_at(m, i);
    if (!(le32toh(e->flags) & (write ? MAP_WRITE : MAP_READ))) {
        return FAULT_MAPPING;
    }
    *gpa = le64toh(e->to) + (at - le64toh(e->first));
    *n = *n - 1 > le64toh(e->last) - at ? le64toh(e->last) - at + 1 : *n;
    return 0;
}

static int translate(void *opaque, uint16_t requester, uint64_t at, bool write, uint64_t *gpa,
                     uint64_t *n)
{
    struct viommu *m = opaque;
    uint8_t reason;

    pthread_rwlock_rdlock(&m->lock);
    reason = look_up(m, requester, at, write, gpa, n);
    pthread_rwlock_unlock(&m->lock);
    if (reason) {
        report(m, reason, requester, at, write);
        return -EFAULT;
    }
    return 0;
}

struct pci_iommu virtio_iommu_port(struct device *d)
{
    return (struct pci_iommu){ translate, d };
}

/* --- requests (§5.13.6); the tables' lock is held
 * --------------------------------------------- */

static uint8_t attach(struct viommu *m, const struct request *r)
{
    uint32_t domain = le32toh(r->attach.domain), number = le32toh(r->attach.endpoint),
             flags = le32toh(r->attach.flags);
    struct endpoint *ep, *other;

    if (flags & ~(uint32_t)ATTACH_BYPASS || (flags && !(m->v.features & F_BYPASS_CONFIG)) ||
        r->bytes[12] || r->bytes[13] || r->bytes[14] || r->bytes[15]) {
        return S_INVAL;
    }
    if (number > UINT16_MAX || !pci_host_has(m->host, (uint16_t)number)) {
        return S_NOENT;
    }
    other = domain_find(m, domain);
    ep = endpoint_find(m, number);
    if (other && other != ep && le32toh(other->flags) != flags) {
        return S_INVAL; /* a domain is one or the other */
    }
    if (ep && le32toh(ep->domain) == domain && le32toh(ep->flags) == flags) {
        return S_OK;
    }
    if (ep) {
        detach(m, ep);
        other = domain_find(m, domain);
        if (other && le32toh(other->flags) != flags) {
            return S_INVAL;
        }
    }
    if (n_endpoints(m) == MAX_ENDPOINTS) {
        return S_NOMEM;
    }
    buf_add(&m->endpoints,
            &(struct endpoint){ htole32(number), htole32(domain), htole32(flags) },
            sizeof(struct endpoint));
    return S_OK;
}

static uint8_t detach_request(struct viommu *m, const struct request *r)
{
    struct endpoint *ep = endpoint_find(m, le32toh(r->attach.endpoint));

    if (!ep) {
        return S_NOENT;
    }
    if (le32toh(ep->domain) != le32toh(r->attach.domain)) {
        return S_INVAL;
    }
    detach(m, ep);
    return S_OK;
}

static uint8_t map(struct viommu *m, const struct request *r)
{
    uint32_t domain = le32toh(r->map.domain), flags = le32toh(r->map.flags);
    uint64_t first = le64toh(r->map.first), last = le64toh(r->map.last),
             to = le64toh(r->map.to);
    const struct endpoint *in = domain_find(m, domain);
    struct mapping e = { htole32(domain), htole32(flags), htole64(first), htole64(last),
                         htole64(to) };
    size_t at, n = n_mappings(m);

    if (flags & ~(uint32_t)(MAP_READ | MAP_WRITE)) {
        return S_INVAL;
    }
    if (!in) {
        return S_NOENT;
    }
    if (le32toh(in->flags) & ATTACH_BYPASS || first > last) {
        return S_INVAL;
    }
    if (first & PAGE_MASK || ~last & PAGE_MASK || to & PAGE_MASK ||
        to > UINT64_MAX - (last - first)) {
        return S_RANGE;
    }
    at = lower_bound(m, domain, first);
    if (touches(m, at, domain, last)) {
        return S_INVAL;
    }
    if (n == MAX_MAPPINGS) {
        return S_NOMEM;
    }
    buf_add(&m->mappings, &e, sizeof(e));
    memmove(mapping_at(m, at + 1), mapping_at(m, at), (n - at) * sizeof(e));
    *mapping_at(m, at) = e;
    return S_OK;
}

static uint8_t unmap(struct viommu *m, const struct request *r)
{
    uint32_t domain = le32toh(r->map.domain);
    uint64_t first = le64toh(r->map.first), last = le64toh(r->map.last);
    const struct endpoint *in = domain_find(m, domain);
    size_t from, to;

    if (!in) {
        return S_NOENT;
    }
    if (le32toh(in->flags) & ATTACH_BYPASS || first > last) {
        return S_INVAL;
    }
    from = to = lower_bound(m, domain, first);
    while (touches(m, to, domain, last)) {
        to++;
    }
    /* A mapping goes whole, or stays whole with all others. */
    if (to > from && (le64toh(mapping_at(m, from)->first) < first ||
                      le64toh(mapping_at(m, to - 1)->last) > last)) {
        return S_RANGE;
    }
    if (to > from) {
        drop_mappings(m, from, to);
    }
    return S_OK;
}

static uint8_t probe(struct viommu *m, const struct request *r, uint8_t out[PROBE_SIZE])
{
    uint32_t number = le32toh(r->endpoint);

    memset(out, 0, PROBE_SIZE);
    if (number > UINT16_MAX || !pci_host_has(m->host, (uint16_t)number)) {
        return S_NOENT;
    }
    if (m->msi_first < m->msi_last) {
        pci_put(out, RESERVED_MEMORY, 2);
        pci_put(out + 2, 20, 2);
        out[4] = RESERVED_FOR_MESSAGES;
        pci_put(out + 8, m->msi_first, 8);
        pci_put(out + 16, m->msi_last, 8);
    }
    return S_OK;
}

static uint8_t handle(struct viommu *m, const struct request *r, uint8_t *properties)
{
    switch (r->type) {
    case T_ATTACH:
        return attach(m, r);
    case T_DETACH:
        return detach_request(m, r);
    case T_MAP:
        return map(m, r);
    case T_UNMAP:
        return unmap(m, r);
    default:
        return probe(m, r, properties);
    }
}

/* Returns the bytes written; 0: the request is none, which breaks the device. */
static uint64_t serve_one(struct viommu *m, struct virtio_elem *el)
{
    uint8_t properties[PROBE_SIZE], tail[4] = { 0 };
    struct request r = { .type = 0 };
    size_t got = virtio_get(el, 0, &r, sizeof(r));
    bool known = r.type >= T_ATTACH && r.type <= T_PROBE;
    uint64_t before = r.type == T_PROBE ? PROBE_SIZE : 0;

    if (got < 4 || el->in_len < sizeof(tail)) {
        virtio_broken(&m->v, "a request without head or tail");
        return 0;
    }
    if (!known || el->in_len < before + sizeof(tail) || got < request_size[r.type]) {
        tail[0] = known ? S_INVAL : S_UNSUPP;
        virtio_put(el, el->in_len - sizeof(tail), tail, sizeof(tail));
        return el->in_len;
    }
    pthread_rwlock_wrlock(&m->lock);
    tail[0] = handle(m, &r, properties);
    pthread_rwlock_unlock(&m->lock);
    virtio_put(el, 0, properties, before);
    virtio_put(el, before, tail, sizeof(tail));
    return before + sizeof(tail);
}

static void serve_requests(struct viommu *m)
{
    for (unsigned n = 0; n < QUEUE_SIZE;) {
        struct virtio_elem *el = virtq_pop(&m->v, REQUESTS);

        if (el) {
            n++;
            virtq_push(&m->v, REQUESTS, el, serve_one(m, el));
        } else if (!virtq_rearm(&m->v, REQUESTS)) {
            virtq_signal(&m->v, REQUESTS);
            return;
        }
    }
    virtq_signal(&m->v, REQUESTS);
    virtio_ring(&m->v, REQUESTS);
}

static bool next_fault(struct viommu *m, struct fault *f)
{
    bool is;

    pthread_rwlock_wrlock(&m->lock);
    is = m->n_faults > 0;
    if (is) {
        *f = m->fault[0];
        memmove(m->fault, m->fault + 1, --m->n_faults * sizeof(*f));
    }
    pthread_rwlock_unlock(&m->lock);
    return is;
}

/* As many as the driver has buffers for; it rings again with more of them. */
static void serve_events(struct viommu *m)
{
    struct virtio_elem *el;
    struct fault f;

    pthread_rwlock_rdlock(&m->lock);
    unsigned left = m->n_faults;
    pthread_rwlock_unlock(&m->lock);
    while (left-- > 0 && (el = virtq_pop(&m->v, EVENTS)) != NULL) {
        if (!next_fault(m, &f)) {
            virtq_unpop(&m->v, EVENTS, el);
            break;
        }
        virtq_push(&m->v, EVENTS, el, virtio_put(el, 0, &f, sizeof(f)));
    }
    (void)virtq_rearm(&m->v, EVENTS);
    virtq_signal(&m->v, EVENTS);
}

static void viommu_serve(struct virtio *v, unsigned q)
{
    (q == REQUESTS ? serve_requests : serve_events)(viommu_of(v));
}

/* --- configuration (§5.13.4)
 * ----------------------------------------------------------------- */

static void viommu_config(struct virtio *v, uint8_t *out)
{
    pci_put(out, ~PAGE_MASK, 8);      /* sizes of pages */
    pci_put(out + 8, 0, 8);           /* addresses from */
    pci_put(out + 16, UINT64_MAX, 8); /* to */
    pci_put(out + 24, 0, 4);          /* domains from */
    pci_put(out + 28, UINT32_MAX, 4); /* to */
    pci_put(out + 32, PROBE_SIZE, 4);
    out[CONFIG_BYPASS] = viommu_of(v)->bypass;
}

static void viommu_config_written(struct virtio *v, uint32_t offset, uint64_t value,
                                  unsigned size)
{
    struct viommu *m = viommu_of(v);

    if (offset != CONFIG_BYPASS || size != 1 || value > 1 || !(v->features & F_BYPASS_CONFIG)) {
        log_trace('v', "%s: write of 0x%llx to its configuration at %u does nothing", v->dev.id,
                  (unsigned long long)value, offset);
        return;
    }
    pthread_rwlock_wrlock(&m->lock);
    m->bypass = (uint8_t)value;
    pthread_rwlock_unlock(&m->lock);
}

static void viommu_device_reset(struct virtio *v)
{
    forget(viommu_of(v)); /* bypass stays, so that a driver that ends can shut what it leaves */
}

static const struct virtio_ops viommu_ops = {
    .id = 23,
    .physical = true,
    .n_queues = 2,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE },
    .config_size = CONFIG_SIZE,
    .serve = viommu_serve,
    .config = viommu_config,
    .config_written = viommu_config_written,
    .reset = viommu_device_reset,
};

/* --- class
 * ----------------------------------------------------------------------------------- */

static int viommu_realize(struct device *d, struct err *e)
{
    struct viommu *m = (struct viommu *)d;
    int rc = pthread_rwlock_init(&m->lock, NULL);

    if (rc != 0) {
        return err_errno(e, rc, "%s: cannot make its lock", d->id);
    }
    m->ready = true;
    m->bypass = 1;
    virtio_setup(&m->v, &viommu_ops, 0,
                 F_INPUT_RANGE | F_DOMAIN_RANGE | F_MAP_UNMAP | F_PROBE | F_BYPASS_CONFIG);
    return 0;
}

/* Of the whole machine: firmware comes next. */
static void viommu_reset(struct device *d)
{
    struct viommu *m = (struct viommu *)d;

    forget(m);
    m->bypass = 1;
}

static void viommu_destroy(struct device *d)
{
    struct viommu *m = (struct viommu *)d;

    if (m->ready) {
        buf_done(&m->endpoints);
        buf_done(&m->mappings);
        pthread_rwlock_destroy(&m->lock);
    }
    virtio_done(&m->v);
}

static int endpoints_loaded(const struct viommu *m, struct err *e)
{
    for (size_t i = 0; i < n_endpoints(m); i++) {
        const struct endpoint *ep = endpoint_at(m, i);
        const struct endpoint *other = domain_find(m, le32toh(ep->domain));

        if (le32toh(ep->number) > UINT16_MAX || ep != endpoint_find(m, le32toh(ep->number)) ||
            ep->flags != other->flags || le32toh(ep->flags) & ~(uint32_t)ATTACH_BYPASS) {
            return err_set(e, -EINVAL, "%s: endpoint 0x%x is not possible", m->v.dev.id,
                           le32toh(ep->number));
        }
    }
    return 0;
}

static int viommu_loaded(void *obj, struct err *e)
{
    struct viommu *m = obj;

    if (m->bypass > 1 || m->endpoints.len % sizeof(struct endpoint) ||
        m->mappings.len % sizeof(struct mapping)) {
        return err_set(e, -EINVAL, "%s: its tables are cut, or bypass is %u", m->v.dev.id,
                       m->bypass);
    }
    for (size_t i = 0; i < n_mappings(m); i++) {
        const struct mapping *p = mapping_at(m, i), *b = i ? mapping_at(m, i - 1) : NULL;
        uint64_t first = le64toh(p->first), last = le64toh(p->last);
        const struct endpoint *in = domain_find(m, le32toh(p->domain));

        if (!in || le32toh(in->flags) & ATTACH_BYPASS || first > last || first & PAGE_MASK ||
            ~last & PAGE_MASK || le64toh(p->to) & PAGE_MASK ||
            le64toh(p->to) > UINT64_MAX - (last - first) ||
            le32toh(p->flags) & ~(uint32_t)(MAP_READ | MAP_WRITE) ||
            (b && (le32toh(b->domain) > le32toh(p->domain) ||
                   (b->domain == p->domain && le64toh(b->last) >= first)))) {
            return err_set(e, -EINVAL, "%s: the mapping of 0x%llx is not possible", m->v.dev.id,
                           (unsigned long long)first);
        }
    }
    return endpoints_loaded(m, e);
}

static const struct dev_prop viommu_props[] = {
    { .name = "host",
      .kind = PROP_PTR,
      .offset = offsetof(struct viommu, host),
      .required = true,
      .doc = "PCI host bridge of the functions" },
    { .name = "msi-first",
      .kind = PROP_U64,
      .offset = offsetof(struct viommu, msi_first),
      .doc = "address where messages may be written whatever is mapped" },
    { .name = "msi-last",
      .kind = PROP_U64,
      .offset = offsetof(struct viommu, msi_last),
      .doc = "last such address; 0: there is none" },
    { .name = NULL },
};

static const struct st_field viommu_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct viommu, bypass, ST_U8, 1, "1: what is attached to nothing reaches all"),
    ST_ARRAY(struct viommu, endpoints, ST_BUF, MAX_ENDPOINTS * sizeof(struct endpoint), 1,
             "endpoints: number, domain, flags, 32 bits each"),
    ST_ARRAY(struct viommu, mappings, ST_BUF, MAX_MAPPINGS * sizeof(struct mapping), 1,
             "mappings: domain and flags of 32 bits; first, last and target of 64"),
    ST_END,
};
static const struct st_table viommu_state = {
    .name = "virtio-iommu",
    .version = 1,
    .fields = viommu_fields,
    .loaded = viommu_loaded,
};

const struct device_class virtio_iommu_class = {
    .name = "virtio-iommu",
    .doc = "virtio IOMMU for PCI functions",
    .size = sizeof(struct viommu),
    .props = viommu_props,
    .state = &viommu_state,
    .realize = viommu_realize,
    .reset = viommu_reset,
    .resumed = virtio_resumed,
    .destroy = viommu_destroy,
};
