"""Images and texts that nodes show below themselves."""
