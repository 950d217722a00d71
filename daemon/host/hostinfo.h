/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host is: nodes of memory, KVM, layers of confinement; read when it is asked for. Loop
 * thread.
 */
#ifndef VMD_DAEMON_HOSTINFO_H
#define VMD_DAEMON_HOSTINFO_H

#include "api-schema/gen/types.h"

#include <stdbool.h>
#include <stddef.h>

struct vmd;

struct hostinfo {
    char *kvm_problem; /* NULL: VMs may have the engine kvm */
    struct api_numa_node *nodes;
    size_t n_nodes;
    struct api_sandbox_layer *layers;
    size_t n_layers;
};

void hostinfo_read(struct vmd *d, struct hostinfo *h);
void hostinfo_done(struct hostinfo *h);
/* Guests of that architecture can run by KVM on this host, as far as can be seen from outside; else why not, with the remedy in *remedy (constant). */
int hostinfo_kvm(enum api_arch arch, const char **remedy, struct err *e);

#endif
