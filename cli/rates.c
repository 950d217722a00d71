/* SPDX-License-Identifier: Apache-2.0 */
/* What VMs did per second between two looks at their counters. One thread. */
#include "cli/rates.h"

#include "api-schema/json/json.h"
#include "engine/base/hash.h"
#include "engine/base/mem.h"

#include <stdlib.h>
#include <time.h>

/* One look at a VM. */
struct sample {
    int64_t at_ns, cpu_ns, instructions, read, written;
};

struct cli_rates {
    struct hash *last; /* UUID to struct sample */
};

struct cli_rates *cli_rates_new(void)
{
    struct cli_rates *r = xnew(struct cli_rates);

    r->last = hash_new_str();
    return r;
}

static bool free_sample(const char *skey, uint64_t ukey, void *value, void *arg)
{
    (void)skey;
    (void)ukey;
    (void)arg;
    free(value);
    return true;
}

void cli_rates_free(struct cli_rates *r)
{
    if (r) {
        hash_each(r->last, free_sample, NULL);
        hash_free(r->last);
        free(r);
    }
}

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int64_t cli_sum_disks(const struct json_object *stats, const char *member)
{
    struct json_object *disks = api_json_get(stats, "disks");
    int64_t sum = 0;

    for (size_t i = 0; disks && i < json_object_array_length(disks); i++) {
        sum += api_json_get_int(json_object_array_get_idx(disks, i), member, 0);
    }
    return sum;
}

bool cli_rates_of(struct cli_rates *r, const struct json_object *vm, struct cli_rate *out)
{
    struct json_object *s = api_json_get(vm, "stats");
    const char *uuid = api_json_get_str(vm, "uuid") ?: "";
    struct sample *now, *was;

    *out = (struct cli_rate){ 0 };
    if (!s) {
        return false;
    }
    now = xnew(struct sample);
    now->at_ns = now_ns() - api_json_get_int(s, "age_ms", 0) * 1000000;
    now->cpu_ns = api_json_get_int(s, "cpu_time_ns", 0);
    now->instructions = api_json_get_int(s, "instructions", 0);
    now->read = cli_sum_disks(s, "read_bytes");
    now->written = cli_sum_disks(s, "written_bytes");
    was = hash_put_str(r->last, uuid, now);
    double seconds = was ? (double)(now->at_ns - was->at_ns) / 1e9 : 0;
    /* Counters that went back are another run of the VM. */
    bool known = seconds > 0 && now->cpu_ns >= was->cpu_ns &&
                 now->instructions >= was->instructions;
    if (known) {
        out->cpu = (double)(now->cpu_ns - was->cpu_ns) / 1e9 / seconds;
        out->instructions = (double)(now->instructions - was->instructions) / seconds;
        out->read = (double)(now->read - was->read) / seconds;
        out->written = (double)(now->written - was->written) / seconds;
    }
    free(was);
    return known;
}
