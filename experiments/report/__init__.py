"""What came of a sweep: how its runs stand, its table, and what that says of the claims."""
