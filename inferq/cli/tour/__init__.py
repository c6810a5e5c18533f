"""`inferq demo tour`: a running stack shown by using it, each step checked."""
