"""One module per modality. Each declares its routes with the role they need; none decides who a caller is."""
