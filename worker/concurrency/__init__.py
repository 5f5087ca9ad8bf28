"""How threads share what is scarce: scopes that end, budgets, turns by weight, single flight, isolation."""
