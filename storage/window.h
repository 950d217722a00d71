/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocol driver "window": some bytes of a file as if they were all of it, read-only: an image inside an archive.
 * blk_options.start and .length say which, and .fd, where it is not -1, of which file: it stays the caller's. Any thread.
 */
#ifndef VMD_STORAGE_WINDOW_H
#define VMD_STORAGE_WINDOW_H

struct blk_driver;

extern const struct blk_driver blk_window_driver;

#endif
