/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine that is recorded, or replayed from a recording: the tape behind engine/core/replay.h, and what stands between its devices and
 * the world meanwhile. Main thread but where said.
 */
#ifndef VMD_EMU_REPLAY_H
#define VMD_EMU_REPLAY_H

#include "engine/core/replay.h"
#include "engine/emu/emu.h"

struct blk_node;
struct chr;
struct net_port;

#define REPLAY_HASH_LEN 32
struct replay_hashes {
    uint8_t cpus[REPLAY_HASH_LEN], devices[REPLAY_HASH_LEN], memory[REPLAY_HASH_LEN];
    uint8_t all[REPLAY_HASH_LEN]; /* of the three */
};

/* ---- replay.c ---- */
/* After the VM was made, before its devices: as the options say; nothing when they say nothing. */
int record_new(struct emu *m, struct err *e);
struct chr *record_console(
    struct emu *m); /* for the console device; the hub's own when nothing is recorded */
void record_add_disk(struct emu *m, struct blk_node *n);
void record_built(struct emu *m); /* all devices are there */
bool record_active(const struct emu *m);
/* The machine is about to run for the first time. Negative: it is not the one that was recorded. */
int record_begin(struct emu *m, struct err *e);
/* It has stopped: the recording's end is written, or compared. */
void record_end(struct emu *m);
void record_free(struct emu *m); /* after the devices */
/* An exit status other than the guest's: the replay failed. */
bool record_failed(const struct emu *m);
struct api_emu_replay_status_out;
void record_status(struct emu *m, struct api_emu_replay_status_out *out); /* texts stay ours */

/* ---- calls.c ---- */
/* Answers a call that cannot be made while the machine is recorded or replayed: true. */
bool record_refuses(struct api_call *call);

/* ---- hash.c ---- */
/* At the barrier. */
int replay_hash(struct emu *m, struct replay_hashes *h, struct err *e);
void replay_hex(const uint8_t hash[REPLAY_HASH_LEN], char out[2 * REPLAY_HASH_LEN + 1]);

/* ---- chr.c, nic.c, disk.c: what stands between; freed by record_free() ---- */
struct record_chr;
struct record_chr *record_chr_new(struct vm *vm, const char *name, struct chr *inner);
struct chr *record_chr_front(struct record_chr *c); /* for the device */
void record_chr_start(struct record_chr *c);        /* the device is there */
void record_chr_free(struct record_chr *c);
/* Takes the port (NULL: a replay); the result is a port, too. */
struct net_port *record_nic_new(struct vm *vm, const char *name, struct net_port *take_inner);
struct record_disk;
/* scratch: the image stays as it is. */
struct record_disk *record_disk_new(struct vm *vm, struct blk_node *n, bool scratch);
void record_disk_free(struct record_disk *d);

#endif
