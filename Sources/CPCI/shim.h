// libpci: the names of PCI registers (pci/header.h) and the pci.ids look-ups.
#pragma once
#include <pci/pci.h>
