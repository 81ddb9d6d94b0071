// libsystemd: socket activation, readiness, watchdog, journal.
#pragma once
#include <stdlib.h>
#include <sys/uio.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
