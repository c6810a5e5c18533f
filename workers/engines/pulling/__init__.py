"""What the pull engine stands on: the web, the hubs, one file's download, and the shelf it is put on."""
