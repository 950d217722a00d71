/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The suites of the daemon's unit tests.
 */
#ifndef VMD_TESTS_DAEMON_SUITES_H
#define VMD_TESTS_DAEMON_SUITES_H

#include <check.h>

Suite *suite_store(void);
Suite *suite_migrate(void);
Suite *suite_registry(void);
Suite *suite_spawn(void);
Suite *suite_web(void);
Suite *suite_lvm(void);

#endif
