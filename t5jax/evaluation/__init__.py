"""How good a model is: exact sums over whole splits, the same on any number of hosts."""
