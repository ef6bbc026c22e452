"""Whatever locates: the contract, its implementations, and what they are built from."""
