"""One file per family of networks: the layout of its parameters and its forward definition."""
