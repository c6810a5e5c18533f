"""What `inferq doctor` looks at. Checks only read, and none of them raises."""
