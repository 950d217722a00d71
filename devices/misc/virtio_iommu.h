/* SPDX-License-Identifier: Apache-2.0 */
/* What a board needs of its virtio-iommu. */
#ifndef VMD_DEVICES_MISC_VIRTIO_IOMMU_H
#define VMD_DEVICES_MISC_VIRTIO_IOMMU_H

#include "devices/bus/pci.h"

/* For pci_host_set_iommu(). */
struct pci_iommu virtio_iommu_port(struct device *d);

#endif
