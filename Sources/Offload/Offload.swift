// Offload
