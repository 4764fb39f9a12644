"""How any result is computed once, kept, traced to where it comes from, and shown."""
