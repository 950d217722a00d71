# SPDX-License-Identifier: Apache-2.0
# tests/unit: unit tests of engine/base.
