/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine on Linux's KVM: struct engine_ops for engine/core, and its settings. See docs/guide/kvm.md.
 */
#ifndef VMD_KVM_KVM_H
#define VMD_KVM_KVM_H

#include "engine/core/engine.h"

#include <signal.h>
#include <sys/types.h>

/* vm->engine_config. */
struct kvm_config {
    int fd;    /* /dev/kvm, borrowed; -1: there is none */
    pid_t pid; /* of this process: the sandbox has no call that tells it */
};

/* The signal that brings a vCPU's thread out of KVM_RUN: blocked everywhere else, and so never handled. */
#define KVM_KICK_SIGNAL SIGUSR1

extern const struct engine_ops kvm_engine_ops;

/* Every request that threads of a running VM make of KVM, for sandboxes. */
extern const unsigned long kvm_requests[];
extern const unsigned kvm_n_requests;

/* Can VMs of that architecture (arch_ops.name) run with this descriptor of /dev/kvm? The error says what is missing. */
int kvm_usable(int fd, const char *arch, struct err *e);

#endif
