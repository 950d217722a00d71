/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of a keyboard by the names and numbers that others use: QMP's names, scan codes of the PC, keysyms of X11. The letters are
 * where a US keyboard has them. Constant data and functions on it; any thread.
 */
#ifndef VMD_DEVICES_INPUT_KEYS_H
#define VMD_DEVICES_INPUT_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#define KEYS_LEFT_SHIFT 42

struct key {
    uint16_t code;         /* of the guest's input.h */
    uint8_t scan;          /* set 1; with bit 7: behind 0xe0 */
    const char *name;      /* QMP's QKeyCode */
    uint32_t sym, shifted; /* keysyms, for characters up to 0xff the character; 0: none */
};

/* NULL: no such key. */
const struct key *key_by_name(const char *name);
const struct key *key_by_code(uint16_t code);
const struct key *key_by_scan(uint32_t scan);
/* *shift: whether shift is held for it. */
const struct key *key_by_sym(uint32_t sym, bool *shift);

#endif
