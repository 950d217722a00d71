/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The suites of engine/base's tests; tests/unit/base_test.c runs them all.
 */
#ifndef VMD_TESTS_BASE_SUITES_H
#define VMD_TESTS_BASE_SUITES_H

#include <check.h>

Suite *suite_values(void); /* err, mem, buf, list */
Suite *suite_str(void);
Suite *suite_hash(void);
Suite *suite_log(void);
Suite *suite_fd(void);
Suite *suite_loop(void);

#endif
