# SPDX-License-Identifier: Apache-2.0
# docs: pages written by hand, and the pages under docs/reference that generators print.

EXTRA_DIST += \
	docs/ARCHITECTURE.md \
	docs/CAMPAIGNS.md \
	docs/PERFORMANCE.md \
	docs/SECURITY.md \
	docs/adr \
	docs/guide \
	docs/reference

# Scripts for users: in $(datadir)/vmd/examples.
examplesdir = $(pkgdatadir)/examples
dist_examples_SCRIPTS = docs/examples/snapshot-drill
