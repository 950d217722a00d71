/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unit tests of the daemon.
 */
#include "tests/lib/testing.h"
#include "tests/unit/daemon_suites.h"

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_store, suite_migrate, suite_registry, suite_spawn,
                     suite_web, suite_lvm, NULL);
}
