/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is checked before anything is changed: that a definition can run here, that its files can be
 * opened, that nobody else has its disks. Also what an emulator is given: its configuration and
 * its list of files. Loop thread.
 */
#ifndef VMD_DAEMON_PREFLIGHT_H
#define VMD_DAEMON_PREFLIGHT_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"
#include "daemon/run/supervise.h"

struct json_object;
struct vm;
struct vmd;

/* Debian's OpenSBI, what `firmware: default` means. */
#define DEFAULT_FIRMWARE_64 "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
#define DEFAULT_FIRMWARE_PC "/usr/share/seabios/bios-256k.bin"
#define DEFAULT_VGA_ROM "/usr/share/seabios/vgabios-stdvga.bin"
#define DEFAULT_FIRMWARE_32 "/usr/lib/riscv32-linux-gnu/opensbi/generic/fw_dynamic.bin"

/* Fills what define leaves open (uuid, names of disks) and checks what does not depend on the
 * moment: the host's size, members that need one another. 0, or -1 and *x. */
int preflight_define(struct vmd *d, struct api_vm_config *config, struct api_error *x);
/* The part of it that holds for a changed definition, too. */
int preflight_change(struct vmd *d, struct api_vm_config *config, struct api_error *x);
/* Checks what a start needs: something to run, the host's size; then, in vmd-spawn (which will open them,
 * and which may hang where vmd must not), the files; then that no other VM has the disks. fn runs
 * once, perhaps before this returns: x NULL and the disks, or x. The VM must live until then. */
typedef void preflight_fn(void *arg, const struct api_error *x, const struct run_disks *disks);
void preflight_start(struct vm *vm, preflight_fn *fn, void *arg);
/* The same for one that is to be recorded or replayed (tape not NULL). */
struct api_vm_start_in;
void preflight_start_tape(struct vm *vm, const struct api_vm_start_in *tape, preflight_fn *fn,
                          void *arg);
/* The first part of it alone. */
int preflight_host(const struct api_vm_config *config, struct api_error *x);
/* CPU models of an architecture; static. */
const char *const *preflight_cpu_models(enum api_arch arch, size_t *n);
/* Most vCPUs a VM may have on this host. */
int64_t preflight_max_cpus(void);
/* Bytes of memory of the host, in all and available now (NULL: not asked for, which saves reading a file). */
void preflight_memory(int64_t *total, int64_t *available);

/* Bytes that a VM has at most: its memory and all that may come to it. */
int64_t preflight_all_memory(const struct api_vm_config *config);

/* For vmd-spawn; the caller's. */
struct json_object *preflight_emu_config(const struct api_vm_config *config);
struct json_object *preflight_files(const struct api_vm_config *config);
/* Adds a recording that is to be made, or played; NULL: none. */
void preflight_tape_file(struct json_object *files, const char *record, const char *replay);

#endif
