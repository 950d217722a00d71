/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs every suite of engine/base.
 */
#include "tests/lib/testing.h"
#include "tests/unit/base_suites.h"

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_values, suite_str, suite_hash, suite_log, suite_fd,
                     suite_loop, NULL);
}
