// Ethernet
