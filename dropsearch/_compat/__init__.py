"""Private APIs of other libraries that dropsearch depends on, one file each."""
