/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints docs/reference/devices.md: what the register, property and state tables of the device
 * classes say about themselves. `make docs` writes the page, tests/lint/reference.py compares.
 */
#include "devices/registry.h"
#include "engine/base/buf.h"

#include <stdio.h>

int main(void)
{
    AUTO_BUF page = BUF_INIT;
    devices_describe(&page);
    return fwrite(page.data, 1, page.len, stdout) == page.len && fflush(stdout) == 0 ? 0 : 1;
}
