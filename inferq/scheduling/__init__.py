"""Pure decisions: state in, decisions out. No clock, no Redis, no SQL, no await."""
