// libpci: the names of PCI registers (pci/header.h) and the pci.ids look-ups.
#pragma once
#include <pci/pci.h>

// pci_lookup_name takes what it looks up as variable arguments, which Swift cannot pass.
static inline const char *cpci_lookup_1(struct pci_access *access, char *buffer, int size, int what, int a) {
    return pci_lookup_name(access, buffer, size, what, a);
}

static inline const char *cpci_lookup_2(struct pci_access *access, char *buffer, int size, int what, int a, int b) {
    return pci_lookup_name(access, buffer, size, what, a, b);
}

static inline const char *cpci_lookup_4(
    struct pci_access *access, char *buffer, int size, int what, int a, int b, int c, int d) {
    return pci_lookup_name(access, buffer, size, what, a, b, c, d);
}

static inline void cpci_ignore(char *message, ...) {
    (void)message;
}

// An access that only looks names up. libpci's own handler of errors ends the process; a pci.ids with mistakes is used as
// far as it can be read.
static inline struct pci_access *cpci_names(int numeric) {
    struct pci_access *access = pci_alloc();
    access->numeric_ids = numeric;
    // Never a question to the name service.
    access->id_lookup_mode = 0;
    access->error = cpci_ignore;
    access->warning = cpci_ignore;
    access->debug = cpci_ignore;
    return access;
}
