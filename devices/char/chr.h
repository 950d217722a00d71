/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character streams: the joint between a serial device (front) and what carries its bytes
 * (back: the emulator's console hub, a memory buffer in tests). Bytes are never lost: a side
 * that has no room says so and is called back.
 *
 * Lock order: device lock, then the back end's own lock. A back end calls the front on the main
 * loop, holding no lock of its own; the front takes its device's lock.
 */
#ifndef VMD_DEVICES_CHAR_CHR_H
#define VMD_DEVICES_CHAR_CHR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chr;

/* The device's side. All on the main loop. */
struct chr_front_ops {
    size_t (*room)(void *arg); /* bytes that receive() would take now */
    void (*receive)(void *arg, const uint8_t *p, size_t n); /* n <= room() */
    void (*writable)(void *arg); /* the back end takes output again */
    void (*connected)(void *arg, bool yes); /* somebody is at the other end; may be NULL */
};

/* The carrier's side. Any thread, with the device's lock held; none of them blocks. */
struct chr_back_ops {
    size_t (*write)(struct chr *c, const uint8_t *p,
                    size_t n);     /* returns how many bytes it took */
    void (*accept)(struct chr *c); /* the front has room again: offer input soon */
    void (*opened)(struct chr *c, bool yes); /* the guest uses it, or no more; may be NULL */
};

struct chr {
    const struct chr_back_ops *back;
    const struct chr_front_ops *front; /* NULL: no device attached */
    void *front_arg;
};

/* Device side, at realize and destroy (main thread). `c` may be NULL: output vanishes, no
 * input comes. */
static inline void chr_attach(struct chr *c, const struct chr_front_ops *front, void *arg)
{
    if (c) {
        c->front = front;
        c->front_arg = arg;
    }
}
static inline size_t chr_write(struct chr *c, const uint8_t *p, size_t n)
{
    return c ? c->back->write(c, p, n) : n;
}
static inline void chr_accept(struct chr *c)
{
    if (c) {
        c->back->accept(c);
    }
}
static inline void chr_opened(struct chr *c, bool yes)
{
    if (c && c->back->opened) {
        c->back->opened(c, yes);
    }
}
static inline void chr_connected(struct chr *c, bool yes)
{
    if (c->front && c->front->connected) {
        c->front->connected(c->front_arg, yes);
    }
}

#endif
