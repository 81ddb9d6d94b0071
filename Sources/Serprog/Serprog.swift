// Serprog
