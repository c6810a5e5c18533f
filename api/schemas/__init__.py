"""What request and answer bodies look like: one table per endpoint, which both checks bodies and documents them."""
