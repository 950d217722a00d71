/* SPDX-License-Identifier: Apache-2.0 */
/* What VMs did per second between two looks at their counters: for 'stats --watch' and 'top'. One thread. */
#ifndef VMD_CLI_RATES_H
#define VMD_CLI_RATES_H

#include <stdbool.h>
#include <stdint.h>

struct cli_rates;
struct json_object;

/* Per second. */
struct cli_rate {
    double cpu; /* host CPUs: 1.0 is one of them, all the time */
    double instructions;
    double read, written; /* bytes of all disks */
};

struct cli_rates *cli_rates_new(void);
void cli_rates_free(struct cli_rates *r); /* NULL is fine */
/* Takes a VmInfo with its statistics and fills *out by the last one of the same VM. false (and zeros) for the first. */
bool cli_rates_of(struct cli_rates *r, const struct json_object *vm, struct cli_rate *out);
/* A counter of a VM's disks, added up. */
int64_t cli_sum_disks(const struct json_object *stats, const char *member);

#endif
