# SPDX-License-Identifier: Apache-2.0
# engine/kvm: the KVM engine (no code yet).

EXTRA_DIST += engine/kvm/README.md
