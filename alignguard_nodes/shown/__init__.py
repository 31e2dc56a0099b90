"""What nodes show: pictures, curves and texts."""
