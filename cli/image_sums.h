/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of checksums beside the files of a VM: SHA256SUMS of our own archives, the manifest of an OVA (DMTF DSP0243 1.1, section 5.1).
 * Pure; any thread.
 */
#ifndef VMD_CLI_IMAGE_SUMS_H
#define VMD_CLI_IMAGE_SUMS_H

#include "cli/image_tar.h"

enum { SUMS_KIND = 16 };

/* What the list says of `name`: "SHA256" and the like, and its digest. False: nothing. */
bool sums_find(const char *list, bool manifest, const char *name, char kind[SUMS_KIND],
               char hex[TAR_HEX]);

#endif
