/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU models of x86: what CPUID answers (Intel SDM volume 2, CPUID), made from what an engine offers. Pure functions.
 */
#ifndef VMD_ARCH_X86_FEATURES_H
#define VMD_ARCH_X86_FEATURES_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* One answer; eax to edx in reg[]. */
struct x86_cpuid {
    uint32_t leaf, sub;
    bool has_sub; /* sub counts */
    uint32_t reg[4];
};
enum { X86_EAX, X86_EBX, X86_ECX, X86_EDX };

#define X86_CPUID_MAX 128
struct x86_features {
    unsigned n;
    struct x86_cpuid leaf[X86_CPUID_MAX];
};

/* A leaf's answer, or NULL. */
struct x86_cpuid *x86_leaf(struct x86_features *f, uint32_t leaf, uint32_t sub);
bool x86_has(const struct x86_features *f, const char *name);

/* The words of CPUID in which features are, as a saved state has them. Words are added at the end. */
enum { X86_WORDS = 12 };
void x86_features_words(const struct x86_features *f, uint32_t *words);
/* What was in the words of a state and is not in those of this machine: -ENOTSUP names each. */
int x86_features_cover(const uint32_t *have, const uint32_t *want, struct err *e);

/*
 * What a vCPU of `model` answers where the engine offers `offered`: "host" and "max" (or empty: all of it), or a named one
 * with what it is defined by and no more; behind it ",+feature" or ",-feature" as often as wanted. -ENOTSUP names every feature that the engine does not offer, -EINVAL an
 * unknown model or feature. apic_id and cpus go into the leaves that tell of topology.
 */
int x86_features_make(const char *model, const struct x86_features *offered, unsigned apic_id,
                      unsigned cpus, struct x86_features *out, struct err *e);

#endif
