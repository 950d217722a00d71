# SPDX-License-Identifier: Apache-2.0
# tests/lint: rules of the tree, checked by make check.
