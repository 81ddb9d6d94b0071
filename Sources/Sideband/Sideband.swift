// Sideband
